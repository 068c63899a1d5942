#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Install each supported environment, and run a part of the tests in it.

An environment for each Python of this machine from 3.10 to 3.13, for both
stacks, and twice: with the oldest versions that the files in requirements
allow, and with the newest that the index has. Each is made by `make install`,
tested and removed; all take about an hour. Started again, the command tests
only what it has not tested at this commit. Prints a Markdown table.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from rich.progress import track

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / 'requirements'
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
    'tests/test_engine/test_training.py::test_log_has_every_term',
    'tests/test_engine/test_training.py::'
    'test_resumed_run_equals_one_that_never_stopped',
    'tests/test_detection_configs.py::test_one_iteration_and_one_evaluation'
    '[digits/faster-rcnn_r18-w16-c4_demo_digits-voc.py]',
    'tests/test_evaluation/test_knn.py',
    'tests/test_checkpoint/test_plain.py',
    'tests/test_tools/test_doctor.py',
    'tests/test_tools/test_help.py',
    'tests/test_tools/test_make_digit_scenes.py',
    'tests/test_tools/test_model_converters.py',
    'tests/test_tools/test_report.py::test_page_of_a_run_lies_in_its_folder',
    'tests/test_tools/test_sweep.py::test_commands',
    'tests/test_tools/test_train.py::'
    'test_one_command_trains_and_one_more_resumes',
    'tests/test_tools/test_transfer.py::test_images_to_detector_to_evaluation',
    'tests/test_tools/test_visualization.py::test_browse_views',
)
COLUMNS = ('torch', 'torchvision', 'numpy', 'opencv-python')
VERSIONS = """
import json, sys
from importlib import metadata

print(json.dumps({name: metadata.version(name) for name in sys.argv[1:]}))
"""


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--pythons',
        nargs='+',
        metavar='PYTHON',
        help='default: each of python3.10 to python3.13 that runs',
    )
    parser.add_argument(
        '--versions',
        nargs='+',
        choices=['oldest', 'newest'],
        default=['oldest', 'newest'],
        help='default: both',
    )
    parser.add_argument(
        '--stacks',
        nargs='+',
        choices=['upstream', 'onedl'],
        default=['upstream', 'onedl'],
        help='default: both',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=ROOT / 'work_dirs' / 'matrix',
        metavar='FOLDER',
        help='for logs and results (default: work_dirs/matrix); each '
        'environment takes 7 GB there while it is tested',
    )
    return parser.parse_args()


def find_pythons() -> list[str]:
    """Return the supported Pythons on the PATH, oldest first."""
    names = [f'python3.{minor}' for minor in range(10, 14)]
    return [name for name in names if version_of(name)]


def version_of(python: str) -> str:
    """Return a Python's version, "" if it does not run."""
    command = (python, '-c', 'import platform as p; print(p.python_version())')
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ''
    return done.stdout.strip()


def constrain(versions: str) -> str:
    """Return a constraints file: our lowest versions, or none.

    What our requirements require themselves is as pip chooses.
    """
    if versions == 'newest':
        return ''
    lines = []
    for name in ('build', 'runtime'):
        for line in (REQUIREMENTS / f'{name}.txt').read_text().splitlines():
            if line and not line.startswith('#'):
                requirement = Requirement(line)
                lines += [
                    f'{requirement.name}=={bound.version}.*\n'
                    for bound in requirement.specifier
                    if bound.operator == '>='
                ]
    return ''.join(lines)


def run_cell(
    python: str, versions: str, stack: str, folder: Path, commit: str
) -> dict:
    """Make an environment, test and remove it; return its row.

    Args:
        folder (Path): For the environment, its log and its result.
        commit (str): Of the code; a result of another one is made again.
    """
    result = folder / 'result.json'
    if result.is_file():
        row = json.loads(result.read_text())
        if row['commit'] == commit:
            return row
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    constraints = folder / 'constraints.txt'
    constraints.write_text(constrain(versions))
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(('MAKE', 'MFLAGS', 'OPS', 'VENV'))
    }
    row = dict(
        commit=commit, Python=version_of(python), stack=stack, result='failed'
    )
    venv = folder / 'venv'
    report = folder / 'report.xml'
    with (folder / 'log.txt').open('w') as log:

        def run(*words: str | Path) -> int:
            print('$', *words, file=log, flush=True)
            return subprocess.run(
                [str(word) for word in words],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            ).returncode

        settings = dict(
            PYTHON=python, STACK=stack, VENV=venv, CONSTRAINTS=constraints
        )
        words = [f'{name}={value}' for name, value in settings.items()]
        program = venv / 'bin' / 'python'
        if run('make', 'install', *words):
            row['result'] = 'not installed'
        else:
            found = subprocess.run(
                (program, '-c', VERSIONS, *COLUMNS),
                capture_output=True,
                text=True,
                check=True,
            )
            row |= json.loads(found.stdout)
            run(program, '-m', 'pytest', f'--junitxml={report}', *QUICK)
    if report.is_file():
        (suite,) = ElementTree.parse(report).getroot()
        count = {
            name: int(suite.get(name, 0))
            for name in ('tests', 'failures', 'errors', 'skipped')
        }
        bad = count['failures'] + count['errors']
        passed = count['tests'] - bad - count['skipped']
        row['result'] = f'{passed} passed, {bad} failed'
    shutil.rmtree(venv, ignore_errors=True)
    result.write_text(json.dumps(row, indent=2) + '\n')
    return row


def main() -> None:
    """Test all environments."""
    args = parse_args()
    pythons = args.pythons or find_pythons()
    if not pythons:
        sys.exit('error: none of python3.10 to python3.13 runs here')
    commit = subprocess.run(
        ('git', 'describe', '--always', '--dirty'),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    work_dir = args.work_dir.resolve()
    cells = list(product(pythons, args.versions, args.stacks))
    rows = []
    for python, versions, stack in track(cells, 'environments'):
        folder = work_dir / f'{version_of(python)}-{versions}-{stack}'
        rows.append(run_cell(python, versions, stack, folder, commit))
    columns = ('Python', 'stack', *COLUMNS, 'result')
    print(f'Commit {commit}:\n')
    print('|', ' | '.join(columns), '|')
    print('|' + '---|' * len(columns))
    for row in rows:
        print('|', ' | '.join(row.get(name, '?') for name in columns), '|')
    if any(not row['result'].endswith(' 0 failed') for row in rows):
        sys.exit(f'The logs of what failed are below {work_dir}.')


if __name__ == '__main__':
    main()
