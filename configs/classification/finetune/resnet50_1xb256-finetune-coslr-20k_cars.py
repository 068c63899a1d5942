_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../../_base_/datasets/cars_bs256_cls.py',
    '../../_base_/schedules/finetune_sgd_coslr_20k.py',
    '../../_base_/finetune_runtime.py',
]

model = dict(head=dict(num_classes=196))
evaluation = dict(protocol='finetune', dataset='cars')
