# detectron2's "SyncBN" Mask R-CNN: norm in the heads too, and a box head of
# four convolutions and one FC layer. A stronger detector than that of the
# paper's tables, so its AP does not compare with theirs.
_base_ = ['./mask-rcnn_r50-fpn.py']

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    )
)
