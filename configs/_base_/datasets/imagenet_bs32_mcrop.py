data_preprocessor = dict(
    type='MultiCropDataPreprocessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
    non_blocking=True,
)
multi_crop = dict(
    type='MultiCrop',
    global_size=224,
    local_size=96,
    num_local=8,
    global_scale=(0.25, 1.0),
    local_scale=(0.05, 0.25),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='KeyedSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFiles',
        data_root='data/imagenet',
        data_prefix='train',
        on_error='raise',
        pipeline=[
            dict(type='LoadImage'),
            multi_crop,
            dict(
                type='PackInputs',
                meta_keys=('img_path', 'crops', 'colors'),
            ),
        ],
    ),
)
