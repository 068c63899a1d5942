# Of SwAV: the two global and six local views of mmpretrain's config. It flips
# last, which is the same as first.
_base_ = ['./loader.py']

multi_crop = dict(
    type='MultiCrop',
    num_local=6,
    global_scale=(0.14, 1.0),
    local_scale=(0.05, 0.14),
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
