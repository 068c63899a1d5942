_base_ = ['./mask-rcnn_r50-fpn_1x_coco.py']

model = dict(backbone=dict(depth=101))
