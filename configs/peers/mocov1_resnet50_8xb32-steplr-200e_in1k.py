# MoCo v1, which mmpretrain has no config of: v2 with one linear layer, another
# temperature, steps of the learning rate, and weaker augmentation.
_base_ = [
    'mmpretrain::mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k.py',
    '../_base_/peers/mocov1_views.py',
]

model = dict(
    neck=dict(
        _delete_=True,
        type='LinearNeck',
        in_channels=2048,
        out_channels=128,
        gap_dim=2,
        norm_cfg=None,
    ),
    head=dict(temperature=0.07),
)
param_scheduler = [
    dict(type='MultiStepLR', milestones=[120, 160], gamma=0.1, by_epoch=True)
]

train_dataloader = dict(_delete_=True, batch_size=32, **_base_.image_loader)
train_cfg = dict(type='ResumableEpochLoop')
default_hooks = _base_.checks
visualizer = _base_.safe_log
# Order and augmentation follow from the seed, so a resumed run needs it.
randomness = dict(seed=0)
