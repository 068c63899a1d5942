# Linear probing on ImageNet-100, the paper's ablations (Tables 7-10).
_base_ = [
    '../../_base_/models/resnet50_linear.py',
    '../../_base_/datasets/imagenet100_bs32_cls.py',
    '../../_base_/schedules/linear_sgd_coslr_100e.py',
    '../../_base_/linear_runtime.py',
]

model = dict(head=dict(num_classes=100))
evaluation = dict(protocol='linear', dataset='in100')
