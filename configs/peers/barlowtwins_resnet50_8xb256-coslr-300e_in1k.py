# Barlow Twins as mmpretrain has it, through our loader.
_base_ = [
    'mmpretrain::barlowtwins/barlowtwins_resnet50_8xb256-coslr-300e_in1k.py',
    '../_base_/peers/byol_views.py',
]

train_dataloader = dict(_delete_=True, batch_size=256, **_base_.image_loader)
train_cfg = dict(type='ResumableEpochLoop')
default_hooks = _base_.checks
visualizer = _base_.safe_log
# Order and augmentation follow from the seed, so a resumed run needs it.
randomness = dict(seed=0)
