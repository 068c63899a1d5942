# ViT-S/16 with DINO's AdamW recipe (Table 10).
_base_ = ['../dino/dino_vit-small-p16_8xb32-mcrop-coslr-200e_in100.py']

model = dict(
    type='SCFS',
    # The paper does not say which blocks it searches: here the 4th, 8th and
    # 12th of 12, their patch tokens as maps. The class token of the last
    # one is what DINO's projector takes.
    backbone=dict(type='SearchVisionTransformer', out_indices=(3, 7, 11)),
    search_neck=dict(type='FeatureSearchNeck'),
    head=dict(type='SCFSHead'),
)
