# ViT-B/16 (Table 10).
_base_ = ['./dino_vit-small-p16_8xb32-mcrop-coslr-200e_in100.py']

model = dict(backbone=dict(arch='deit-base'))
