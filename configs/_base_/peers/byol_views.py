# Of BYOL and Barlow Twins: mmpretrain's imagenet_bs32_byol.py. MultiCrop's
# defaults are DINO's, which took BYOL's but for the scale.
_base_ = ['./loader.py']

multi_crop = dict(
    type='MultiCrop',
    num_local=0,
    global_scale=(0.08, 1.0),
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
