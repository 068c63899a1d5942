# DINO's recipe for vision transformers: 0.0005 for each 256 images.
optim_wrapper = dict(
    type='PerParamClipOptimWrapper',
    constructor='DecayGroupConstructor',
    optimizer=dict(type='AdamW', lr=0.0005, weight_decay=0.04),
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
        eta_min=1e-6,
        by_epoch=True,
        begin=10,
        end=200,
        convert_to_iter_based=True,
    ),
    # 0.04 -> 0.4; as a ratio, so that what is not decayed stays at 0.
    dict(
        type='CosineAnnealingParamScheduler',
        param_name='weight_decay',
        eta_min_ratio=10.0,
        by_epoch=True,
        begin=0,
        end=200,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=200)
auto_scale_lr = dict(base_batch_size=256, enable=False)
