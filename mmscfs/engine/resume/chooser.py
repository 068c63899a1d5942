# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Which checkpoint a run resumes from."""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, is_main_process

from mmscfs.checkpoint import (
    check_archive,
    check_pickle,
    file_state,
    flatten,
    note_whole,
    parse_config,
    read_checkpoint,
    read_meta,
)
from mmscfs.settings.lengths import length_of

from ..meeting import on_first_process
from .files import INTERRUPTED, LAST, is_local

# What mmengine resumes from; without an optimizer it is not a run's state.
RUN_PARTS = ('meta', 'state_dict', 'optimizer', 'message_hub')
# Settings of what a checkpoint brings along.
BROUGHT = (
    'optim_wrapper.optimizer.',
    'optim_wrapper.paramwise_cfg.',
    'param_scheduler.',
)
SHOWN = 5  # of them in a message
# What a run saves into its work directory.
SAVED = ('epoch_*.pth', 'iter_*.pth', 'best_*.pth', INTERRUPTED)


class NoRunError(ValueError):
    """A checkpoint is whole, but a run cannot be resumed from it."""


class SavedRun(NamedTuple):
    """What a checkpoint says of its run."""

    iteration: int  #: Iterations that were done.
    epoch: int  #: Epochs that were done, with their last hooks.
    epoch_length: float  #: Iterations of an epoch, infinite if unknown.
    seed: int | None  #: The run's seed.
    cfg: str  #: Its config as text, "" if it has none.


def check_work_dir(cfg: Config) -> None:
    """Refuse to start in a work directory that already holds checkpoints.

    Raises:
        ValueError: It holds some, and the run does not resume.
    """
    if cfg.get('resume') or not is_local(cfg.work_dir):
        return
    folder = Path(cfg.work_dir)
    found = [path for pattern in SAVED for path in folder.glob(pattern)]
    if found:
        newest = max(found, key=lambda path: path.stat().st_mtime).name
        more = f' and {len(found) - 1} more' * (len(found) > 1)
        raise ValueError(
            f'--work-dir {str(cfg.work_dir)!r} has the checkpoints of a run '
            f'({newest}{more}), which this one would replace: continue it '
            'with --resume, name another folder, or add --overwrite'
        )


def choose_checkpoint(cfg: Config) -> SavedRun | None:
    """Set ``cfg.load_from`` to a whole checkpoint for a run that resumes.

    Without a name it is the last one that was saved, and if that is damaged
    or missing the one before, with a warning. Without any the run starts from
    its beginning. A run whose config sets no seed takes the one that was
    drawn for it, which its sampler needs. Settings that the checkpoint's
    optimizer and schedules replace are named in a warning.

    Process 0 chooses and checks. All take its answer, and the file is not
    checked again when it is loaded.

    Returns:
        SavedRun | None: What the checkpoint says of its run, None without
        one, or if it is not on this machine.

    Raises:
        ValueError: The checkpoint that ``load_from`` names is damaged or not
            a run's, all of the work directory are, or a process does not see
            the one that was chosen.
        OSError: A file cannot be read.
    """
    if not cfg.get('resume'):
        return None
    cfg.load_from, saved = on_first_process(choose, cfg)
    if saved is None:
        return None
    check_all_see(cfg.load_from)
    randomness = cfg.get('randomness') or {}
    if saved.seed is not None and randomness.get('seed') is None:
        cfg.randomness = dict(randomness, seed=saved.seed)
    for text in replaced_settings(cfg, saved):
        warn(text)
    return saved


def choose(cfg: Config) -> tuple[str | None, SavedRun | None]:
    """Return the checkpoint to resume from, and what it says of its run."""
    if path := cfg.get('load_from'):
        return path, check_run(Path(path)) if is_local(path) else None
    found = None
    if is_local(cfg.work_dir):
        found = find_checkpoint(Path(cfg.work_dir))
    if found is None:
        return None, None
    return str(found), read_saved_run(found)


