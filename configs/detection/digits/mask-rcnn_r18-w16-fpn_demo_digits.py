# For the demo: a narrow Mask R-CNN, two minutes on a CPU core.
_base_ = [
    '../../_base_/models/mask-rcnn_r50-fpn-4conv1fc.py',
    '../../_base_/datasets/digit-scenes_coco.py',
    '../../_base_/schedules/adamw_coslr_500i.py',
    '../../_base_/detection_runtime.py',
]

norm_cfg = dict(type='BN')
# Digits of 40 to 80 px come from the level of stride 8, not from the finest.
roi_extractor = dict(out_channels=48, finest_scale=20)
model = dict(
    backbone=dict(
        depth=18, stem_channels=16, base_channels=16, norm_cfg=norm_cfg
    ),
    neck=dict(
        in_channels=[16, 32, 64, 128],
        out_channels=48,
        num_outs=4,
        norm_cfg=norm_cfg,
    ),
    rpn_head=dict(
        in_channels=48,
        feat_channels=48,
        # Digits are 12 to 120 px high, and narrower than high.
        anchor_generator=dict(
            scales=[4], ratios=[1.0, 1.6], strides=[4, 8, 16, 32]
        ),
    ),
    roi_head=dict(
        bbox_roi_extractor=roi_extractor,
        bbox_head=dict(
            in_channels=48,
            conv_out_channels=48,
            fc_out_channels=256,
            num_classes=10,
            norm_cfg=norm_cfg,
        ),
        mask_roi_extractor=roi_extractor,
        mask_head=dict(
            num_convs=2,
            in_channels=48,
            conv_out_channels=48,
            num_classes=10,
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=100, max_per_img=50),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=100, max_per_img=50), rcnn=dict(max_per_img=20)
    ),
)

# Few annotations would soon undo what the backbone has learned before.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1)))
)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False, window_size=20)
