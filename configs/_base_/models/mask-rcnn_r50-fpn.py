# Fine-tuned as self-supervised work does: the whole backbone, its batch norm
# trained and synchronized, and norm in what is new: the FPN, a box head of
# four convolutions and one FC layer, and the mask head (detectron2's "SyncBN"
# Mask R-CNN, which MoCo's followers use).
_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py']

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None
    ),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
