# Table 10.
_base_ = ['./resnet50_8xb32-linear-coslr-100e_in100.py']

model = dict(backbone=dict(depth=101))
