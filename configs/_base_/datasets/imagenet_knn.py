# For k-NN as validation of a pre-training: a labelled bank, the training
# images as the test pipeline makes them, and the validation images.
test_pipeline = [
    dict(type='LoadImage'),
    dict(
        type='ResizeEdge',
        scale=256,
        edge='short',
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=False,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet',
        split='val',
        pipeline=test_pipeline,
    ),
)
val_evaluator = []  # the loop measures by itself
val_cfg = dict(
    type='KNNLoop',
    bank_dataloader={
        **val_dataloader,
        'dataset': {**val_dataloader['dataset'], 'split': 'train'},
    },
)
