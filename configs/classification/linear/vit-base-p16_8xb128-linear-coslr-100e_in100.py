# Table 10. Of a ViT-B, DINO takes the class token of the last block beside
# the mean of that block's patch tokens.
_base_ = ['./vit-small-p16_8xb128-linear-coslr-100e_in100.py']

model = dict(
    backbone=dict(arch='deit-base', out_indices=[11], out_type='raw'),
    neck=dict(type='ClassPatchNeck'),
    head=dict(in_channels=2 * 768),
)
