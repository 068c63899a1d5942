# For the small detectors: minutes on a CPU core.
train_cfg = dict(
    type='mmpretrain.ResumableIterLoop', max_iters=500, val_interval=500
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.05),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=40),
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        by_epoch=False,
        begin=40,
        end=500,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
