# Table 10.
_base_ = ['./knn_vit-small-p16_in100.py']

model = dict(backbone=dict(arch='deit-base'))
