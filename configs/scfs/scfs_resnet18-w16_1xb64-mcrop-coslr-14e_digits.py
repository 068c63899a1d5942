# A narrow ResNet-18 on 64 px of digit scenes, minutes on two CPU cores.
_base_ = [
    '../_base_/datasets/digit-scenes_bs64_mcrop.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='SCFS',
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=16,
        base_channels=16,
        out_indices=(1, 2, 3),
    ),
    neck=dict(
        type='DINONeck',
        hidden_channels=512,
        bottleneck_channels=128,
        num_prototypes=512,
        norm_cfg=dict(type='BN1d'),
    ),
    search_neck=dict(
        type='FeatureSearchNeck',
        mid_channels=64,
        hidden_channels=256,
        out_channels=128,
    ),
    head=dict(type='SCFSHead', center_momentum=0.5),
)

optim_wrapper = dict(
    type='PerParamClipOptimWrapper',
    constructor='DecayGroupConstructor',
    optimizer=dict(type='AdamW', lr=0.003, weight_decay=0.04),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-9,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=1,
        end=14,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=14)

# What a run of minutes needs: a teacher and centers that follow soon, and
# targets that stay sharp. Prototypes that move would find all images alike
# before the network tells them apart, so they stay as they are.
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=1, max_keep_ckpts=1),
    teacher=dict(momentum=0.99),
    teacher_temp=dict(start=0.05, end=0.05, warmup_epochs=0),
    frozen_prototypes=dict(epochs=14),
    collapse_monitor=dict(begin=300, window=100),
)
auto_scale_lr = dict(base_batch_size=64, enable=False)