def check_all_see(path: str) -> None:
    """Check that all processes see the file that process 0 has checked.

    One whose file has the same size, but was changed at another time, such
    as a copy on the disk of its node, checks its own when it is loaded.

    Raises:
        ValueError: Some do not see it, or a file of another size.
    """
    own = file_state(path)
    states = all_gather_object(own)
    size = states[0] and states[0][0]
    others = [i for i, s in enumerate(states) if not s or s[0] != size]
    if others:
        raise ValueError(
            f'--resume: process 0 has checked {path!r} ({size} bytes), but '
            f'the processes {others} do not see it, or another file: all '
            'nodes need the same --work-dir, on a shared file system'
        )
    if own == states[0]:
        note_whole(path)


def describe_finished(cfg: Config, saved: SavedRun | None) -> str:
    """Say that a run has nothing left to train, '' if it has.

    By its config and what :func:`choose_checkpoint` returned.
    """
    length = length_of(cfg)
    if saved is None or length is None:
        return ''
    done = saved.epoch if length.by_epoch else saved.iteration
    if done < length.value:
        return ''
    return (
        f'This run has finished already: {done} of {length.value} '
        f'{length.unit}.\n'
        f'  checkpoint   {cfg.load_from}\n'
        'To train for longer, start a new run in another work directory with '
        f'the setting load_from={cfg.load_from}. Or raise {length.setting} '
        'and resume: the learning rate then stays at its last value'
    )


def warn(text: str) -> None:
    """Print a warning once, before the run has a log."""
    if is_main_process():
        print(f'warning: {text}', file=sys.stderr)


def replaced_settings(cfg: Config, saved: SavedRun) -> Iterator[str]:
    """Say which settings do not act as they would in a new run.

    mmengine restores optimizer and schedules whole, without a word.
    """
    try:
        before = dict(flatten(parse_config(saved.cfg)))
    except ValueError:
        return  # only the comparison is lost
    # As plain as what is read from text.
    plain = json.loads(json.dumps(cfg.to_dict(), default=str, skipkeys=True))
    now = dict(flatten(plain))
    length = length_of(cfg)
    old = before.get(length.setting) if length else None
    is_scheduled = bool(cfg.get('param_scheduler'))
    if length and is_scheduled and old not in (None, length.value):
        yield (
            f"{length} (saved: {old}): the schedules are the checkpoint's, "
            f'made for {old} {length.unit}, so the learning rate does not '
            'follow; what hooks set, as the momentum of the teacher, does. '
            'For schedules of the new length, start a new run from these '
            'weights in another --work-dir: --cfg-options load_from='
            f'{cfg.load_from}'
        )
    changes = [
        f'{name}={value!r} (saved: {before[name]!r})'
        for name, value in now.items()
        if name.startswith(BROUGHT) and before.get(name, value) != value
    ]
    if changes:
        more = ', ...' * (len(changes) > SHOWN)
        yield (
            "--resume takes the checkpoint's optimizer and schedules; these "
            f'settings change nothing: {", ".join(changes[:SHOWN])}{more}. '
            'To train with them, start a new run in another --work-dir'
        )
    batch, old = (s.get('train_dataloader.batch_size') for s in (now, before))
    if 'train_cfg.max_iters' in now and old not in (None, batch):
        yield (
            f'train_dataloader.batch_size={batch} (saved: {old}): the run '
            'still counts steps, not images. It ends after train_cfg.'
            f'max_iters={now["train_cfg.max_iters"]} steps, at the learning '
            'rate of before'
        )


