# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Schedules that follow the length of a run."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from mmengine.config import Config

from .variables import ConfigFile

SCHEDULES = 'param_scheduler'
HOOKS = ('default_hooks', 'custom_hooks')
MIN_WARMUP = 0.5  # epochs
# In the names of types that warm up, if they begin with the run.
WARMUPS = ('Linear', 'Constant', 'Warmup')
# Settings of schedules that are times, or lists of them.
SPANS = ('T_max', 'total_steps', 'step_size')
LISTS = ('milestones', 'periods')
TIMES = ('begin', 'end', *SPANS, *LISTS)


class Length(NamedTuple):
    """How long a run is."""

    setting: str
    value: int

    @property
    def by_epoch(self) -> bool:
        """Whether it is in epochs; else it is in iterations."""
        return self.setting.endswith('epochs')

    @property
    def unit(self) -> str:
        """Return "epochs" or "iterations"."""
        return 'epochs' if self.by_epoch else 'iterations'

    def __str__(self) -> str:
        return f'{self.setting}={self.value}'


# Which has no schedule.
ONE_STEP = Length('train_cfg.max_iters', 1)


def length_of(cfg: Mapping) -> Length | None:
    """Return the length of a config's training."""
    train = cfg.get('train_cfg') or {}
    for name in ('max_epochs', 'max_iters'):
        value = train.get(name)
        if type(value) is int and value > 0:
            return Length(f'train_cfg.{name}', value)
    return None


class Fit(NamedTuple):
    """From one length of a run, in epochs or iterations, to another."""

    old: int
    new: int

    def move(self, at: Any, keeps: bool = False, whole: bool = True) -> Any:
        """Return where a time comes to lie; what is none of the run stays.

        In ``whole`` epochs or iterations; no longer run prolongs what
        ``keeps`` its length, as a warm-up does.
        """
        if type(at) not in (int, float) or not 0 < at <= self.old:
            return at
        if at == self.old:
            return self.new
        if keeps and self.new >= self.old:
            return at
        moved = at * Fraction(self.new, self.old)
        if whole:
            return max(round(moved), 1)
        found = max(float(f'{float(moved):.3g}'), MIN_WARMUP)
        return int(found) if found.is_integer() else found

    def spread(self, milestones: list) -> list:
        """Return where milestones come to lie: each in another epoch.

        The first ones are left out if a short run has no room for all.
        """
        found: list = []
        for at in reversed(milestones):
            last = found[0] - 1 if found else self.new - (at < self.old)
            found.insert(0, min(self.move(at), last))
        return [at for at in found if at > 0]

    def setting(self, key: str, value: Any) -> Any:
        """Return a schedule's setting, another one if it is in TIMES."""
        if key == 'milestones':
            return self.spread(value)
        if key == 'periods':
            return [self.move(period) for period in value]
        return self.move(value) if key in TIMES else value


def adapt_lengths(
    cfg: Config, file: ConfigFile, options: Mapping[str, Any]
) -> list[str]:
    """Fit what was made for another length of the run to its length.

    That is what a config file has set for the length that it had then, and
    nobody has set since, neither an heir of the file nor an option. Only what
    counts in the run's unit, epochs or iterations:

    - what ended with the run ends with it again;
    - a warm-up keeps its length, but takes no larger share of a shorter run;
      so do ``warmup_epochs``, ``epochs`` and the like of hooks;
    - what happens at a time between, as milestones, or ``switch_epoch`` of a
      hook, happens at the same share of the run.

    Changes ``cfg``, which has the options of its file, in place, and returns
    a line for each schedule or hook that was changed.
    """
    new = length_of(cfg)
    if new is None or new == ONE_STEP:
        return []
    lines: list[str] = []
    fit = fit_for(file, SCHEDULES, new)
    if fit and SCHEDULES not in options:
        schedules = dict(schedules_of(cfg, new))
        for path, times in fit_schedules(schedules, fit, options):
            lines += change(path, schedules[path], times, new, fit)
    for path, hook, keys in times_in_hooks(cfg, new):
        for key in keys:
            name = f'{path}.{key}'
            fit = fit_for(file, name, new)
            if fit and not {path, name} & options.keys():
                is_moment = {'epoch', 'iter'} & {*key.split('_')}
                moved = fit.move(hook[key], keeps=not is_moment)
                lines += change(path, hook, {key: moved}, new, fit)
    return lines


