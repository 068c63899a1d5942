# MoCo v3 as mmpretrain has it, through our loader.
_base_ = [
    'mmpretrain::mocov3/mocov3_resnet50_8xb512-amp-coslr-300e_in1k.py',
    '../_base_/peers/mocov3_views.py',
]

train_dataloader = dict(_delete_=True, batch_size=512, **_base_.image_loader)
train_cfg = dict(type='ResumableEpochLoop')
default_hooks = _base_.checks
visualizer = _base_.safe_log
# Order and augmentation follow from the seed, so a resumed run needs it.
randomness = dict(seed=0)

# fp16 on GPUs as mmpretrain's AmpOptimWrapper, which refuses a CPU.
optim_wrapper = dict(
    _delete_=True,
    type='PerParamClipOptimWrapper',
    precision='auto',
    optimizer=_base_.optim_wrapper.optimizer,
    paramwise_cfg=_base_.optim_wrapper.paramwise_cfg,
)
