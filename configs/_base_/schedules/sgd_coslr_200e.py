# 0.1 for each 256 images of the batch.
optim_wrapper = dict(
    type='PerParamClipOptimWrapper',
    constructor='DecayGroupConstructor',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=3.0),
    precision='auto',
)
param_scheduler = [
    # mmengine's recursion cannot leave 0 itself.
    dict(
        type='LinearLR',
        start_factor=1e-9,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0048,
        by_epoch=True,
        begin=10,
        end=200,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=200)
auto_scale_lr = dict(base_batch_size=256, enable=False)
