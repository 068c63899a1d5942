# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process

from mmscfs.checkpoint import NoRunError, check_archive, read_progress

from .saving import LAST, is_local


def choose_checkpoint(cfg: Config) -> None:
    """Set ``cfg.load_from`` to a whole checkpoint for a run that resumes.

    Without a name it is the last one that was saved, and if that is damaged
    or missing the one before, with a warning. If there is none at all, the
    run starts from its beginning.

    Raises:
        ValueError: The checkpoint that ``load_from`` names is damaged or no
            run's, or all of the work directory are.
        OSError: One cannot be read.
    """
    if not cfg.get('resume'):
        return
    if cfg.get('load_from'):
        if is_local(cfg.load_from):
            check_run(Path(cfg.load_from))
        return
    if is_local(cfg.work_dir):
        found = find_checkpoint(Path(cfg.work_dir))
        cfg.load_from = None if found is None else str(found)


def check_run(path: Path) -> int:
    """Check all of a run's checkpoint; return its iteration.

    Raises:
        ValueError: It is damaged, or does not hold the state of a run.
        OSError: It is missing or cannot be read.
    """
    check_archive(path)
    return read_progress(path)


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
        if not problems:
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
    # The name is as the run before saw it: the folder may have moved since.
    for path in (Path(text), work_dir / Path(text).name):
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
            iterations[path] = read_progress(path)
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
