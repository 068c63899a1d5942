# For any self-supervised algorithm: hooks, checks and seeds.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmscfs'])

default_hooks = dict(
    # mmengine's would wait for the GPU in every step.
    runtime_info=dict(type='DeferredRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='SafeCheckpointHook', interval=10, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Checks: before the run, and of every loss.
    preflight=dict(type='PreflightHook'),
    non_finite_loss=dict(type='NonFiniteLossHook'),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    # Lists files that were skipped, and ends a run with too many.
    unreadable_files=dict(type='UnreadableFilesHook'),
    # Saves and ends the run on SIGTERM and SIGUSR1.
    preemption=dict(type='PreemptionHook'),
    # Crops and search maps, for the eye.
    pictures=dict(type='PicturesHook', interval=10),
)

env_cfg = dict(
    cudnn_benchmark=True,
    # In the steps of a training in fp32 on a GPU.
    tf32=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # A process waits an hour for the others: for one that writes a large
    # checkpoint, or evaluates. NCCL's ten minutes are too short for that.
    dist_cfg=dict(backend='nccl', timeout=3600),
)

# For TensorBoard as well, in a config that inherits: visualizer=dict(
# vis_backends=[*_base_.vis_backends, dict(type='TensorboardVisBackend')]).
vis_backends = [dict(type='SafeLocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False
# Order and augmentation follow from the seed, so a resumed run needs it.
randomness = dict(seed=0)
