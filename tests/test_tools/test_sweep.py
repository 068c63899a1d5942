# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/sweep.py with stand-ins for what it runs."""

import csv
import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from sweep_runs import CONFIGS, LIST, Commands

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
    write_list(LIST)
    fake = Commands()
    monkeypatch.setattr('launch.call', fake)
    return fake


def write_list(text):
    Path('list.py').write_text(text)
    importlib.import_module('sweep_list').load_config.cache_clear()


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


ALL = [
    ('dino', '--resume'),
    ('dino/knn', None),
    ('dino/linear', '--overwrite'),
    ('scfs', '--resume'),
    ('scfs/knn', None),
    ('scfs/linear', '--overwrite'),
]
TABLE = [
    ('DINO (imagenet100)', '80.0', '86.0', 'this run (dino)'),
    ('SCFS (imagenet100)', '84.0', '89.0', 'this run (scfs)'),
]


def test_a_sweep_ends_with_the_papers_table(tool, commands, capsys):
    assert sweep(tool) == 0
    assert commands.calls == ALL
    assert read_csv() == TABLE
    text = Path('work/sweep.md').read_text()
    assert '| DINO w ML | 256 | 200 | 82.2 | 87.4 | paper (Table 7) |' in text
    assert '| **SCFS (imagenet100)** | **256** | **3** | **84.0** |' in text
    assert 'Not scored' not in text
    printed = capsys.readouterr().out
    assert 'scfs, knn: 84.00' in printed
    assert 'SCFS (imagenet100)' in printed
    content = json.loads(Path('work/sweep.json').read_text())
    assert content['variants']['scfs'] == dict(
        config='scfs', cfg_options=['data.pipeline.1.num_local=8']
    )
    assert content['runs'][1] == dict(
        variant='scfs',
        seed=0,
        work_dir='scfs',
        checkpoint='epoch_3.pth',
        scores=dict(knn=84.0, linear=89.0),
        problems={},
    )
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
        f'--work-dir {work}/linear --overwrite',
    ]
    assert sweep(tool, *one, '--gpus', 4) == 0
    tools = f'{ROOT}/tools'
    assert capsys.readouterr().out.splitlines() == [
        f'{tools}/dist_train.sh scfs.py 4 --work-dir {work} --resume '
        f'{settings}',
        f'{tools}/dist_test.sh knn.py {start} 4 --work-dir {work}/knn',
        f'{tools}/dist_train.sh linear.py 4 --pretrained {start} '
        f'--work-dir {work}/linear --overwrite',
    ]
    assert commands.calls == []
    assert not Path('work').exists()
    # What is done is not shown.
    assert sweep(tool, '--variants', 'dino') == 0
    capsys.readouterr()
    assert sweep(tool, '--dry-run') == 0
    assert 'dino.py' not in capsys.readouterr().out


def test_a_killed_sweep_continues(tool, commands, capsys):
    commands.killed = {'scfs': 2}
    assert sweep(tool) == 130
    assert 'the same command continues' in capsys.readouterr().err
    Path('work/scfs/epoch_3.pth').write_text('torn')
    commands.killed = {'scfs/linear': 1}
    commands.calls.clear()
    assert sweep(tool) == 130
    assert commands.calls == ALL[3:]
    commands.calls.clear()
    assert sweep(tool) == 0
    assert commands.calls == [('scfs/linear', '--resume')]
    assert read_csv() == TABLE


def test_a_run_that_saved_itself_is_resumed(tool, commands):
    """A signal leaves interrupted.pth, newer than the last epoch."""
    commands.killed = {'dino': 2, 'dino/linear': 1}
    for folder in ('dino', 'dino/linear'):
        assert sweep(tool, '--variants', 'dino') == 130
        work = Path('work', folder)
        (work / 'interrupted.pth').touch()
        (work / 'last_checkpoint').write_text('/elsewhere/interrupted.pth')
    assert sweep(tool, '--variants', 'dino') == 0
    assert commands.calls == [
        ('dino', '--resume'),
        ('dino', '--resume'),
        ('dino/knn', None),
        ('dino/linear', '--overwrite'),
        ('dino/linear', '--resume'),
    ]


