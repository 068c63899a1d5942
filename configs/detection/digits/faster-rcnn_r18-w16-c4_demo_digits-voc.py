# A narrow Faster R-CNN on the demo's scenes in VOC's layout, for a CPU.
_base_ = [
    '../../_base_/models/faster-rcnn_r50-c4.py',
    '../../_base_/datasets/digit-scenes_voc.py',
    '../../_base_/schedules/adamw_coslr_500i.py',
    '../../_base_/detection_runtime.py',
]

norm_cfg = dict(type='BN')
model = dict(
    backbone=dict(
        depth=18, stem_channels=16, base_channels=16, norm_cfg=norm_cfg
    ),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        # Digits are 12 to 120 px high, and narrower than high.
        anchor_generator=dict(scales=[1.5, 3, 6], ratios=[1.0, 1.6]),
    ),
    roi_head=dict(
        shared_head=dict(depth=18, base_channels=16, norm_cfg=norm_cfg),
        bbox_roi_extractor=dict(
            roi_layer=dict(output_size=8), out_channels=64
        ),
        bbox_head=dict(roi_feat_size=4, in_channels=128, num_classes=10),
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

default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False, window_size=20)
