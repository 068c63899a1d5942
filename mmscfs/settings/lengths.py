# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Schedules that follow the length of a run."""

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

from mmengine.config import Config

from .variables import ConfigFile

# Arguments of schedules that are times, beside begin and end.
TIMES = ('milestones', 'step_size', 'periods')
HOOKS = ('default_hooks', 'custom_hooks')
MIN_WARMUP = 0.5  # epochs


class Length(NamedTuple):
    """How long a run is."""

    setting: str
    value: int

    @property
    def by_epoch(self) -> bool:
        """Whether it is in epochs; else it is in iterations."""
        return self.setting.endswith('epochs')

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

    Args:
        cfg (Config): With the options; changed in place.
        file (ConfigFile): Its file.
        options (Mapping[str, Any]): By dotted path.

    Returns:
        list[str]: A line for each schedule or hook that was changed.
    """
    new = length_of(cfg)
    if new is None or new == ONE_STEP:
        return []
    lines = []
    if new != length_of(file.config) or may_differ(file):
        if 'param_scheduler' not in options:
            lines += adapt_schedules(cfg, file, new, options)
        lines += adapt_hooks(cfg, file, new, options)
    return lines


def may_differ(file: ConfigFile) -> bool:
    """Whether several files set the run's length, or may have."""
    return sum('train_cfg' in part.sets for part in file.files()) > 1


def made_for(
    file: ConfigFile, get: Callable[[Config], Any], value: Any
) -> Length | None:
    """Return the length of the run in the file that set a value.

    The files of an installed package count as one: some of its recipes have
    another length than the schedule that they inherit, on purpose.
    """
    bases = [] if file.is_installed else file.bases
    for base in bases:
        # A package's own files get its scope where they are inherited.
        if without_scope(get(base.config)) == without_scope(value):
            lengths = [made_for(base, get, value)]
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


def schedules_of(cfg: Mapping) -> Iterator[tuple[str, Any]]:
    """Yield path and config of each schedule of a config."""
    found = cfg.get('param_scheduler') or ()
    if isinstance(found, Mapping) and 'type' in found:
        yield 'param_scheduler', found
        return
    # Of several optimizers, by their names.
    groups = found.items() if isinstance(found, Mapping) else [('', found)]
    for name, group in groups:
        path = f'param_scheduler.{name}' if name else 'param_scheduler'
        if isinstance(group, Mapping):
            yield path, group
        else:
            yield from ((f'{path}.{i}', item) for i, item in enumerate(group))


def is_number(value: Any) -> bool:
    """Whether a setting is a number, and not a switch."""
    return type(value) in (int, float)


def adapt_schedules(
    cfg: Config, file: ConfigFile, new: Length, options: Mapping[str, Any]
) -> list[str]:
    """Fit ``param_scheduler``; return a line for each that was changed."""
    get = partial(part_of, path='param_scheduler')
    old = made_for(file, get, get(file.config))
    if old is None or old.by_epoch != new.by_epoch or old == new:
        return []
    items: list[tuple[str, Any]] = [
        (path, item)
        for path, item in schedules_of(cfg)
        if isinstance(item, Mapping)
        and item.get('by_epoch', True) == new.by_epoch
    ]
    ends = [item.get('end') for _, item in items]
    if new.value in ends and old.value not in ends:
        return []  # it is for this length already
    moved = move_bounds(items, old.value, new.value, options)
    share = Fraction(new.value, old.value)
    lines = []
    for path, item in items:
        before = dict(item)
        span = (item.get('end') or old.value) - (item.get('begin') or 0)
        for key in ('begin', 'end'):
            if item.get(key) in moved and f'{path}.{key}' not in options:
                item[key] = moved[item[key]]
        for key in ('T_max', 'total_steps', *TIMES):
            if key in item and f'{path}.{key}' not in options:
                now = (item.get('end') or new.value) - (item.get('begin') or 0)
                whole = {old.value: new.value, span: now}
                item[key] = scale(item[key], share, whole)
        if dict(item) != before:
            lines.append(describe(path, before, item, new, old))
    return lines


def move_bounds(
    items: list[tuple[str, Any]],
    old: int,
    new: int,
    options: Mapping[str, Any],
) -> dict[float, float]:
    """Return where each begin and end of schedules comes to lie."""
    moved: dict[float, float] = {}
    for _, item in items:
        for key in ('begin', 'end'):
            at = item.get(key)
            if not is_number(at) or not 0 < at <= old:
                continue
            touching = [
                (p, i, k)
                for p, i in items
                for k in ('begin', 'end')
                if i.get(k) == at
            ]
            if at == old:
                moved[at] = new
            elif any(
                f'{p}.{k}' in options
                for p, _, _ in touching
                for k in ('begin', 'end')
            ):
                moved[at] = at
            else:
                is_warmup = any(
                    k == 'end' and not i.get('begin') and is_rising(i)
                    for _, i, k in touching
                )
                is_whole = not all(
                    i.get('convert_to_iter_based') for _, i, _ in touching
                )
                moved[at] = move(at, Fraction(new, old), is_warmup, is_whole)
    return moved


def is_rising(schedule: Mapping) -> bool:
    """Whether a schedule is of a kind that warms up."""
    return 'start_factor' in schedule or 'Linear' in str(schedule.get('type'))


