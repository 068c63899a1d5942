# A backbone alone, and the class tokens of three evenly spread blocks.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch='deit-small',
        img_size=224,
        patch_size=16,
        out_indices=(3, 7, 11),
        out_type='cls_token',
    ),
)
