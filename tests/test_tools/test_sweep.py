# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/sweep.py with stand-ins for what it runs."""

import csv
import importlib
import json
import sys
from pathlib import Path

import pytest
from commands import ROOT, stand_in
from sweep_runs import CONFIGS, LIST, Commands, save

from mmscfs.results import read_result, write_result


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    return importlib.import_module('sweep')


@pytest.fixture
def commands(tool, tmp_path, monkeypatch):
    """Fake commands, in a folder with list.py and what it names."""
    monkeypatch.chdir(tmp_path)
    for name, text in CONFIGS.items():
        Path(f'{name}.py').write_text(text)
    Path('list.py').write_text(LIST)
    tool.load.cache_clear()
    fake = Commands()
    stand_in(monkeypatch, fake)
    return fake


def sweep(tool, *words):
    return tool.main(['list.py', '--work-dir', 'work', *map(str, words)])


def read_csv():
    """The lines of our runs: method, k-NN, LP and source."""
    with open('work/sweep.csv', newline='') as file:
        return [
            (row['method'], row['k-NN'], row['LP'], row['source'])
            for row in csv.DictReader(file)
            if row['source'].startswith('this run')
        ]


DINO = [('dino', '--resume'), ('dino/knn', None), ('dino/linear', '--resume')]
SCFS = [('scfs', '--resume'), ('scfs/knn', None), ('scfs/linear', '--resume')]
TABLE = [
    ('DINO (imagenet100)', '80.0', '86.0', 'this run (dino)'),
    ('SCFS (imagenet100)', '84.0', '89.0', 'this run (scfs)'),
]


def test_a_sweep_ends_with_the_papers_table(tool, commands, capsys):
    assert sweep(tool) == 0
    assert commands.calls == DINO + SCFS
    assert read_csv() == TABLE
    text = Path('work/sweep.md').read_text()
    assert '| DINO w ML | 256 | 200 | 82.2 | 87.4 | paper (Table 7) |' in text
    assert '| **SCFS (imagenet100)** | **256** | **3** | **84.0** |' in text
    assert 'Not scored' not in text
    printed = capsys.readouterr().out
    assert 'scfs/knn: knn/top1 84.000' in printed
    assert 'SCFS (imagenet100)' in printed
    content = json.loads(Path('work/sweep.json').read_text())
    options = ['scfs', 'data.pipeline.1.num_local=8']
    assert content['settings']['scfs'] == options
    step = content['steps']['scfs/linear']
    assert step['facts'] == dict(variant='scfs', seed=0)
    assert (step['metrics'], step['problem']) == ({'accuracy/top1': 89.0}, '')
    # A second call has nothing to do, wherever the folder has gone.
    commands.calls.clear()
    Path('work').rename('moved')
    assert tool.main(['list.py', '--work-dir', 'moved']) == 0
    assert commands.calls == []


def test_commands(tool, commands, capsys):
    """As a dry run prints them, which touches nothing."""
    options = ['--cfg-options', 'model.x=1', 'data.pipeline.1.num_local=2']
    one = ('--variants', 'scfs', '--seeds', 3, '--dry-run', *options)
    settings = (
        '--cfg-options model.x=1 data.pipeline.1.num_local=2 '
        'data.pipeline.1.num_local=8 randomness.seed=3'
    )
    work = 'work/scfs_seed-3'
    start = f'{work}/epoch_3.pth'
    assert sweep(tool, *one) == 0
    python = f'{sys.executable} {ROOT}/tools'
    assert capsys.readouterr().out.splitlines() == [
        f'{python}/train.py scfs.py --work-dir {work} --resume {settings}',
        f'{python}/test.py knn.py --pretrained {start} --work-dir {work}/knn',
        f'{python}/train.py linear.py --pretrained {start} '
        f'--work-dir {work}/linear --resume',
    ]
    assert sweep(tool, *one, '--gpus', 4) == 0
    tools = f'{ROOT}/tools'
    assert capsys.readouterr().out.splitlines() == [
        f'{tools}/dist_train.sh scfs.py 4 --work-dir {work} --resume '
        f'{settings}',
        f'{tools}/dist_test.sh knn.py {start} 4 --work-dir {work}/knn',
        f'{tools}/dist_train.sh linear.py 4 --pretrained {start} '
        f'--work-dir {work}/linear --resume',
    ]
    assert commands.calls == []
    assert not Path('work').exists()
    # What is done is not shown.
    assert sweep(tool, '--variants', 'dino') == 0
    capsys.readouterr()
    assert sweep(tool, '--dry-run') == 0
    assert 'dino.py' not in capsys.readouterr().out


