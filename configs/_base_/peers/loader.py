# What configs/peers put in place of mmpretrain's loader and log, and add to
# its hooks.
custom_imports = dict(imports=['mmscfs'])

checks = dict(
    # mmengine's would wait for the GPU in every step.
    runtime_info=dict(type='DeferredRuntimeInfoHook'),
    preflight=dict(type='PreflightHook'),
    non_finite_loss=dict(type='NonFiniteLossHook'),
    checkpoint=dict(type='SafeCheckpointHook'),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    preemption=dict(type='PreemptionHook'),
    pictures=dict(type='PicturesHook', interval=10),
)
safe_log = dict(vis_backends=[dict(type='SafeLocalVisBackend')])
# As in datasets/imagenet_bs32_mcrop.py; each config has its batch size.
image_loader = dict(
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='KeyedSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFiles',
        data_root='data/imagenet',
        data_prefix='train',
        on_error='raise',
    ),
)
