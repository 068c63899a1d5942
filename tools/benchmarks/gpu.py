#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Check and measure mmscfs on one GPU, in nine minutes, with one table.

Are losses and gradients those of the CPU? Does a run that was killed resume
to the same bits? How long does a step take, in how much memory, and where
does the time go? Each step below runs in its own process, with a time limit:
one that fails or hangs is a line of the table, and the others continue.
Images are made on the spot; nothing is downloaded.

The table goes to OUT/gpu.md and .csv, all rows and the machine to
OUT/gpu.json, and what a step prints to OUT/STEP.log.
"""

import argparse
import json
import math
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from measuring import (
    add_out_folder,
    commanded,
    folder,
    make_parser,
    number,
)

if TYPE_CHECKING:
    from mmscfs.results.tables import Summary

EXAMPLES = """
examples:
  # all of it
  python tools/benchmarks/gpu.py
  # a few steps
  python tools/benchmarks/gpu.py --steps machine parity speed
  # a slow machine
  python tools/benchmarks/gpu.py --minutes 20
  # the loader on your images; the other steps make theirs
  python tools/benchmarks/gpu.py --steps loader --data data/imagenet/val
  # try the command without a GPU, on tiny networks
  python tools/benchmarks/gpu.py --device cpu

exit code: 0 all is right, 1 a check or a step failed, 2 no GPU or wrong call
"""
MINUTES = 9
WIDTH = 70  # of a cell


class Step(NamedTuple):
    """A step of the check: a function, which yields rows."""

    seconds: int  #: Its limit, of MINUTES in all.
    module: str  #: Beside this file; the function has the step's name.
    text: str  #: For the help.


# The most telling first.
STEPS = {
    'machine': Step(20, 'gpu_speed', 'name, memory, speed of products'),
    'parity': Step(
        75, 'gpu_numerics', 'loss and gradient against the CPU in fp64'
    ),
    'overflow': Step(
        20, 'gpu_numerics', 'gradients that overflow in fp16: a skipped step'
    ),
    'speed': Step(
        120, 'gpu_speed', 'steps by batch, precision and setting; memory'
    ),
    'trace': Step(
        30, 'gpu_speed', 'what the host waits for; the three largest costs'
    ),
    'two_processes': Step(
        45, 'gpu_numerics', 'SyncBN; two processes on the GPU beside one'
    ),
    'resume': Step(60, 'gpu_runs', 'train, kill, resume: the same bits'),
    'textbook': Step(25, 'gpu_speed', 'the textbook form under autocast'),
    'loader': Step(30, 'gpu_speed', 'images per second from JPEG files'),
    'knn': Step(20, 'gpu_speed', 'k-NN of 50,000 x 100,000 features'),
    'detector': Step(25, 'gpu_runs', 'steps of Mask R-CNN in fp32 and AMP'),
    'compiled': Step(65, 'gpu_speed', 'model.compile=True'),
}
NOTE = (
    'One machine, one run. Checks say what was found and what is wanted; "-" '
    'could not be judged. Each step has its log beside this file.'
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    steps = '\n'.join(
        f'  {name:14} {step.seconds:4} s  {step.text}'
        for name, step in STEPS.items()
    )
    parser = make_parser(
        f'{__doc__}\nsteps and their limits in {MINUTES} minutes:\n{steps}\n',
        EXAMPLES,
    )
    parser.add_argument(
        '--steps',
        nargs='+',
        choices=list(STEPS),
        default=list(STEPS),
        metavar='STEP',
        help='run only these (default: all)',
    )
    parser.add_argument(
        '--minutes',
        type=number(lambda x: 0 < x < math.inf, 'above 0'),
        default=float(MINUTES),
        metavar='X',
        help='end all steps within this time; their limits change with it '
        '(default: %(default)g)',
    )
    parser.add_argument(
        '--device',
        choices=['cuda', 'cpu'],
        default='cuda',
        help='cpu: try the command on tiny networks (default: %(default)s)',
    )
    parser.add_argument(
        '--data',
        type=folder,
        metavar='FOLDER',
        help='take images for the step "loader" from this folder, at any '
        'depth, instead of making them',
    )
    add_out_folder(parser, 'gpu', 'work_dirs/gpu')
    # What this command calls itself with.
    parser.add_argument('--run', help=argparse.SUPPRESS)
    parser.add_argument('--limit', type=float, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run_step(args: argparse.Namespace) -> int:
    """Run a step in this process; write its rows as they come."""
    begin = time.monotonic()
    args.out = Path(args.out)
    args.end = begin + args.limit
    try:
        function = getattr(import_module(STEPS[args.run].module), args.run)
        with open(rows_of(args.out, args.run), 'w', encoding='utf-8') as file:
            for row in function(args):
                line = dict(kind=type(row).__name__, **row._asdict())
                print(json.dumps(line), file=file, flush=True)
                print(*row, sep=' | ', flush=True)
    except Exception:  # any: the log and the table have it
        traceback.print_exc()
        return 1
    return 0


def rows_of(out: Path, name: str) -> Path:
    """Return the file of a step's rows, one of json a line."""
    return out / f'{name}.jsonl'


