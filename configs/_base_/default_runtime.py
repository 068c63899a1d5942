# For DINO and SCFS: what their teacher and prototypes need as well.
_base_ = ['./selfsup_runtime.py']

default_hooks = dict(
    # The method's own: named here, so that a config changes one setting.
    teacher=dict(type='MomentumTeacherHook', momentum=0.996),
    teacher_temp=dict(type='TeacherTemperatureHook', warmup_epochs=50),
    frozen_prototypes=dict(type='FrozenPrototypesHook', epochs=1),
    # Quality without labels: does a crop find the other crop of its image?
    view_recall=dict(type='ViewRecallHook', interval=10),
    # Warns of a run that has collapsed.
    collapse_monitor=dict(type='CollapseMonitorHook'),
)
# Over all GPUs; without them each process has plain batch norm.
sync_bn = 'torch'
