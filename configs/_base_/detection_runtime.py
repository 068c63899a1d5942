# For detectors: mmdet's runtime, and ours where mmdet's does not suffice.
_base_ = ['mmdet::_base_/default_runtime.py']

custom_imports = dict(imports=['mmscfs', 'mmscfs.models.shared_heads'])

# Checkpoints that load without executing code, and so resume.
default_hooks = dict(
    checkpoint=dict(type='mmpretrain.SafeCheckpointHook', max_keep_ckpts=3),
    plain_checkpoint=dict(type='mmpretrain.PlainCheckpointHook'),
    # Stops at the first loss that is not finite, and names the images.
    non_finite_loss=dict(type='mmpretrain.NonFiniteLossHook'),
    # Saves and ends the run on SIGTERM and SIGUSR1.
    preemption=dict(type='mmpretrain.PreemptionHook'),
)
# In seconds, as in selfsup_runtime.py: process 0 alone evaluates.
env_cfg = dict(dist_cfg=dict(timeout=3600))
# A full disk costs lines of the log, and not the run.
vis_backends = [dict(type='mmpretrain.SafeLocalVisBackend')]
visualizer = dict(vis_backends=vis_backends)
