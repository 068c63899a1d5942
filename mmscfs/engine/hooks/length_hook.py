# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import flatten, parse_config
from mmscfs.settings.lengths import Length, length_of, times_in_hooks

from ..runner_access import param_groups
from .collapse_monitor_hook import CollapseMonitorHook
from .dino_hooks import MomentumTeacherHook, cosine_momentum


@HOOKS.register_module()
class LengthHook(Hook):
    """Name what does not fit the length of the run.

    A warm-up that counts iterations, in a run of so many epochs: only the
    data set tells how many iterations these are. A monitor that never looks
    is named without a warning: such a run is a trial. And a resumed run of
    another length than it was saved with: optimizer and schedules are the
    checkpoint's, what hooks do follows the new length. Our tools add this
    hook to every run.
    """

    # Before mmengine's, which replaces what was saved.
    priority = 'HIGHEST'

    def before_train(self, runner: Runner) -> None:
        """Compare with the length of the run."""
        length = length_of(runner.cfg)
        saved = saved_length(runner, length) if length else None
        if length and saved:
            runner.logger.warning(describe_resumed(runner, length, saved))
        end = f'is beyond the end of the run, at {runner.max_iters} iterations'
        # A resumed run's are the checkpoint's, and were compared at its start.
        for what in () if runner.iter else beyond_the_run(runner):
            runner.logger.warning(f'{what} {end}: set it lower')
        for hook in runner.hooks:
            if isinstance(hook, CollapseMonitorHook):
                first = hook.criteria.first_look
                if first > runner.max_iters:
                    runner.logger.info(
                        'the first look of default_hooks.collapse_monitor, '
                        f'begin + window = {first}, {end}'
                    )


def saved_length(runner: Runner, length: Length) -> int | None:
    """Return a resumed run's length in its checkpoint, if that is another."""
    if not runner.iter:
        return None
    name = length.setting.removeprefix('train_cfg.')
    saved = runner.message_hub.runtime_info.get(name)
    return saved if type(saved) is int and saved != length.value else None


def describe_resumed(runner: Runner, length: Length, saved: int) -> str:
    """Say what follows the new length of a resumed run, and what does not."""
    parts = [f'{length} (saved: {saved})']
    if any(schedule.end < INF for _, schedule in schedules_of(runner)):
        rate = max(group['lr'] for group in param_groups(runner))
        parts.append(
            f"the schedules are the checkpoint's, of {saved} {length.unit}: "
            f'the learning rate, now {rate:.3g}, '
            + (
                'stays at its last value from there on'
                if length.value > saved
                else 'does not reach its end'
            )
        )
    if changes := [*changed_by_hooks(runner, length)]:
        parts.append(f'to the new length changes {", ".join(changes)}')
    parts.append(
        'for schedules of the new length, start a new run from these weights '
        f'in another --work-dir: --cfg-options load_from={runner._load_from}'
    )
    return '; '.join(parts)


def changed_by_hooks(runner: Runner, length: Length) -> Iterator[str]:
    """Yield what hooks make of the length, as saved and now."""
    info = runner.message_hub.runtime_info
    if steps := info.get('max_iters'):
        for hook in runner.hooks:
            if isinstance(hook, MomentumTeacherHook):
                ends = hook.momentum, hook.end_momentum
                before, now = (
                    cosine_momentum(runner.iter, total, *ends)
                    for total in (steps, runner.max_iters)
                )
                yield f"the teacher's momentum {before:.6g} -> {now:.6g}"
    saved = {}
    with suppress(ValueError):  # only the comparison is lost
        saved = dict(flatten(parse_config(info.get('cfg') or '')))
    for path, hook, keys in times_in_hooks(runner.cfg, length):
        for key in keys:
            before = saved.get(f'{path}.{key}', hook[key])
            if before != hook[key]:
                yield f'{path}.{key} {before} -> {hook[key]}'


def schedules_of(runner: Runner) -> Iterator[tuple[int, Any]]:
    """Yield number and schedule, of each optimizer."""
    schedules = runner.param_schedulers or []
    groups = schedules.values() if isinstance(schedules, dict) else [schedules]
    for group in groups:
        yield from enumerate(group)


def beyond_the_run(runner: Runner) -> Iterator[str]:
    """Yield each schedule whose end a run does not reach."""
    for number, schedule in schedules_of(runner):
        if not schedule.by_epoch and runner.max_iters < schedule.end < INF:
            what = 'warm-up' * hasattr(schedule, 'start_factor')
            yield (
                f'the end of the {what or "schedule"}, '
                f'param_scheduler.{number}.end={schedule.end},'
            )
