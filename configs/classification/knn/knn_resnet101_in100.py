# Table 10.
_base_ = ['./knn_resnet50_in100.py']

model = dict(backbone=dict(depth=101))
