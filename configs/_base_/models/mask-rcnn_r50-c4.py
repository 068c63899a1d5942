# MoCo's C4 protocol: the whole network fine-tuned, its batch norm trained and
# synchronized, and one more norm after layer4, which is in the shared head.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py']

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    # What backbones are pre-trained on, where mmdet's base is for caffe's.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        style='pytorch',
        init_cfg=None,
    ),
    roi_head=dict(
        shared_head=dict(
            _delete_=True,
            type='SharedResStage',
            depth=50,
            norm_cfg=norm_cfg,
            extra_norm=True,
        ),
    ),
)
