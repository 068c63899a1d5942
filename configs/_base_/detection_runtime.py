# For detectors: mmdet's runtime, and ours where mmdet's does not suffice.
_base_ = ['mmdet::_base_/default_runtime.py']

custom_imports = dict(imports=['mmscfs', 'mmscfs.models.shared_heads'])

# Checkpoints that load without executing code, and so resume.
default_hooks = dict(
    checkpoint=dict(type='mmpretrain.SafeCheckpointHook', max_keep_ckpts=3),
    plain_checkpoint=dict(type='mmpretrain.PlainCheckpointHook'),
    # Saves and ends the run on SIGTERM and SIGUSR1.
    preemption=dict(type='mmpretrain.PreemptionHook'),
)
