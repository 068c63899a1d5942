#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Write one page of html that says how runs are doing.

Reads the work directories of any runs: pre-training (of mmpretrain's other
algorithms too), classification, detection. The page has whether a run learns
or has collapsed, by the bounds of its CollapseMonitorHook; its loss, scores,
health, schedules and speed; crops and search maps; results of evaluations;
settings and environment. Several runs share their charts. A run that was
resumed is one run.

The page is a single file that loads nothing: copy it, mail it, open it
anywhere. Nothing in a work directory is executed.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WATCH = 30.0  # seconds
EXAMPLES = """
examples:
  # a run that has finished, or goes on: work_dirs/scfs_r50/report.html
  python tools/analysis_tools/report.py work_dirs/scfs_r50
  # runs beside each other
  python tools/analysis_tools/report.py work_dirs/scfs_r50 \\
      work_dirs/dino_r50 --out work_dirs/scfs_and_dino.html
  # written anew every minute, if there is something new, until the runs have
  # finished; the page in the browser reloads itself
  python tools/analysis_tools/report.py work_dirs/scfs_r50 --watch 60
"""


def seconds(text: str) -> float:
    """Parse what --watch is given.

    Raises:
        argparse.ArgumentTypeError: It is no time.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 86400:
        raise argparse.ArgumentTypeError(
            f'{text!r} must be seconds, 1 to 86400 (work directories come '
            'before --watch)'
        )
    return value


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'runs',
        nargs='+',
        type=Path,
        metavar='WORK_DIR',
        help='work directory of a run',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='the page (default: report.html in WORK_DIR; of several runs, '
        'in the folder that the first one is in)',
    )
    parser.add_argument(
        '--watch',
        nargs='?',
        type=seconds,
        const=WATCH,
        metavar='SECONDS',
        help='go on, look this often for something new (default: '
        f'{WATCH:g}), and stop when all runs have finished, or on Ctrl-C or '
        'another end',
    )
    args = parser.parse_args(argv)
    args.runs = list({run.resolve(): run for run in args.runs}.values())
    if args.out is None:
        first = args.runs[0]
        several = len(args.runs) > 1
        args.out = (
            first.resolve().parent if several else first
        ) / 'report.html'
    if args.out.suffix not in ('.html', '.htm'):
        parser.error(
            f'--out {args.out}: the page must end in .html, not to replace '
            'another file by mistake'
        )
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: written, 1: writing failed, or a run was damaged meanwhile, 2: there is
    nothing to report on, or the page cannot be written where it should be.
    """
    args = parse_args(argv)

    # After parsing, so that --help and a wrong option answer at once.
    from mmscfs.checkpoint import check_writable
    from mmscfs.results import read_log

    try:
        for folder in args.runs:
            read_log(folder)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        check_writable(args.out)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    try:
        if args.watch is None:
            write(args.runs, args.out)
        else:
            watch(args.runs, args.out, args.watch)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def write(
    folders: Sequence[Path], out: Path, reload: float | None = None
) -> str:
    """Write the page, and say so; return it.

    Raises:
        OSError: It cannot be written, or a run cannot be read.
        ValueError: A run is damaged.
    """
    from functools import partial

    from rich.progress import track

    from mmscfs.engine.hooks import CollapseMonitorHook
    from mmscfs.results import read_log
    from mmscfs.visualization.report import make_page

    drawing = partial(
        track,
        description='drawing',
        transient=True,
        disable=not sys.stdout.isatty(),
    )
    page = make_page(
        [read_log(folder) for folder in folders],
        CollapseMonitorHook,
        reload,
        drawing,
    )
    save(page, out)
    return page


def save(page: str, out: Path) -> None:
    """Write a page that is made, and say so.

    Raises:
        OSError: It cannot be written.
    """
    from mmscfs.checkpoint import write_atomically

    # A name may have bytes that are no text.
    content = page.encode(errors='replace')
    try:
        write_atomically(out, content)
    except OSError as error:
        raise OSError(f'--out {out}: {error}') from error
    name = str(out).encode(errors='replace').decode()
    print(f'written: {name} ({len(content) / 1e6:.1f} MB)', flush=True)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have what ends a process come as Ctrl-C does, not to be left as it is.

    A second one ends it at once.
    """
    before = {}

    def interrupt(*_: Any) -> None:
        restore()
        raise KeyboardInterrupt

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for name in ('SIGTERM', 'SIGHUP'):
        number = getattr(signal, name, None)
        # Under nohup a hang-up is ignored, and stays so.
        if number and signal.getsignal(number) is signal.SIG_DFL:
            before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        restore()


def watch(folders: Sequence[Path], out: Path, interval: float) -> None:
    """Write the page whenever there is something new.

    Raises:
        OSError: It cannot be written, or no run could ever be read.
        ValueError: No run could ever be read.
    """
    from mmscfs.results import read_log, watched_files
    from mmscfs.visualization.report import stop_reloading

    seen, page, end = None, None, 'stopped watching'
    try:
        with ended_by_signals():
            while True:
                try:
                    logs = [read_log(folder) for folder in folders]
                    if all(log.is_over(time.time()) for log in logs):
                        end = 'all runs have finished'
                        break
                    states = [log.state(time.time()) for log in logs]
                    files = [watched_files(folder) for folder in folders]
                    if (states, files) != seen:
                        page = write(folders, out, interval)
                        seen = states, files
                except (ValueError, OSError) as error:
                    # A file that is being written is whole next time.
                    print(f'not written this time: {error}', file=sys.stderr)
                time.sleep(interval)
    except KeyboardInterrupt:
        pass
    # Once more, as a page that reloads itself no longer. Before a word, which
    # fails if the terminal is gone.
    try:
        write(folders, out)
    except (ValueError, OSError) as error:
        if page is None:
            raise
        # A run was moved or damaged: its last page, with what it had.
        save(stop_reloading(page), out)
        print(f'the page is as it was: {error}', file=sys.stderr)
    print(end)


if __name__ == '__main__':
    raise SystemExit(main())
