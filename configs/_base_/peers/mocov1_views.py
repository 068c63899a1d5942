# MoCo greys before it jitters, here it is after: the hue of a grey image does
# not turn, so the greys that come out differ a little.
_base_ = ['./loader.py']

multi_crop = dict(
    type='MultiCrop',
    num_local=0,
    global_scale=(0.2, 1.0),
    jitter_prob=1.0,
    saturation=0.4,
    hue=0.4,
    blur_prob=(0.0, 0.0, 0.0),
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
