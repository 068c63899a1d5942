# ResNet-101 (Table 10).
_base_ = ['./scfs_resnet50_8xb32-mcrop-coslr-200e_in100.py']

model = dict(backbone=dict(depth=101))