def test_a_killed_sweep_resumes(tool, commands, capsys):
    """Also from what a signal saves, newer than the last epoch."""
    commands.killed = {
        'dino': ('interrupted', 21),
        'scfs': ('epoch_2', 20),
        'scfs/linear': ('interrupted', 11),
    }
    assert sweep(tool) == 130
    assert 'the same command resumes' in capsys.readouterr().err
    assert sweep(tool) == 130
    Path('work/scfs/epoch_3.pth').write_text('torn')
    assert sweep(tool) == 130
    assert sweep(tool) == 0
    again = [DINO[0], *DINO, SCFS[0], *SCFS, SCFS[2]]
    assert commands.calls == again
    assert read_csv() == TABLE


def test_epochs_may_be_saved_by_iterations(tool, commands):
    """The checkpoint tells that it is at the end, not its name."""
    commands.saved_as = 'iter'
    commands.killed = {'dino': ('iter_29', 29)}
    assert sweep(tool, '--variants', 'dino') == 130
    assert sweep(tool, '--variants', 'dino') == 0
    assert commands.calls == [DINO[0], *DINO]
    assert Path('work/dino/iter_30.knn.json').is_file()
    assert read_csv()[0] == TABLE[0]
    assert sweep(tool, '--variants', 'dino') == 0
    assert len(commands.calls) == 4


def test_a_failed_variant_is_named_and_the_others_run(tool, commands, capsys):
    commands.failing = {'dino', 'scfs/knn'}
    assert sweep(tool) == 1
    assert commands.calls == [DINO[0], *SCFS]
    problems = [
        f'{step}: exit code 1: ValueError: no such luck (full log: {log})'
        for step, log in (
            ('dino', 'work/dino/train.log'),
            ('scfs/knn', 'work/scfs/knn/test.log'),
        )
    ]
    printed = capsys.readouterr().out
    for problem in problems:
        assert f'not scored: {problem}' in printed.splitlines()
        assert f'- {problem}' in Path('work/sweep.md').read_text()
    assert read_csv()[0][1:] == ('-', '89.0', 'this run (scfs)')
    # Another call that runs nothing knows them from the logs.
    assert sweep(tool, '--table-only') == 1
    text = Path('work/sweep.md').read_text()
    assert '- dino: no result: ValueError: no such luck (full log: ' in text
    assert 'dino/knn' not in text
    commands.failing = set()
    commands.calls.clear()
    assert sweep(tool) == 0
    assert commands.calls == [*DINO, SCFS[1]]


def test_evaluations_are_repeated_for_another_checkpoint(tool, commands):
    assert sweep(tool, '--variants', 'scfs') == 0
    save(Path('work/scfs'), 'epoch_1', 10, 3)  # as if it had begun again
    commands.calls.clear()
    assert sweep(tool, '--variants', 'scfs') == 0
    # And from the beginning.
    assert commands.calls == [*SCFS[:2], ('scfs/linear', '--overwrite')]


@pytest.mark.parametrize('kind', ['absent', 'damaged', 'of another run'])
def test_a_result_is_made_again(tool, commands, kind):
    assert sweep(tool, '--variants', 'scfs') == 0
    path = Path('work/scfs/epoch_3.linear.json')
    if kind == 'absent':
        path.unlink()
    elif kind == 'damaged':
        path.write_text('{"format"')
    else:
        result = read_result(path)._replace(work_dir='/work_dirs/linear')
        write_result(path, result)
    commands.calls.clear()
    assert sweep(tool, '--variants', 'scfs') == 0
    # The last checkpoint would train no more, and so evaluate nothing.
    assert commands.calls == [('scfs/linear', '--overwrite')]


def test_seeds_have_folders_rows_and_a_mean(tool, commands):
    assert sweep(tool, '--variants', 'scfs', '--seeds', 0, 2) == 0
    assert [name for name, _ in commands.calls][::3] == ['scfs', 'scfs_seed-2']
    expected = [
        ('84.0', '89.0', 'this run (scfs)'),
        ('86.0', '91.0', 'this run (scfs_seed-2)'),
        (
            '85.0 ± 1.4',
            '90.0 ± 1.4',
            'this run: mean and standard deviation of seeds 0, 2',
        ),
    ]
    assert [row[1:] for row in read_csv()] == expected
    # Later calls, and the table alone, have what there is.
    assert sweep(tool, '--variants', 'dino') == 0
    Path('work/sweep.csv').unlink()
    assert sweep(tool, '--table-only') == 0
    assert [row[1:] for row in read_csv()] == [TABLE[0][1:], *expected]


