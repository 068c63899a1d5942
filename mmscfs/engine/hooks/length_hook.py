# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from .collapse_monitor_hook import CollapseMonitorHook


@HOOKS.register_module()
class LengthHook(Hook):
    """Name what a run is too short for.

    A warm-up that counts iterations, in a run of so many epochs: only the
    data set tells how many iterations these are. A monitor that never looks
    is named without a warning: such a run is a trial. Our tools add this hook
    to every run.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare with the length of the run."""
        end = f'is beyond the end of the run, at {runner.max_iters} iterations'
        schedules = runner.param_schedulers or []
        # A resumed run's are the checkpoint's, and were compared at its start.
        if isinstance(schedules, dict) or runner.iter:
            schedules = []
        for number, schedule in enumerate(schedules):
            if not schedule.by_epoch and runner.max_iters < schedule.end < INF:
                is_warmup = hasattr(schedule, 'start_factor')
                runner.logger.warning(
                    f'the end of the {"warm-up" if is_warmup else "schedule"}'
                    f', param_scheduler.{number}.end={schedule.end}, {end}: '
                    'set it lower'
                )
        for hook in runner.hooks:
            if isinstance(hook, CollapseMonitorHook):
                first = hook.criteria.first_look
                if first > runner.max_iters:
                    runner.logger.info(
                        'the first look of default_hooks.collapse_monitor, '
                        f'begin + window = {first}, {end}'
                    )
