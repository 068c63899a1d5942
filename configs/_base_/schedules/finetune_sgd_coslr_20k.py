# SimCLR's fine-tuning. Learning rate and weight decay are one point of its
# grid (the decay 1e-5 over the rate); tools/grid.py searches it.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.001
    ),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=0, end=20000
    ),
]
train_cfg = dict(type='ResumableIterLoop', max_iters=20000, val_interval=2000)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=256, enable=False)
