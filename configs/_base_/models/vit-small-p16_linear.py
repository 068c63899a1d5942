# The class tokens of the last four blocks, as DINO evaluates a ViT-S, frozen,
# and a linear layer (normal 0.01, bias 0).
model = dict(
    type='LinearProbe',
    backbone=dict(
        type='NormedVisionTransformer',
        arch='deit-small',
        img_size=224,
        patch_size=16,
        out_indices=[8, 9, 10, 11],
        out_type='cls_token',
    ),
    neck=dict(type='ConcatNeck'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=4 * 384),
)
