# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every command and program of the README and the guides works as printed.

It runs here on tiny data, or its block has a mark that says why not. What
is marked is checked without running: scripts exist and take these options,
configs exist and have these settings.
"""

from pathlib import Path

import pytest
import torch
from checks import check_block
from documents import DOCUMENTS, ROOT, read_blocks
from sandbox import Sandbox
from shell import Command, read_commands

SCFS = 'configs/scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
KNN = 'configs/classification/knn/knn_resnet18-w16_digits.py'
# What guides take for granted: the demo, and a run of the default config.
BEFORE = f"""
python tools/dataset_converters/make_digit_scenes.py
python tools/train.py {SCFS} --work-dir work_dirs/demo
python tools/test.py {KNN} --pretrained work_dirs/demo/epoch_1.pth
python tools/train.py configs/scfs_r50.py
"""


@pytest.fixture(scope='module')
def sandbox(tmp_path_factory):
    """A reader's folder."""
    sandbox = Sandbox(tmp_path_factory.mktemp('reader'))
    for command in read_commands(BEFORE, sandbox.root):
        sandbox.run(command)
    torch.save(dict(state_dict={}), sandbox.root / 'old.pth')
    return sandbox


@pytest.mark.parametrize(
    'path', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_what_a_document_says_works(path, sandbox):
    for block in read_blocks(path):
        try:
            check_block(sandbox, block)
        except Exception as error:
            message = f'{block.place}: {type(error).__name__}: {error}'
            raise AssertionError(message) from error


TRAIN = 'python tools/train.py configs/scfs_r50.py'
SLURM = 'tools/slurm_train.sh a b configs/scfs_r50.py c'


@pytest.mark.parametrize(
    ('text', 'mark', 'message'),
    [
        ('make demo', '', 'cannot run here: put a mark'),
        ('ls | wc', '', "has '|'"),
        (TRAIN, 'needs luck', "unknown reason 'luck'"),
        (f'{TRAIN} --sed 1', 'needs ImageNet', 'arguments: --sed'),
        (f'GPUS=8 {SLURM} --sed 1', 'needs Slurm', 'arguments: --sed'),
        (
            f'{TRAIN} --cfg-options model.neck.prototypes=3',
            'needs ImageNet',
            'no setting model.neck.prototypes',
        ),
        ('model = dict(compile=True)', '', 'settings of what'),
        (
            'model = dict(compiled=True)',
            'settings of configs/scfs_r50.py',
            'no setting model.compiled',
        ),
        ('import mmscfs.nothing', '', 'nothing'),
    ],
)
def test_wrong_commands_and_programs_are_found(sandbox, text, mark, message):
    language = 'python' if text[:5] in ('model', 'impor') else 'bash'
    mark = mark and f'<!-- test: {mark} -->\n'
    page = f'# Guide\n\n{mark}```{language}\n{text}\n```\n'
    (block,) = read_blocks(ROOT / 'docs/en/made-up.md', page)
    errors = (AssertionError, ValueError, ModuleNotFoundError)
    with pytest.raises(errors, match=message):
        check_block(sandbox, block)


def test_commands_are_read_as_a_shell_reads_them(tmp_path):
    for name in 'ab':
        (tmp_path / f'{name}.pth').touch()
    text = 'D=my/x  # here\n\nA=1 python t.py $D *.pth \\\n  "b c"'
    (command,) = read_commands(text, Path(tmp_path))
    words = ['python', 't.py', 'my/x', 'a.pth', 'b.pth', 'b c']
    assert command == Command({'A': '1'}, words)
    assert command.tool == 't.py'
    assert command.arguments == words[2:]
