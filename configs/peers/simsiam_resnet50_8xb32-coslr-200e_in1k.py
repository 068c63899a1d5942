# SimSiam as mmpretrain has it, through our loader.
_base_ = [
    'mmpretrain::simsiam/simsiam_resnet50_8xb32-coslr-200e_in1k.py',
    '../_base_/peers/mocov2_views.py',
]

train_dataloader = dict(_delete_=True, batch_size=32, **_base_.image_loader)
train_cfg = dict(type='ResumableEpochLoop')
default_hooks = _base_.checks
visualizer = _base_.safe_log
# Order and augmentation follow from the seed, so a resumed run needs it.
randomness = dict(seed=0)
# The predictor's rate is fixed, at custom_hooks[0].lr: set it as well.
auto_scale_lr = dict(base_batch_size=256)
