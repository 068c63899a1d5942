# Whole scenes: a digit may stand at the edge.
_base_ = ['./imagenet_knn.py']

test_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='Resize',
        scale=(64, 64),
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='PackInputs'),
]
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/digit-scenes',
        data_prefix='val',
        pipeline=test_pipeline,
    ),
)
val_cfg = dict(
    bank_dataloader=dict(
        num_workers=1,
        dataset=dict(
            _delete_=True,
            type='CustomDataset',
            data_root='data/digit-scenes',
            data_prefix='train',
            pipeline=test_pipeline,
        ),
    ),
)
