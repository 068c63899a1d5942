#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Say what this machine has, what fits on it, and what is missing.

Looks at Python, the packages and their versions, operators, GPUs and memory.
It works where torch or mmcv is missing or broken too. Every problem comes
with the command that fixes it. Given a config, it also builds the data sets
and the model, and counts the memory of a step. Nothing is trained, downloaded
or changed.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from command_line import add_cfg_options, make_parser
from command_paths import config
from doctor_environment import (
    MISSING,
    NOTE,
    OK,
    ROOT,
    Finding,
    examine,
    machine_checks,
    package_checks,
)

EXAMPLES = """
examples:
  # the environment
  python tools/doctor.py
  # would this config run here, on these images, and with which batch?
  python tools/doctor.py configs/scfs_r50.py --cfg-options \\
      train_dataloader.dataset.data_root=my/images \\
      train_dataloader.dataset.data_prefix=''
  # to attach to a question
  python tools/doctor.py --json doctor.json

exit code: 0 all that is needed is there, 1 something is missing, 2 wrong call
"""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'config',
        nargs='?',
        type=config,
        help='check that this config would run here; a file or mmscfs::NAME',
    )
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write all findings here too'
    )
    add_cfg_options(parser, 'train_dataloader.batch_size=64')
    args = parser.parse_args(argv)
    if args.cfg_options and not args.config:
        parser.error('--cfg-options change a config: name it first')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks, return the exit code."""
    args = parse_args(argv)
    sections = {'packages': package_checks(), 'machine': machine_checks()}
    if args.config:
        from doctor_config import config_checks

        sections['config'] = config_checks(args)
    found: dict[str, list[Finding]] = {}
    for section, checks in sections.items():
        print(section)
        found[section] = []
        for finding in examine(checks):
            found[section].append(finding)
            state = '' if finding.state == OK else f' [{finding.state}]'
            print(f'  {finding.name:18} {finding.value}{state}', flush=True)
    print()
    every = [finding for findings in found.values() for finding in findings]
    for wanted in (MISSING, NOTE):
        for name, value, state, remedy in every:
            if state == wanted:
                print(f'{state}: {name}: {value}')
                print(f'    {remedy}\n' * bool(remedy), end='')
    is_broken = any(f.state == MISSING for f in found['packages'])
    if is_broken and (ROOT / 'Makefile').is_file():
        print('all packages at once, the tested versions into .venv:')
        stamp = ROOT / '.venv/.installed'
        print(f'    rm -f {stamp} && make -C {ROOT} install')
    if args.json:
        # Not by write_atomically, which needs torch.
        data = {k: [f._asdict() for f in part] for k, part in found.items()}
        new = args.json.with_name(f'.{args.json.name}.tmp')
        try:
            new.write_text(json.dumps(data, indent=2) + '\n')
            new.replace(args.json)
        except OSError as error:
            new.unlink(missing_ok=True)
            print(f'error: --json {args.json}: {error}', file=sys.stderr)
            return 2
    if any(finding.state == MISSING for finding in every):
        return 1
    print('All that is needed is there.')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
