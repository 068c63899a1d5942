# Linear probing on ImageNet (Table 1).
_base_ = [
    '../../_base_/models/resnet50_linear.py',
    '../../_base_/datasets/imagenet_bs32_cls.py',
    '../../_base_/schedules/linear_sgd_coslr_100e.py',
    '../../_base_/linear_runtime.py',
]

evaluation = dict(protocol='linear', dataset='in1k')