def move(at: float, share: Fraction, is_span: bool, is_whole: bool) -> float:
    """Return where a time of a run comes to lie in one of another length."""
    if is_span and share >= 1:
        return at
    if is_whole:
        return max(round(at * share), 1)
    found = max(float(f'{float(at * share):.3g}'), MIN_WARMUP)
    return int(found) if found.is_integer() else found


def scale(value: Any, share: Fraction, ends: Mapping[float, float]) -> Any:
    """Scale the times of a schedule, rounded down but to 1."""
    if isinstance(value, (list, tuple)):
        return type(value)(scale(v, share, ends) for v in value)
    if not is_number(value):
        return value
    return ends.get(value, max(int(value * share), 1))


def describe(
    path: str, before: Mapping, after: Mapping, new: Length, old: Length
) -> str:
    """Return the line for the log."""
    changes = ', '.join(
        f'{key} {before[key]} -> {after[key]}'
        for key in before
        if before[key] != after[key]
    )
    return f'{path}: {changes}, for {new} instead of {old.value}'


def adapt_hooks(
    cfg: Config, file: ConfigFile, new: Length, options: Mapping[str, Any]
) -> list[str]:
    """Fit the times in hooks; return a line for each that was changed."""
    lines = []
    for path, hook, keys in times_in_hooks(cfg, new):
        before = dict(hook)
        for key in keys:
            get = partial(part_of, path=f'{path}.{key}')
            old = made_for(file, get, get(file.config))
            if (
                old is None
                or old.by_epoch != new.by_epoch
                or old == new
                or {path, f'{path}.{key}'} & options.keys()
            ):
                continue
            if hook[key] == old.value:
                hook[key] = new.value
            elif 0 < hook[key] < old.value:
                is_span = not {'epoch', 'iter'} & {*key.split('_')}
                share = Fraction(new.value, old.value)
                hook[key] = move(hook[key], share, is_span, True)
        if dict(hook) != before and old:
            lines.append(describe(path, before, hook, new, old))
    return lines


def part_of(part: Any, path: str) -> Any:
    """Return what lies at a dotted path of a config, None if nothing does."""
    for name in path.split('.'):
        if isinstance(part, (list, tuple)):
            part = dict(enumerate(part)).get(int(name))
        else:
            part = part.get(name) if part else None
    return part


def times_in_hooks(
    cfg: Config, new: Length
) -> Iterator[tuple[str, Any, list[str]]]:
    """Yield path and config of each hook, and its settings that are times."""
    unit = 'epoch' if new.by_epoch else 'iter'
    for section in HOOKS:
        hooks = cfg.get(section) or {}
        pairs = (
            hooks.items() if isinstance(hooks, Mapping) else enumerate(hooks)
        )
        for name, hook in pairs:
            if not isinstance(hook, Mapping):
                continue
            keys = [
                key
                for key, value in hook.items()
                if type(value) is int
                and {unit, f'{unit}s'} & set(str(key).split('_'))
                and 'interval' not in str(key)
            ]
            if keys:
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
        raise ValueError(
            f'{path}.{keys[0]}={hook[keys[0]]} counts epochs: leave that hook '
            'out, or write a config that counts iterations'
        )
    share = Fraction(iterations, old.value)
    for path, item in schedules_of(cfg):
        if not item.get('by_epoch', True):
            continue
        if 'gamma' in item and not any(key in item for key in TIMES):
            raise ValueError(
                f'{path} multiplies the rate by gamma={item["gamma"]} in '
                'each epoch: write a config that counts iterations'
            )
        item.pop('convert_to_iter_based', None)
        item['by_epoch'] = False
        for key in ('begin', 'end', 'T_max', 'total_steps', *TIMES):
            if item.get(key):
                item[key] = scale(item[key], share, {old.value: iterations})
    cfg.train_cfg = dict(
        type='IterBasedTrainLoop',
        max_iters=iterations,
        val_interval=iterations,
    )
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    hook = part_of(cfg, 'default_hooks.checkpoint') or {}
    cfg.merge_from_dict(
        {
            'default_hooks.checkpoint.type': hook.get(
                'type', 'CheckpointHook'
            ),
            'default_hooks.checkpoint.by_epoch': False,
            'default_hooks.checkpoint.interval': max(iterations // 4, 1),
            'default_hooks.checkpoint.max_keep_ckpts': 1,
            'log_processor.by_epoch': False,
        }
    )


def check_lengths(cfg: Config) -> None:
    """Check that a training reaches all of its schedules.

    Args:
        cfg (Config): The whole config.

    Raises:
        ValueError: A schedule begins, a warm-up ends, or a hook acts after
            the end of the run. Names both settings.
    """
    new = length_of(cfg)
    if new is None or new == ONE_STEP:
        return
    for path, item in schedules_of(cfg):
        if (
            not isinstance(item, Mapping)
            or item.get('by_epoch', True) != new.by_epoch
        ):
            continue
        begin, end = item.get('begin') or 0, item.get('end')
        if begin >= new.value:
            raise ValueError(
                f'{path}.begin={begin} is not before the end of the run, '
                f'{new}: set one of them'
            )
        if 'start_factor' in item and end is not None and end > new.value:
            raise ValueError(
                f'{path}.end={end}, the end of the warm-up, is after the end '
                f'of the run, {new}: set one of them'
            )
    for path, hook, keys in times_in_hooks(cfg, new):
        for key in keys:
            if hook[key] > new.value:
                raise ValueError(
                    f'{path}.{key}={hook[key]} is beyond the end of the run, '
                    f'{new}: set one of them'
                )