def find_checkpoint(work_dir: Path) -> Path | None:
    """Return the checkpoint to resume from, None if there is none.

    Raises:
        ValueError: There are some, but none is whole.
        OSError: A file cannot be read.
    """
    last, problem = read_last(work_dir)
    problems = [problem] if problem else []
    if last is not None and is_whole(last, problems):
        return last
    # Those of another folder (out_dir) lie beside the last one.
    folders = dict.fromkeys([work_dir, *([last.parent] if last else [])])
    others = [path for folder in folders for path in folder.glob('*.pth')]
    iterations = {}
    is_damaged = False
    for path in sorted(others):
        try:
            if path != last:
                iterations[path] = read_saved_run(path).iteration
        except NoRunError:
            continue  # weights alone: a best checkpoint, or an export
        except (ValueError, OSError) as error:
            is_damaged = True
            problems.append(str(error))
    for path in sorted(iterations, key=iterations.__getitem__, reverse=True):
        if is_whole(path, problems):
            warn(
                f'{"; ".join(problems)}. Resuming from {str(path)!r}, the '
                'newest whole checkpoint, instead'
            )
            return path
    if not iterations and not is_damaged and not (work_dir / LAST).is_file():
        return None
    raise ValueError(
        f'--resume: no whole checkpoint in {str(work_dir)!r}: '
        f'{"; ".join(problems)}. To start over, use another --work-dir or '
        f'remove {LAST} and the damaged files'
    )


def is_whole(path: Path, problems: list[str]) -> bool:
    """Whether a run can be resumed from a file; else add why not."""
    try:
        check_run(path)
    except (ValueError, OSError) as error:
        problems.append(str(error))
        return False
    return True


def read_last(work_dir: Path) -> tuple[Path | None, str]:
    """Return the checkpoint that was saved last, and what is wrong with it.

    Raises:
        OSError: The note of it cannot be read.
    """
    note = work_dir / LAST
    if not note.is_file():
        return None, (
            f'{str(note)!r} is missing' if any(work_dir.glob('*.pth')) else ''
        )
    text = note.read_text(encoding='utf-8', errors='replace').strip()
    if not text:
        return None, f'{str(note)!r} is empty'
    # The folder may have been moved or copied since the note was written.
    for path in (work_dir / Path(text).name, Path(text)):
        if path.is_file():
            return path, ''
    return None, f'{str(note)!r} names {text!r}, which is missing'


def check_run(path: Path) -> SavedRun:
    """Check all of a run's checkpoint; return what it says of the run.

    Raises:
        ValueError: It is damaged, or does not hold the state of a run.
        OSError: It is missing or cannot be read.
    """
    check_archive(path)
    return read_saved_run(path)


def read_saved_run(path: Path) -> SavedRun:
    """Return what the checkpoint of a run says of it, without its tensors.

    Raises:
        NoRunError: It does not hold the state of a run.
        ValueError: It is damaged.
        OSError: The file cannot be read.
    """
    checkpoint = read_without_tensors(path)
    meta = read_meta(checkpoint)
    parts: dict[str, Any] = {n: checkpoint.get(n) for n in RUN_PARTS}
    hub = parts['message_hub']
    if isinstance(hub, Mapping):
        parts["message_hub['log_scalars']"] = hub.get('log_scalars')
        parts["message_hub['runtime_info']"] = hub.get('runtime_info', {})
    missing = [k for k, part in parts.items() if not isinstance(part, Mapping)]
    missing += [
        f'meta[{name!r}]'
        for name in ('iter', 'epoch')
        if not is_count(meta.get(name))
    ]
    if missing:
        raise NoRunError(
            f'checkpoint {str(path)!r} does not hold the state of a run (no '
            f'{", ".join(missing)}): a run cannot be resumed from it. To '
            'start from its weights use --pretrained or load_from'
        )
    seed, cfg = meta.get('seed'), meta.get('cfg')
    info = parts["message_hub['runtime_info']"]
    lengths = [info.get(name) for name in ('max_iters', 'max_epochs')]
    is_known = all(is_count(length) and length for length in lengths)
    return SavedRun(
        meta['iter'],
        meta['epoch'],
        lengths[0] / lengths[1] if is_known else math.inf,
        seed if is_count(seed) else None,
        cfg if isinstance(cfg, str) else '',
    )


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0."""
    return type(value) is int and value >= 0


def read_without_tensors(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint's plain values; its tensors stay on the disk."""
    try:
        check_pickle(path)
        checkpoint = torch.load(
            path, map_location='cpu', mmap=True, weights_only=True
        )
    except Exception:
        # Whatever it is (torch's format from before 1.6 is not mapped
        # either), reading all of it works or says it better.
        return read_checkpoint(path)
    return checkpoint if isinstance(checkpoint, Mapping) else {}