def start(args: argparse.Namespace, name: str) -> Iterator[dict[str, Any]]:
    """Start a step, end it at its limit, and yield its rows."""
    from jobs import Job  # of the folder above, which measuring.py adds

    limit = STEPS[name].seconds * args.minutes / MINUTES
    rows, log = rows_of(args.out, name), args.out / f'{name}.log'
    rows.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).resolve())]
    command += ['--run', name, '--limit', str(limit), '--out', str(args.out)]
    command += ['--device', args.device]
    if args.data:
        command += ['--data', str(args.data)]
    hidden = dict(CUDA_VISIBLE_DEVICES='') if args.device == 'cpu' else {}
    begin = time.monotonic()
    job = Job(command, log, hidden)
    try:
        if job.process:
            job.process.wait(timeout=limit)
        found = job.outcome()
    except subprocess.TimeoutExpired:
        found = 'does not end'
    finally:
        if job.process and job.process.poll() is None:
            job.process.kill()  # its own processes are told to end
            job.process.wait()
    if rows.is_file():
        for line in rows.read_text(encoding='utf-8').splitlines():
            yield dict(step=name, **json.loads(line))
    yield dict(
        step=name,
        kind='Check',
        what='ends',
        found=found or f'{time.monotonic() - begin:.0f} s',
        wanted=f'within {limit:.0f} s',
        ok=not found,
    )


def summarize(rows: Sequence[dict[str, Any]]) -> 'Summary':
    """Return the tables of all rows: what was checked and measured."""
    from mmscfs.results.tables import Row, Summary, Table

    checks, figures = [], []
    for row in rows:
        source = f'{row["step"]}.log'
        if row['kind'] == 'Figures':
            labels = (row['step'], row['what'])
            line = Row(labels, row['figures'], source, False)
            figures.append(line._replace(digits=row['digits']))
        else:
            verdict = {True: 'ok', False: 'FAIL', None: '-'}[row['ok']]
            labels = ('step', 'what', 'found', 'wanted')
            texts = (textwrap.shorten(row[n], WIDTH) for n in labels)
            checks.append(Row((*texts, verdict), {}, source, False))
    failed = sum(row.get('ok') is False for row in rows)
    columns = ('value', 'ms', 'images/s', 'GiB', 'x backbone')
    tables = [
        Table(
            'Measured',
            'x backbone: forward and backward pass beside that of the '
            'networks alone',
            ('step', 'what'),
            columns,
            figures,
        ),
        Table(
            'Checked',
            f'{failed} of {len(checks)} failed',
            ('step', 'what', 'found', 'wanted', 'verdict'),
            (),
            checks,
        ),
    ]
    return Summary('GPU check', NOTE, tables, [])


@commanded('the table was not written')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the check, return its exit code."""
    args = parse_args(argv)
    if args.run:
        return run_step(args)

    import torch

    if args.device == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            '--device cuda: torch sees no GPU here; run python '
            'tools/doctor.py for the reason, or try --device cpu'
        )
    from mmscfs.checkpoint import write_atomically
    from mmscfs.version import __version__

    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(args.steps):
        print(f'{name}: {STEPS[name].text} ...', flush=True)
        rows += start(args, name)
        print(f'{name}: {rows[-1]["found"]}', flush=True)
    options = dict(minutes=args.minutes, device=args.device, out=str(args.out))
    record = dict(mmscfs=__version__, options=options, rows=rows)
    path = args.out / 'gpu.json'
    write_atomically(path, json.dumps(record, indent=1).encode())
    code = summarize(rows).publish(path.with_suffix('.md'))
    return code or int(any(row.get('ok') is False for row in rows))


if __name__ == '__main__':
    raise SystemExit(main())
