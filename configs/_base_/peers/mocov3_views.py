# Of MoCo v3: mmpretrain's imagenet_bs512_mocov3.py. It flips last, which is
# the same as first.
_base_ = ['./loader.py']

multi_crop = dict(
    type='MultiCrop',
    num_local=0,
    global_scale=(0.2, 1.0),
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
