_base_ = ['./mask-rcnn_r50-fpn_2x_coco.py']

model = dict(backbone=dict(depth=101))
