# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from mmscfs.checkpoint import (
    NoRunError,
    SavedRun,
    check_archive,
    flatten,
    parse_config,
    read_saved_run,
)

from .hooks.preemption_hook import FILENAME
from .saving import LAST, is_local

# Settings of what a checkpoint brings along.
BROUGHT = (
    'optim_wrapper.optimizer.',
    'optim_wrapper.paramwise_cfg.',
    'param_scheduler.',
)
SHOWN = 5  # of them in a message
# What a run saves into its work directory.
SAVED = ('epoch_*.pth', 'iter_*.pth', 'best_*.pth', FILENAME)


def check_work_dir(cfg: Config) -> None:
    """Check that a run which begins anew replaces no other one's checkpoints.

    Raises:
        ValueError: It would.
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
            f'({newest}{more}), which this one would replace: go on with it '
            'by --resume, name another folder, or add --overwrite'
        )


def choose_checkpoint(cfg: Config) -> None:
    """Set ``cfg.load_from`` to a whole checkpoint for a run that resumes.

    Without a name it is the last one that was saved, and if that is damaged
    or missing the one before, with a warning. If there is none at all, the
    run starts from its beginning. A run without a seed of its own takes the
    one that was drawn for it, by which its sampler goes on. Settings that the
    checkpoint's optimiser and schedules replace are warned of.

    Raises:
        ValueError: The checkpoint that ``load_from`` names is damaged or no
            run's, or all of the work directory are.
        OSError: One cannot be read.
    """
    if not cfg.get('resume'):
        return
    saved = None
    if cfg.get('load_from'):
        if is_local(cfg.load_from):
            saved = check_run(Path(cfg.load_from))
    elif is_local(cfg.work_dir):
        found = find_checkpoint(Path(cfg.work_dir))
        cfg.load_from = None if found is None else str(found)
        saved = None if found is None else read_saved_run(found)
    if saved is None:
        return
    randomness = cfg.get('randomness') or {}
    if saved.seed is not None and randomness.get('seed') is None:
        cfg.randomness = dict(randomness, seed=saved.seed)
    if is_main_process():
        for warning in replaced_settings(cfg, saved):
            print(f'warning: {warning}', file=sys.stderr)


def replaced_settings(cfg: Config, saved: SavedRun) -> Iterator[str]:
    """Say which settings do nothing, as the checkpoint brings its own.

    mmengine restores optimiser and schedules whole, without a word.
    """
    try:
        before = dict(flatten(parse_config(saved.cfg)))
    except ValueError:
        return  # only the comparison is lost
    # As plain as what is read from text.
    plain = json.loads(json.dumps(cfg.to_dict(), default=str, skipkeys=True))
    now = dict(flatten(plain))
    changes = [
        f'{name}={value!r} (saved: {before[name]!r})'
        for name, value in now.items()
        if name.startswith(BROUGHT) and before.get(name, value) != value
    ]
    if changes:
        more = ', ...' * (len(changes) > SHOWN)
        yield (
            "--resume takes the checkpoint's optimiser and schedules; these "
            f'settings change nothing: {", ".join(changes[:SHOWN])}{more}. '
            'To train with them begin a new run, in a --work-dir of its own'
        )
    for name in ('train_cfg.max_epochs', 'train_cfg.max_iters'):
        length, old = now.get(name), before.get(name)
        # A file may say anything.
        if (
            isinstance(length, (int, float))
            and isinstance(old, (int, float))
            and length > old
        ):
            yield (
                f'{name}={length} is more than the {old} that '
                "the checkpoint's schedules were made for: from there on the "
                'learning rate stays at its last value'
            )


def check_run(path: Path) -> SavedRun:
    """Check all of a run's checkpoint; return what it says of the run.

    Raises:
        ValueError: It is damaged, or does not hold the state of a run.
        OSError: It is missing or cannot be read.
    """
    check_archive(path)
    return read_saved_run(path)


def find_checkpoint(work_dir: Path) -> Path | None:
    """Return the checkpoint to resume from, None if there is none.

    Raises:
        ValueError: There are some, but none is whole.
        OSError: A file cannot be read.
    """
    last, problem = read_last(work_dir)
    if last is not None and not problem:
        try:
            check_run(last)
        except (ValueError, OSError) as error:
            problem = str(error)
        else:
            return last
    # Those of a folder of their own (out_dir) lie beside the last one.
    folders = dict.fromkeys([work_dir, *([last.parent] if last else [])])
    others = [path for folder in folders for path in folder.glob('*.pth')]
    found, damaged = newest_whole([p for p in others if p != last])
    problems = [*([problem] if problem else []), *damaged]
    if found is None:
        # Weights alone, as a best checkpoint or an export, are no run.
        if not damaged and not (work_dir / LAST).is_file():
            return None
        raise ValueError(
            f'--resume: no whole checkpoint in {str(work_dir)!r}: '
            f'{"; ".join(problems)}. To start anew, use another --work-dir '
            f'or remove {LAST} and the damaged files'
        )
    if problems and is_main_process():
        print(
            f'warning: {"; ".join(problems)}. Resuming from {str(found)!r}, '
            'the newest whole checkpoint, instead',
            file=sys.stderr,
        )
    return found


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
    # The name is as the run before saw it: the folder may have been moved or
    # copied since.
    for path in (work_dir / Path(text).name, Path(text)):
        if path.is_file():
            return path, ''
    return None, f'{str(note)!r} names {text!r}, which is missing'


def newest_whole(paths: list[Path]) -> tuple[Path | None, list[str]]:
    """Return the whole checkpoint of the greatest iteration.

    Files that are whole, but hold no state of a run, are passed over.

    Returns:
        tuple[Path | None, list[str]]: It, and what is wrong with those that
        are damaged.
    """
    iterations, problems = {}, []
    for path in sorted(paths):
        try:
            iterations[path] = read_saved_run(path).iteration
        except NoRunError:
            continue
        except (ValueError, OSError) as error:
            problems.append(str(error))
    for path in sorted(iterations, key=iterations.__getitem__, reverse=True):
        try:
            check_archive(path)
        except (ValueError, OSError) as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems
