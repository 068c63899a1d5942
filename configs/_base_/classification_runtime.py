# For classifiers: the runtime of pre-training, without its method's hooks.
_base_ = ['./default_runtime.py']

# Timer, schedules and samplers have their hooks from mmengine.
default_hooks = dict(
    _delete_=True,
    # mmengine's would wait for the GPU in every step.
    runtime_info=dict(type='DeferredRuntimeInfoHook'),
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='SafeCheckpointHook', interval=10, max_keep_ckpts=1),
    non_finite_loss=dict(type='NonFiniteLossHook'),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    # Saves and ends the run on SIGTERM and SIGUSR1.
    preemption=dict(type='PreemptionHook'),
    # The scores, as json beside the checkpoint of --pretrained.
    result=dict(type='ResultFileHook'),
)
