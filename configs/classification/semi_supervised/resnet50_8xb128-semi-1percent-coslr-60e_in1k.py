# SimCLR's protocol on 1% of ImageNet's labels (Table 2): the whole network
# learns, with crops and flips alone, without warm-up and weight decay.
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../../_base_/datasets/imagenet_bs32_cls.py',
    '../../_base_/classification_runtime.py',
]

# Made by tools/dataset_converters/make_semi_supervised_list.py.
train_dataloader = dict(
    batch_size=128,
    dataset=dict(ann_file='meta/train_1percent.txt'),
)
# 0.05 for each 256 images.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.2, momentum=0.9, nesterov=True, weight_decay=0.0
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
auto_scale_lr = dict(base_batch_size=1024, enable=False)
evaluation = dict(protocol='semi-1%', dataset='in1k')
