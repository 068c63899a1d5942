# The pooled output of the last stage, frozen, and a linear layer (normal
# 0.01, bias 0).
_base_ = ['mmpretrain::_base_/models/resnet50.py']

model = dict(type='LinearProbe')
