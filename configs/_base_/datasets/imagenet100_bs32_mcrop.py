_base_ = ['./imagenet_bs32_mcrop.py']

# The paper's ablations use smaller local crops (Table 9).
multi_crop = dict(
    type='MultiCrop',
    global_size=224,
    local_size=96,
    num_local=8,
    global_scale=(0.25, 1.0),
    local_scale=(0.05, 0.14),
)
train_dataloader = dict(
    dataset=dict(
        data_root='data/imagenet100',
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
