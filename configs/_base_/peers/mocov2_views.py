# Of MoCo v2, SimSiam and DenseCL: mmpretrain's imagenet_bs32_mocov2.py. It
# flips last, which is the same as first.
_base_ = ['./loader.py']

multi_crop = dict(
    type='MultiCrop',
    num_local=0,
    global_scale=(0.2, 1.0),
    saturation=0.4,
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