def test_detection_stands_beside(tool, commands):
    Path('list.py').write_text(LIST + "detection = ['mask_rcnn.py']\n")
    tool.load.cache_clear()
    assert sweep(tool, '--variants', 'dino') == 0
    assert commands.calls == [*DINO, ('dino/mask_rcnn', '--resume')]
    command = commands.commands[-1]
    assert command[3:5] == ['--pretrained', 'work/dino/epoch_3.pth']
    text = Path('work/sweep.md').read_text()
    assert (
        '| **31.0** | **28.0** | **this run (work/dino/mask_rcnn)** |' in text
    )
    commands.calls.clear()
    assert sweep(tool, '--variants', 'dino') == 0
    assert commands.calls == []


def test_settings_do_not_mix_in_a_folder(tool, commands, capsys):
    one = ('--variants', 'dino')
    assert sweep(tool, *one, '--skip-evaluations') == 0
    assert commands.calls == DINO[:1]
    # Those of the evaluations may still be chosen.
    options = ('--eval-cfg-options', 'test_cfg.ks=[1]')
    assert sweep(tool, *one, *options) == 0
    for words, problem in (
        (
            one,
            "holds the sweep of eval_cfg_options=['test_cfg.ks=[1]'], not []",
        ),
        ((*one, '--cfg-options', 'x=1'), 'holds the sweep of cfg_options=[]'),
        ((*one, *options, '--gpus', 8), 'holds the sweep of gpus=1, not 8'),
    ):
        assert sweep(tool, *words) == 2
        assert problem in capsys.readouterr().err
    text = LIST.replace("name='scfs'", "name='dino-8'")
    changed = text.replace("config='dino.py'", "config='scfs.py'")
    Path('list.py').write_text(changed)
    tool.load.cache_clear()
    assert sweep(tool, *one, *options) == 2
    assert "of dino=['dino'], not ['scfs']" in capsys.readouterr().err
    assert commands.calls == DINO
    # One more variant changes nothing for them.
    Path('list.py').write_text(text)
    tool.load.cache_clear()
    assert sweep(tool, '--variants', 'dino-8', *options, '--dry-run') == 0


def test_settings_go_to_the_configs_that_have_their_part(tool, commands):
    options = (
        *('--cfg-options', 'model.search_neck.x=1', 'train_cfg.max_epochs=4'),
        'model.norm.type=BN',
        *('--eval-cfg-options', 'test_dataloader.dataset.data_root=d'),
        'test_cfg.bank_dataloader.dataset.data_root=d',
        'train_dataloader.dataset.data_root=d',
        'train_cfg.max_epochs=1',
    )
    assert sweep(tool, *options) == 0
    own = [
        {word.split('=')[0] for word in command if '=' in word}
        for command in commands.commands
    ]
    train = {'train_cfg.max_epochs', 'model.norm.type', 'randomness.seed'}
    knn = {
        'test_dataloader.dataset.data_root',
        'test_cfg.bank_dataloader.dataset.data_root',
    }
    linear = {
        'test_dataloader.dataset.data_root',
        'train_dataloader.dataset.data_root',
        'train_cfg.max_epochs',
    }
    both = {'model.search_neck.x', 'data.pipeline.1.num_local'}
    assert own == [train, knn, linear, train | both, knn, linear]
    assert Path('work/scfs/epoch_4.knn.json').is_file()


def test_refusals(tool, commands, capsys):
    for words, problem in (
        (['--variants', 'moco'], '--variants moco: list.py has dino, scfs'),
        (['--table-only'], '--work-dir work has no sweep.json'),
    ):
        assert sweep(tool, *words) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ')
        assert problem in error
    assert sweep(tool, '--variants', 'dino', '--skip-evaluations') == 0
    Path('work/sweep.md').unlink()
    Path('work/sweep.md').mkdir()
    assert sweep(tool, '--table-only') == 1
    assert 'error: --work-dir work: ' in capsys.readouterr().err
