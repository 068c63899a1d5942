# Fine-tuned as in MoCo's COCO tables, which the paper continues: the whole
# backbone, its batch norm trained and synchronized, the same norm in the FPN,
# and Mask R-CNN's own heads without norm (two FC layers; four convolutions).
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None
    ),
    neck=dict(norm_cfg=norm_cfg),
)
