# The box probe on the digit scenes, as large as they are.
_base_ = ['./coco_boxes.py']

metainfo = dict(classes=tuple('0123456789'))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root='data/digit-scenes/',
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        metainfo=metainfo,
        pipeline=[
            dict(type='LoadImage'),
            dict(type='mmdet.Resize', scale=(160, 160), keep_ratio=True),
            dict(type='mmdet.PackDetInputs'),
        ],
    ),
)
val_cfg = dict(
    bank_dataloader=dict(
        num_workers=1,
        dataset=dict(
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='train/'),
            metainfo=metainfo,
        ),
    ),
)
del metainfo
