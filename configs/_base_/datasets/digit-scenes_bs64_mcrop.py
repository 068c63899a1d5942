# Made by tools/dataset_converters/make_digit_scenes.py.
_base_ = ['./imagenet_bs32_mcrop.py']

multi_crop = dict(
    type='MultiCrop',
    global_size=64,
    local_size=32,
    num_local=2,
    global_scale=(0.25, 1.0),
    local_scale=(0.05, 0.25),
)
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    dataset=dict(
        data_root='data/digit-scenes',
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