def change(
    path: str, part: Any, times: Mapping, new: Length, fit: Fit
) -> Iterator[str]:
    """Set the times of a schedule or hook; yield a line if any is new."""
    before = {key: part[key] for key in times}
    part.update(times)
    words = [
        f'{key} {before[key]} -> {time}'
        for key, time in times.items()
        if before[key] != time
    ]
    if words:
        yield f'{path}: {", ".join(words)}, for {new} instead of {fit.old}'


def fit_for(file: ConfigFile, path: str, new: Length) -> Fit | None:
    """Return how to fit a setting, None if it is for the length already."""
    old = made_for(file, path)
    if old is None or old.by_epoch != new.by_epoch or old == new:
        return None
    return Fit(old.value, new.value)


def made_for(file: ConfigFile, path: str) -> Length | None:
    """Return the length of the run in the file that set a value.

    The files of an installed package count as one: some of its recipes have
    another length than the schedule that they inherit, on purpose.
    """
    bases = [] if file.is_installed else file.bases
    for base in bases:
        # A package's own files get its scope where they are inherited.
        value, ours = (part_of(f.config, path) for f in (base, file))
        if without_scope(value) == without_scope(ours):
            lengths = [made_for(base, path)]
            lengths += [length_of(other.config) for other in bases]
            return next(filter(None, lengths), length_of(file.config))
    return length_of(file.config)


def without_scope(part: Any) -> Any:
    """Return a part of a config without ``_scope_``."""
    if isinstance(part, Mapping):
        return {k: without_scope(v) for k, v in part.items() if k != '_scope_'}
    if isinstance(part, (list, tuple)):
        return [without_scope(item) for item in part]
    return part


def part_of(part: Any, path: str) -> Any:
    """Return what lies at a dotted path of a config, None if nothing does."""
    for name in path.split('.'):
        if isinstance(part, (list, tuple)):
            part = dict(enumerate(part)).get(int(name))
        else:
            part = part.get(name) if part else None
    return part


def schedules_of(cfg: Mapping, length: Length) -> Iterator[tuple[str, Any]]:
    """Yield path and config of each schedule that counts as a run does."""
    # One, several, or one or several for each of several optimizers.
    waiting: list[tuple[str, Any]] = [(SCHEDULES, cfg.get(SCHEDULES))]
    while waiting:
        path, part = waiting.pop(0)
        if isinstance(part, (list, tuple)):
            waiting += [(f'{path}.{i}', item) for i, item in enumerate(part)]
        elif not isinstance(part, Mapping):
            continue
        elif 'type' not in part:
            waiting += [(f'{path}.{key}', item) for key, item in part.items()]
        elif part.get('by_epoch', True) == length.by_epoch:
            yield path, part


