# SimCLR as mmpretrain has it, through our loader.
_base_ = [
    'mmpretrain::simclr/simclr_resnet50_8xb32-coslr-200e_in1k.py',
    '../_base_/peers/simclr_views.py',
]

train_dataloader = dict(_delete_=True, batch_size=32, **_base_.image_loader)
train_cfg = dict(type='ResumableEpochLoop')
default_hooks = _base_.checks
visualizer = _base_.safe_log
# Order and augmentation follow from the seed, so a resumed run needs it.
randomness = dict(seed=0)
