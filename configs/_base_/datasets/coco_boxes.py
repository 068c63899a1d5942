# For the box probe as validation of a pre-training: annotated training images
# answer for the validation's. Half the size that detectors take.
val_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(
        type='mmdet.CocoDataset',
        data_root='data/coco/',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        # The bank's too. The loop adds what loads the annotations.
        pipeline=[
            dict(type='LoadImage'),
            dict(type='mmdet.Resize', scale=(672, 400), keep_ratio=True),
            dict(type='mmdet.PackDetInputs'),
        ],
    ),
)
val_evaluator = []  # the loop measures by itself
val_cfg = dict(
    type='BoxProbeLoop',
    bank_dataloader=dict(
        batch_size=8,
        num_workers=4,
        # Without a data_root: the same.
        dataset=dict(
            type='mmdet.CocoDataset',
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'),
        ),
    ),
    segmentation=True,
)