def fit_schedules(
    schedules: Mapping[str, Mapping], fit: Fit, options: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and times of each schedule."""
    parts = [*schedules.values()]
    ends = [part.get('end') for part in parts]
    if fit.new in ends and fit.old not in ends:
        return  # they are for this length already
    warmups = [part.get('end') for part in parts if is_warmup(part)]
    # What an option sets stays, and what meets it.
    kept = [
        part.get(key)
        for path, part in schedules.items()
        if {f'{path}.begin', f'{path}.end'} & options.keys()
        for key in ('begin', 'end')
    ]
    whole = not all(part.get('convert_to_iter_based') for part in parts)
    for path, part in schedules.items():
        times = {
            key: fit.move(value, value in warmups, whole)
            for key, value in part.items()
            if key in ('begin', 'end')
            and f'{path}.{key}' not in options
            and (value == fit.old or value not in kept)
        }
        span, now = (
            (p.get('end') or end) - (p.get('begin') or 0)
            for p, end in ((part, fit.old), ({**part, **times}, fit.new))
        )
        for key, value in part.items():
            if key in (*SPANS, *LISTS) and f'{path}.{key}' not in options:
                ends_too = key in SPANS and value == span
                times[key] = now if ends_too else fit.setting(key, value)
        yield path, times


def is_warmup(schedule: Mapping) -> bool:
    """Whether a schedule warms up."""
    kind = str(schedule.get('type'))
    return not schedule.get('begin') and any(name in kind for name in WARMUPS)


def times_in_hooks(
    cfg: Config, length: Length
) -> Iterator[tuple[str, Any, list[str]]]:
    """Yield path and config of each hook, and its settings that are times."""
    unit = 'epoch' if length.by_epoch else 'iter'
    for section in HOOKS:
        hooks = cfg.get(section) or {}
        if not isinstance(hooks, Mapping):
            hooks = dict(enumerate(hooks))
        for name, hook in hooks.items():
            if isinstance(hook, Mapping):
                keys = [
                    key
                    for key, value in hook.items()
                    if type(value) is int
                    and {unit, f'{unit}s'} & set(str(key).split('_'))
                    and 'interval' not in str(key)
                ]
                yield f'{section}.{name}', hook, keys


def count_iterations(cfg: Config, iterations: int) -> None:
    """Let a training by epochs take a number of iterations, in place.

    Schedules by epoch keep their shares of the run. The log and checkpoints
    count iterations, and the only validation is at the end.

    Raises:
        ValueError: Something that counts epochs has no counterpart.
    """
    old = length_of(cfg)
    if old is None or not old.by_epoch:
        raise ValueError(f'the training counts no epochs: {cfg.train_cfg}')
    for path, hook, keys in times_in_hooks(cfg, old):
        for key in keys:
            raise ValueError(
                f'{path}.{key}={hook[key]} counts epochs: leave that hook '
                'out, or write a config that counts iterations'
            )
    fit = Fit(old.value, iterations)
    for path, item in schedules_of(cfg, old):
        if 'gamma' in item and not {'milestones', 'step_size'} & item.keys():
            raise ValueError(
                f'{path} multiplies the rate by gamma={item["gamma"]} in '
                'each epoch: write a config that counts iterations'
            )
        item.pop('convert_to_iter_based', None)
        item.update({k: fit.setting(k, value) for k, value in item.items()})
        item['by_epoch'] = False
    cfg.train_cfg = dict(
        type='IterBasedTrainLoop',
        max_iters=iterations,
        val_interval=iterations,
    )
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    hook = part_of(cfg, 'default_hooks.checkpoint') or {}
    saves = dict(
        type=hook.get('type', 'CheckpointHook'),
        by_epoch=False,
        interval=max(iterations // 4, 1),
        max_keep_ckpts=1,
    )
    cfg.merge_from_dict(
        {'default_hooks.checkpoint': saves, 'log_processor.by_epoch': False}
    )


def check_lengths(cfg: Config) -> None:
    """Check that a training ends with its schedules.

    Raises:
        ValueError: A schedule ends, or a hook acts after the end of the run,
            or the last schedule ends before it. Names both settings.
    """
    run = length_of(cfg)
    if run is None or run == ONE_STEP:
        return
    times: list[tuple[str, Any, bool]] = []
    ends: dict[float, str] = {}
    for path, part in schedules_of(cfg, run):
        begin, end = part.get('begin') or 0, part.get('end') or run.value
        times.append((f'{path}.end', end, end > run.value))
        times.append((f'{path}.begin', begin, begin >= run.value))
        if not is_warmup(part):
            ends[end] = f'{path}.end={end}'
    for path, hook, keys in times_in_hooks(cfg, run):
        times += [
            (f'{path}.{key}', hook[key], hook[key] > run.value) for key in keys
        ]
    for name, value, is_beyond in times:
        if is_beyond:
            raise ValueError(
                f'{name}={value} is beyond the end of the run, {run}: set one '
                'of them'
            )
    last = max(ends, default=run.value)
    if last < run.value:
        unit = '' if run.by_epoch else ', by_epoch=False'
        raise ValueError(
            f'{ends[last]} is before the end of the run, {run}: set one of '
            "them, or for a constant rate from there add dict(type='ConstantLR"
            f"', factor=1, begin={last}, end={run.value}{unit}) to {SCHEDULES}"
        )
