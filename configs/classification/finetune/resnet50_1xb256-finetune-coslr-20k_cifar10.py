_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../../_base_/datasets/cifar10_bs256_cls.py',
    '../../_base_/schedules/finetune_sgd_coslr_20k.py',
    '../../_base_/finetune_runtime.py',
]

# SimCLR's statistics decay by max(1 - 10 / s, 0.9): here s, the iterations in
# an epoch, is 195, while on the smaller sets PyTorch's 0.9 is right.
norm_cfg = dict(type='BN', requires_grad=True, momentum=0.05)
model = dict(backbone=dict(norm_cfg=norm_cfg), head=dict(num_classes=10))
evaluation = dict(protocol='finetune', dataset='cifar10')
