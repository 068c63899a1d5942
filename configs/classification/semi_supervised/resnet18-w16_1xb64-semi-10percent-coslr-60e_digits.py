# Fine-tuning of the demo's network on 10% of the labels, which SimCLR's
# protocol does on ImageNet: a minute on a CPU core.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../../_base_/datasets/digit-scenes_bs64_cls.py',
    '../../_base_/classification_runtime.py',
]

model = dict(
    backbone=dict(depth=18, stem_channels=16, base_channels=16),
    head=dict(num_classes=10, in_channels=128),
)
# Of 3000 scenes in the order of their digits every tenth: 30 of each digit.
train_dataloader = dict(dataset=dict(indices=list(range(0, 3000, 10))))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.0
    ),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        by_epoch=True,
        begin=0,
        end=60,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=60, val_interval=10)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(logger=dict(interval=5))
auto_scale_lr = dict(base_batch_size=64, enable=False)
evaluation = dict(protocol='semi-10%', dataset='digits')
