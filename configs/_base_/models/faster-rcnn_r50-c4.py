# mask-rcnn_r50-c4.py for boxes alone.
_base_ = ['./mask-rcnn_r50-c4.py']

model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
    # As mmdet's Faster R-CNN: anchors may cross the image's border.
    train_cfg=dict(rpn=dict(allowed_border=-1)),
)
