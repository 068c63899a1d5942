# Linear probing of the demo's network: minutes on a CPU core.
_base_ = [
    '../../_base_/models/resnet50_linear.py',
    '../../_base_/datasets/digit-scenes_bs64_cls.py',
    '../../_base_/schedules/linear_sgd_coslr_100e.py',
    '../../_base_/linear_runtime.py',
]

model = dict(
    backbone=dict(depth=18, stem_channels=16, base_channels=16),
    head=dict(num_classes=10, in_channels=128),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=30, by_epoch=True, begin=0, end=30),
]
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=64)
evaluation = dict(protocol='linear', dataset='digits')
