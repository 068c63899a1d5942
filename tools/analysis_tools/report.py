#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Write one HTML page that says how runs are doing.

Reads the work directories of any runs: pre-training (of mmpretrain's other
algorithms too), classification, detection. The page says whether a run learns
or has collapsed, by the limits of its CollapseMonitorHook. It has interactive
charts of loss, scores, health, schedules and speed; crops and search maps;
results of evaluations; settings and machine. Several runs share their charts.
A run that was resumed is one run.

The page is a single file that loads nothing: copy it, mail it, open it
anywhere. Nothing in a work directory is executed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from command_end import commanded, writing
from command_line import make_parser, number
from command_paths import folder

WATCH = 30.0  # seconds
EXAMPLES = """
examples:
  # a run, finished or not: work_dirs/scfs_r50/report.html
  python tools/analysis_tools/report.py work_dirs/scfs_r50
  # runs beside each other
  python tools/analysis_tools/report.py work_dirs/scfs_r50 \\
      work_dirs/dino_r50 --out work_dirs/scfs_and_dino.html
  # look every minute, write the page again if there is something new, until
  # the runs have finished; the page in the browser reloads itself
  python tools/analysis_tools/report.py work_dirs/scfs_r50 --watch 60
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'runs',
        nargs='+',
        type=folder,
        metavar='WORK_DIR',
        help='work directory of a run',
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='the page (default: report.html in WORK_DIR; of several runs, '
        'in the folder that holds the first one)',
    )
    parser.add_argument(
        '--watch',
        nargs='?',
        type=number(
            lambda x: 1 <= x <= 86400,
            'seconds, 1 to 86400 (name the work directories before --watch)',
        ),
        const=WATCH,
        metavar='SECONDS',
        help='keep looking this often for something new (default: '
        f'{WATCH:g}), until all runs have finished or Ctrl-C stops it',
    )
    args = parser.parse_args(argv)
    args.runs = list({run.resolve(): run for run in args.runs}.values())
    if args.out is None:
        first = args.runs[0]
        several = len(args.runs) > 1
        above = first.resolve().parent if several else first
        args.out = above / 'report.html'
    if args.out.suffix not in ('.html', '.htm'):
        parser.error(
            f'--out {args.out}: the name must end in .html, so that the page '
            'replaces no other file by mistake'
        )
    return args


@commanded('the page is as it was')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: written, 1: writing failed, 2: there is nothing to report on, or the
    page cannot be written where it should be.
    """
    args = parse_args(argv)

    from mmscfs.checkpoint import check_writable
    from mmscfs.report import make_page
    from mmscfs.results import read_log

    logs = [read_log(folder) for folder in args.runs]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    check_writable(args.out)
    if args.watch is None:
        save(make_page(logs), args.out)
    else:
        watch(args.runs, args.out, args.watch)
    return 0


def save(page: str, out: Path) -> None:
    """Write a page, and say so.

    Raises:
        NotWritten: It cannot be written.
    """
    from mmscfs.checkpoint import write_atomically

    # The name of a folder may have bytes that are not text.
    content = page.encode(errors='replace')
    with writing(out):
        write_atomically(out, content)
    name = str(out).encode(errors='replace').decode()
    print(f'written: {name} ({len(content) / 1e6:.1f} MB)', flush=True)


def watch(folders: Sequence[Path], out: Path, interval: float) -> None:
    """Write the page whenever there is something new.

    Raises:
        NotWritten: It cannot be written at the end.
    """
    from mmscfs.report import make_page
    from mmscfs.results import read_log, watched_files

    reload = f'<meta http-equiv="refresh" content="{interval:.0f}">'
    page, seen, end = None, None, 'stopped watching'
    try:
        while True:
            try:
                logs = [read_log(folder) for folder in folders]
                now = time.time()
                state = [(x.state(now), watched_files(x.folder)) for x in logs]
                if state != seen:
                    page = make_page(logs)
                    save(page.replace('<head>', f'<head>\n{reload}', 1), out)
                    seen = state
                if all(log.is_over(now) for log in logs):
                    end = 'all runs have finished'
                    break
            except (ValueError, OSError) as error:
                # A file that is being written is whole next time.
                print(f'not written this time: {error}', file=sys.stderr)
            time.sleep(interval)
    except KeyboardInterrupt:
        pass
    # Once more, so that it no longer reloads itself. Before a word, which
    # fails if the terminal is gone.
    if page is not None:
        save(page, out)
    print(end)


if __name__ == '__main__':
    raise SystemExit(main())
