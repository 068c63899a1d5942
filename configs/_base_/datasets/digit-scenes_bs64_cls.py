# Made by tools/dataset_converters/make_digit_scenes.py.
_base_ = ['./imagenet_bs32_cls.py']

# Without flips: a mirrored digit is another shape.
train_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='RandomResizedCrop',
        scale=64,
        crop_ratio_range=(0.25, 1.0),
        backend='pillow',
    ),
    dict(type='PackInputs'),
]
# Whole: a digit may stand at the edge.
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
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/digit-scenes',
        data_prefix='train',
        pipeline=train_pipeline,
    ),
)
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
test_dataloader = val_dataloader
