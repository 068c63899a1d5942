# Of SimCLR: mmpretrain's imagenet_bs32_simclr.py.
_base_ = ['./loader.py']

multi_crop = dict(
    type='MultiCrop',
    num_local=0,
    global_scale=(0.08, 1.0),
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    blur_prob=(0.5, 0.5, 0.5),
    solarize_prob=(0.0, 0.0, 0.0),
)
image_loader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImage'),
            multi_crop,
            dict(type='PackInputs'),
        ],
    ),
)
