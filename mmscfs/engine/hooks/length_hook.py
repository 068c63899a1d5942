# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterator

from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from .collapse_monitor_hook import CollapseMonitorHook


@HOOKS.register_module()
class LengthHook(Hook):
    """Name what lies beyond the end of the run.

    Warns of a schedule that counts iterations, in a run of so many epochs:
    only the data set tells how many iterations these are. A monitor that
    never looks is named without a warning: such a run is a trial. Our tools
    add this hook to every run.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare with the length of the run."""
        end = f'is beyond the end of the run, at {runner.max_iters} iterations'
        for what in beyond_the_run(runner):
            runner.logger.warning(f'{what} {end}: set it lower')
        for hook in runner.hooks:
            if isinstance(hook, CollapseMonitorHook):
                first = hook.criteria.first_look
                if first > runner.max_iters:
                    runner.logger.info(
                        'the first look of default_hooks.collapse_monitor, '
                        f'begin + window = {first}, {end}'
                    )


def beyond_the_run(runner: Runner) -> Iterator[str]:
    """Yield each schedule whose end a run does not reach."""
    schedules = runner.param_schedulers
    groups = schedules.values() if isinstance(schedules, dict) else [schedules]
    for group in groups:
        for number, schedule in enumerate(group):
            if not schedule.by_epoch and runner.max_iters < schedule.end < INF:
                what = 'warm-up' * hasattr(schedule, 'start_factor')
                yield (
                    f'the end of the {what or "schedule"}, '
                    f'param_scheduler.{number}.end={schedule.end},'
                )
