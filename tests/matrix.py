#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Install each supported environment, and run a part of the tests in it.

An environment for each Python of this machine from 3.10 to 3.13, for both
stacks, and twice: with the oldest versions that the files in requirements
allow, and with the newest that the index has. Each is made by `make install`,
tested and removed; all take about an hour. Prints a Markdown table. The logs
are in work_dirs/matrix, where an environment takes 7 GB while it is tested.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from rich.progress import track

ROOT = Path(__file__).resolve().parents[1]
WORK_DIR = ROOT / 'work_dirs/matrix'
EXAMPLES = """
examples:
  make matrix
  # pythons that pyenv has
  PYENV_VERSION=3.10.13:3.12.1 make matrix
  # one environment
  make matrix ARGS="--pythons python3.12 --versions newest --stacks onedl"
"""
# Import, a step of each algorithm, crops, resuming, a detector and its
# evaluation, k-NN, export, and one command of each kind.
QUICK = (
    'tests/test_compatibility.py',
    'tests/test_ops.py',
    'tests/test_patches.py',
    'tests/test_models/test_selfsup.py',
    'tests/test_datasets/test_color.py',
    'tests/test_datasets/test_multi_crop.py',
    'tests/test_datasets/test_crop_statistics.py',
    'tests/test_engine/test_training.py::'
    'test_a_resumed_run_equals_one_that_never_stopped',
    'tests/test_detection_configs.py::test_one_iteration_and_one_evaluation'
    '[fashion/mask-rcnn_r18-w16-fpn_fashion.py]',
    'tests/test_evaluation/test_knn.py',
    'tests/test_checkpoint/test_plain.py',
    'tests/test_tools/test_doctor.py',
    'tests/test_tools/test_help.py',
    'tests/test_tools/test_make_digit_scenes.py',
    'tests/test_tools/test_model_converters.py',
    'tests/test_tools/test_report.py',
    'tests/test_tools/test_sweep.py::test_commands',
    'tests/test_tools/test_train.py::'
    'test_one_command_trains_and_one_more_resumes',
    'tests/test_tools/test_transfer.py::'
    'test_c4_detector_starts_from_all_four_stages',
    'tests/test_tools/test_visualization.py::test_browse_views',
)
CHOICES = dict(
    pythons=[f'python3.{minor}' for minor in range(10, 14)],
    versions=['oldest', 'newest'],
    stacks=['upstream', 'onedl'],
)
COLUMNS = ('torch', 'torchvision', 'numpy', 'opencv-python')
FIND = """
import json, platform, sys
from importlib import metadata

found = dict(Python=platform.python_version())
found |= {name: metadata.version(name) for name in sys.argv[1:]}
print(json.dumps(found))
"""


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, values in CHOICES.items():
        parser.add_argument(
            f'--{name}',
            nargs='+',
            choices=None if name == 'pythons' else values,
            default=values,
            help=f'default: those of {", ".join(values)} that run here'
            if name == 'pythons'
            else 'default: both',
        )
    return parser.parse_args()


def find_versions(python: str | Path, *names: str) -> dict[str, str]:
    """Return a Python's version and those of packages, {} if it fails."""
    command = (str(python), '-c', FIND, *names)
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return {}
    return {} if done.returncode else json.loads(done.stdout)


def constrain(versions: str) -> str:
    """Return a constraints file: our lowest versions, or none.

    What our requirements require themselves is as pip chooses.
    """
    if versions == 'newest':
        return ''
    lines = []
    for name in ('build', 'runtime'):
        text = (ROOT / f'requirements/{name}.txt').read_text()
        for line in text.splitlines():
            if line and not line.startswith('#'):
                requirement = Requirement(line)
                lines += [
                    f'{requirement.name}=={bound.version}.*\n'
                    for bound in requirement.specifier
                    if bound.operator == '>='
                ]
    return ''.join(lines)


def run_cell(python: str, versions: str, stack: str) -> dict[str, str]:
    """Make an environment, test and remove it; return its row."""
    row = find_versions(python)
    name = f'{row["Python"]}-{versions}-{stack}'
    row |= dict(stack=stack, result='not installed', failed='yes')
    venv, constraints = WORK_DIR / 'venv', WORK_DIR / f'{name}.txt'
    shutil.rmtree(venv, ignore_errors=True)
    WORK_DIR.mkdir(parents=True, exist_ok=True)
    constraints.write_text(constrain(versions))
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(('MAKE', 'MFLAGS', 'OPS', 'VENV'))
    }
    log = WORK_DIR / f'{name}.log'
    with log.open('w') as out:

        def succeeds(*words: str | Path) -> bool:
            print('$', *words, file=out, flush=True)
            done = subprocess.run(
                [str(word) for word in words],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            return not done.returncode

        settings = dict(
            PYTHON=python, STACK=stack, VENV=venv, CONSTRAINTS=constraints
        )
        words = [f'{key}={value}' for key, value in settings.items()]
        if succeeds('make', 'install', *words):
            program = venv / 'bin/python'
            row |= find_versions(program, *COLUMNS)
            passed = succeeds(program, '-m', 'pytest', *QUICK)
            *_, summary = log.read_text().splitlines()
            row['result'] = summary.partition(' in ')[0]
            row['failed'] = '' if passed else 'yes'
    shutil.rmtree(venv, ignore_errors=True)
    return row


def main() -> None:
    """Test all environments."""
    args = parse_args()
    pythons = [python for python in args.pythons if find_versions(python)]
    if not pythons:
        sys.exit(f'error: none of {", ".join(args.pythons)} runs here')
    commit = subprocess.run(
        ('git', 'describe', '--always', '--dirty'),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    cells = list(product(pythons, args.versions, args.stacks))
    rows = [run_cell(*cell) for cell in track(cells, 'environments')]
    columns = ('Python', 'stack', *COLUMNS, 'result')
    print(f'Commit {commit}:\n')
    print('|', ' | '.join(columns), '|')
    print('|' + '---|' * len(columns))
    for row in rows:
        print('|', ' | '.join(row.get(name, '?') for name in columns), '|')
    if any(row['failed'] for row in rows):
        sys.exit(f'The logs of what failed are in {WORK_DIR}.')


if __name__ == '__main__':
    main()