def test_a_failed_variant_is_named_and_the_others_run(tool, commands, capsys):
    commands.failing = {'dino', 'scfs/knn'}
    assert sweep(tool) == 1
    names = [name for name, _ in commands.calls]
    assert names == ['dino', 'scfs', 'scfs/knn', 'scfs/linear']
    problems = [
        f'{step}: exit code 1: ValueError: no such luck (full log: {log})'
        for step, log in (
            ('dino, pre-training', 'work/dino/train.log'),
            ('scfs, knn', 'work/scfs/knn/test.log'),
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
    assert '- dino, pre-training: not started' not in text
    assert 'ValueError: no such luck (full log: work/dino/train.log)' in text
    commands.failing = set()
    commands.calls.clear()
    assert sweep(tool) == 0
    names = [name for name, _ in commands.calls]
    assert names == ['dino', 'dino/knn', 'dino/linear', 'scfs/knn']


def test_evaluations_are_repeated_for_another_checkpoint(tool, commands):
    assert sweep(tool, '--variants', 'scfs') == 0
    for path in (
        *Path('work/scfs').glob('*.json'),
        *Path('work/scfs/linear').iterdir(),
    ):
        os.utime(path, (1e9, 1e9))
    commands.calls.clear()
    assert sweep(tool, '--variants', 'scfs') == 0
    # And from the beginning.
    assert commands.calls == ALL[4:]


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
    assert commands.calls == [('scfs/linear', 'epoch_1.pth')]


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
    # Gathering finds the seeds that there are.
    Path('work/sweep.csv').unlink()
    assert sweep(tool, '--table-only') == 1
    assert [row[1:] for row in read_csv()[:3]] == expected
    text = Path('work/sweep.md').read_text()
    assert '- dino, pre-training: not started' in text


def test_other_data_have_their_own_table(tool, commands):
    commands.dataset = 'mine'
    assert sweep(tool) == 0
    text = Path('work/sweep.md').read_text()
    assert '## mine' in text
    assert 'paper (Table' not in text


def test_detection_stands_beside(tool, commands):
    write_list(LIST + "detection = ['mask_rcnn.py']\n")
    assert sweep(tool, '--variants', 'dino') == 0
    assert commands.calls[-1] == ('dino/mask_rcnn', '--overwrite')
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
    assert commands.calls == ALL[:1]
    # Those of the evaluations may still be chosen.
    options = ('--eval-cfg-options', 'test_cfg.ks=[1]')
    assert sweep(tool, *one, *options) == 0
    count = len(commands.calls)
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
    write_list(text.replace("config='dino.py'", "config='scfs.py'"))
    assert sweep(tool, *one, *options) == 2
    error = capsys.readouterr().err
    assert "holds the sweep of dino={'config': 'dino', 'cfg_options'" in error
    assert len(commands.calls) == count
    # One more variant changes nothing for them.
    write_list(text)
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


def test_slurm_has_a_job_for_each_variant(tool, commands, monkeypatch, capsys):
    words = ('--gpus', 2, '--slurm', 'gpu', '--seeds', 0, 1)
    # Nothing of them may reach the shell that sbatch hands --wrap to.
    options = ('--cfg-options', 'a=[1,2]', 'b=c d', "c='$(touch x)'", 'd=;e*')
    assert sweep(tool, *words, *options, '--dry-run') == 0
    expected = capsys.readouterr().out
    assert not Path('work').exists()
    Path('bin').mkdir()
    script = Path('bin/sbatch')
    script.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" >> calls\ncase "$*" in *_dino*) '
        'echo "no such partition" >&2; exit 1;; esac\necho 17\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv('PATH', f'bin:{os.environ["PATH"]}')
    assert sweep(tool, *words, *options) == 1
    printed = capsys.readouterr()
    assert printed.out == 'scfs: job 17\n'
    assert printed.err == 'dino: no such partition\n'
    lines = Path('calls').read_text().splitlines()
    given = [line for line in lines if line.startswith('--')]
    assert [['sbatch', *given[:9]], ['sbatch', *given[9:]]] == [
        shlex.split(line) for line in expected.splitlines()
    ]
    assert ' '.join(given[9:17]) == (
        '--parsable --partition=gpu --job-name=list_scfs --nodes=1 --ntasks=1 '
        '--gres=gpu:2 --cpus-per-task=18 --output=work/slurm_scfs_%j.log'
    )
    wrapped = given[17].removeprefix('--wrap=exec ')
    print_words = ['sh', '-c', f'printf "%s\\n" {wrapped}']
    job = subprocess.check_output(print_words, text=True).splitlines()
    assert job[:2] == [sys.executable, str(ROOT / 'tools/sweep.py')]
    assert job[-4:] == [*options[1:]]
    assert tool.main(job[2:]) == 0
    names = [name for name, _ in commands.calls]
    assert names[::3] == ['scfs', 'scfs_seed-1']
    capsys.readouterr()
    assert sweep(tool, *words, *options, '--variants', 'scfs') == 0
    assert 'everything is done' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'problem'),
    [
        (['--gpus', 2, '--slurm', 'gpu'], '--slurm: no sbatch on the PATH'),
        (['--variants', 'moco'], '--variants moco: list.py has dino, scfs'),
        (['--table-only'], '--work-dir work has no sweep.json'),
    ],
)
def test_refusals(tool, commands, monkeypatch, capsys, words, problem):
    monkeypatch.setenv('PATH', '')
    assert sweep(tool, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert problem in error


def test_a_table_that_cannot_be_written(tool, commands, capsys):
    assert sweep(tool, '--variants', 'dino', '--skip-evaluations') == 0
    Path('work/sweep.md').unlink()
    Path('work/sweep.md').mkdir()
    assert sweep(tool, '--table-only') == 1
    assert 'error: --work-dir work: ' in capsys.readouterr().err
