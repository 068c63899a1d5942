#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Say what this machine has, what fits on it, and what is missing.

Looks at Python, the packages and their versions, compiled ops, GPUs, memory,
disks, limits, launchers and data sets. It works where torch or mmcv is missing
or broken too. Every problem comes with the command that fixes it. Of a config
it builds data sets and model, and counts the memory of a step; nothing is
trained, downloaded or changed.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from command_line import CONFIGS, PREFIX, add_cfg_options
from doctor_findings import MISSING, NOTE, OK, ROOT, Finding

EXAMPLES = """
examples:
  # the environment, and what fits of the paper's recipe
  python tools/doctor.py
  # would this config run here, on these images?
  python tools/doctor.py configs/scfs_r50.py --cfg-options \\
      train_dataloader.dataset.data_root=my/images \\
      train_dataloader.dataset.data_prefix=''
  # to attach to a question
  python tools/doctor.py --json doctor.json

exit code: 0 all that is needed is there, 1 something is missing, 2 wrong call
"""
STYLES = {OK: 'green', NOTE: 'yellow', MISSING: 'bold red'}
# Section -> what yields its findings.
Sections = dict[str, Callable[[], Iterable[Finding]]]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config',
        nargs='?',
        help='check that this config would run here; a file, or mmscfs:: and '
        'a name below configs',
    )
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write all findings here too'
    )
    add_cfg_options(parser, 'train_dataloader.batch_size=64')
    args = parser.parse_args(argv)
    name = args.config
    if name and name.startswith(PREFIX):
        args.config = str(CONFIGS / name.removeprefix(PREFIX))
    if name and not Path(args.config).is_file():
        parser.error(
            f'no config file {name!r}: name one, e.g. configs/scfs_r50.py or '
            f'{PREFIX}scfs_r50.py'
        )
    if args.cfg_options and not args.config:
        parser.error('--cfg-options are of a config: name it first')
    if args.json and not args.json.absolute().parent.is_dir():
        parser.error(
            f'--json: no folder {args.json.absolute().parent}: make it first'
        )
    return args


def sections(args: argparse.Namespace) -> Sections:
    """Return the report's sections in order."""
    from doctor_config import check_config, check_datasets
    from doctor_fit import check_recipe
    from doctor_machine import (
        check_gpus,
        check_launchers,
        check_limits,
        check_system,
    )
    from doctor_packages import check_packages

    found: Sections = {
        'machine': check_system,
        'packages': check_packages,
        'GPUs': check_gpus,
        'limits': check_limits,
        'launchers': check_launchers,
        'data sets': check_datasets,
    }
    if args.config:
        found['config'] = lambda: check_config(args)
    else:
        found['what fits'] = check_recipe
    return found


def collect(checks: Sections) -> dict[str, list[Finding]]:
    """Run the checks, with the name of the running one on a terminal."""
    try:
        from rich.console import Console

        bars = Console(stderr=True)
        status = bars.status('looking')
    except ImportError:  # a missing package is what this is for
        status = contextlib.nullcontext()
    found = {}
    with status as shown:
        for name, check in checks.items():
            if shown:
                shown.update(f'looking: {name}')
            found[name] = list(check())
    return found


def show(found: dict[str, list[Finding]]) -> None:
    """Print a table, or plain lines where rich is missing."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for section, findings in found.items():
            for name, value, state, _ in findings:
                print(f'{section}: {name}: {value} [{state}]')
        return
    table = Table(show_header=False)
    for section, findings in found.items():
        if not findings:
            continue
        table.add_section()
        table.add_row(Text(section, 'bold'), '', '')
        for name, value, state, _ in findings:
            table.add_row(name, Text(value), Text(state, STYLES[state]))
    # A pipe or a file would get 80 columns.
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def remedies(found: dict[str, list[Finding]]) -> list[str]:
    """Return the lines that end in commands: what is missing, then notes."""
    every = [finding for findings in found.values() for finding in findings]
    lines = []
    for state in (MISSING, NOTE):
        for name, value, its_state, remedy in every:
            if its_state == state:
                lines.append(f'{state}: {name}: {value}')
                lines += [f'    {remedy}'] * bool(remedy)
    packages = [
        finding.name
        for finding in found.get('packages', [])
        if finding.state == MISSING
    ]
    if packages and (ROOT / 'Makefile').is_file():
        stamp = ROOT / '.venv/.installed'
        lines += [
            'all packages at once, the tested versions into .venv:',
            f'    rm -f {stamp} && make -C {ROOT} install',
        ]
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks, return the exit code."""
    args = parse_args(argv)
    found = collect(sections(args))
    show(found)
    for line in remedies(found):
        print(line)
    missing = any(
        finding.state == MISSING
        for findings in found.values()
        for finding in findings
    )
    if args.json:
        # Not by write_atomically, which needs torch.
        data = {
            section: [finding._asdict() for finding in findings]
            for section, findings in found.items()
        }
        try:
            args.json.write_text(json.dumps(data, indent=2) + '\n')
        except OSError as error:
            print(f'error: --json {args.json}: {error}', file=sys.stderr)
            return 2
    if not missing:
        print('All that is needed is there.')
    return int(missing)


if __name__ == '__main__':
    raise SystemExit(main())
