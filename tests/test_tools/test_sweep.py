# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/sweep.py."""

import csv
import importlib
import json
import os
import runpy
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmscfs.results import Result, read_result, result_path, write_result

ROOT = Path(__file__).parents[2]
LIST = """
table = '7'
evaluations = ['knn.py', 'linear.py']
variants = [
    dict(name='dino', config='dino.py'),
    dict(
        name='scfs',
        config='scfs.py',
        cfg_options={'data.pipeline.1.num_local': 8},
    ),
]
"""
CONFIGS = dict(
    dino="""
model = dict(type='DINO', head=dict(type='DINOHead'))
data = dict(pipeline=[dict(type='LoadImage'), dict(type='MultiCrop')])
train_cfg = dict(max_epochs=3)
""",
    scfs="""
_base_ = ['dino.py']
model = dict(type='SCFS', search_neck=dict(type='FeatureSearchNeck'))
""",
    knn="""
test_dataloader = dict(dataset=dict(type='A'))
test_cfg = dict(type='KNNLoop', bank_dataloader=dict(dataset=dict(type='A')))
evaluation = dict(protocol='knn', dataset='in100')
""",
    linear="""
test_dataloader = dict(dataset=dict(type='A'))
train_dataloader = dict(dataset=dict(type='A'))
train_cfg = dict(max_epochs=2)
evaluation = dict(protocol='linear', dataset='in100')
""",
    finetune="""
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
train_cfg = dict(max_epochs=2)
val_evaluator = dict(type='Accuracy')
""",
    mask_rcnn="""
model = dict(type='MaskRCNN', backbone=dict(type='ResNet', depth=50))
train_cfg = dict(max_epochs=2)
val_dataloader = dict(dataset=dict(ann_file='mine.json'))
val_evaluator = dict(type='CocoMetric')
""",
)
SCORES = dict(dino=dict(knn=80.0, linear=86.0), scfs=dict(knn=84.0, linear=89))
PRETRAIN = ('dino', 'scfs')
# A process that needs a second to end.
SAVES = """
trap 'sleep 1; echo saved; exit 75' TERM
echo started
while :; do sleep 0.05; done
"""
STARTS = ('--resume', '--overwrite')


@pytest.fixture(scope='module')
def tool():
    """The command, as if it lay in the current folder."""
    sys.path.insert(0, str(ROOT / 'tools'))
    try:
        import sweep
        import sweep_report
    finally:
        sys.path.pop(0)
    assert sweep_report
    return sweep


class Commands:
    """What tools/train.py and test.py leave behind, and what was called."""

    def __init__(self):
        self.calls = []  # (work directory, how it starts)
        self.commands = []
        self.failing = set()  # work directories
        self.killed = {}  # work directory -> epoch it was saved at

    def __call__(self, command, log_file):
        folder = Path(command[command.index('--work-dir') + 1])
        name = str(folder.relative_to('work'))
        how = next((w for w in command if w in STARTS), None)
        following = command[command.index(how) + 1 :] if how else []
        if following and following[0].endswith('.pth'):
            assert Path(following[0]).is_file()
            how = Path(following[0]).name
        self.calls.append((name, how))
        self.commands.append(command)
        if name in self.failing:
            log_file.write('Traceback\nValueError: no such luck\n')
            log_file.flush()
            return 1
        stem = next(
            Path(w).stem
            for w in command
            if w.endswith('.py') and (Path(w).stem in CONFIGS)
        )
        options = dict(w.split('=', 1) for w in command if '=' in w)
        total = options.get(
            'train_cfg.max_epochs', 3 if stem in PRETRAIN else 2
        )
        if name in self.killed:
            save(folder, self.killed.pop(name))
            raise KeyboardInterrupt
        if stem != 'knn':
            save(folder, int(total))
        if stem in ('knn', 'linear'):
            evaluate(command, stem, folder)
        elif stem == 'mask_rcnn':
            detect(folder)
        return 0


def save(folder, epoch):
    """Save as mmengine's CheckpointHook does."""
    for number in range(1, epoch + 1):
        (folder / f'epoch_{number}.pth').touch()
    text = f'/elsewhere/epoch_{epoch}.pth'
    (folder / 'last_checkpoint').write_text(text)


def evaluate(command, protocol, folder):
    checkpoint = next(w for w in command if w.endswith('.pth'))
    run = Path(checkpoint).parent.name
    variant, _, seed = run.partition('_seed-')
    name = dict(knn='knn/top1', linear='accuracy/top1')[protocol]
    recipe = dict(num_local=8, local_scale=[0.05, 0.14])
    result = Result(
        protocol=protocol,
        dataset='in100',
        config=protocol,
        checkpoint=Path(checkpoint).name,
        network='teacher',
        pretraining=dict(
            method=variant.upper(),
            epochs=3,
            batch_size=256,
            dataset='imagenet100',
            **recipe,
        ),
        backbone='ResNet-50',
        metrics={name: SCORES[variant][protocol] + int(seed or 0)},
        settings={},
        work_dir=str(folder.absolute()),
        epoch=None,
    )
    write_result(result_path(checkpoint, protocol), result)


def detect(folder):
    log = folder / '20260101_000000' / 'vis_data'
    log.mkdir(parents=True, exist_ok=True)
    (log / 'config.py').write_text(CONFIGS['mask_rcnn'])
    lines = [
        dict(loss=1.0, iter=20, epoch=2, step=20),
        {'coco/bbox_mAP': 0.31, 'coco/segm_mAP': 0.28, 'step': 2},
    ]
    text = ''.join(f'{json.dumps(line)}\n' for line in lines)
    (log / 'scalars.json').write_text(text)


@pytest.fixture
def commands(tool, tmp_path, monkeypatch):
    """Fake commands, in a folder with list.py and what it names."""
    monkeypatch.chdir(tmp_path)
    Path('list.py').write_text(LIST)
    for name, text in CONFIGS.items():
        Path(f'{name}.py').write_text(text)
    sys.modules['sweep_list'].load_config.cache_clear()
    fake = Commands()
    monkeypatch.setattr(sys.modules['launch'], 'call', fake)
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


def test_commands(tool, commands):
    options = (
        '--cfg-options',
        'model.head.x=1',
        'data.pipeline.1.num_local=2',
    )
    assert sweep(tool, '--variants', 'scfs', '--seeds', 3, *options) == 0
    train, test, probe = (words[1:] for words in commands.commands)
    assert train == [
        str(ROOT / 'tools/train.py'),
        *('scfs.py', '--work-dir', 'work/scfs_seed-3', '--resume'),
        '--cfg-options',
        *('model.head.x=1', 'data.pipeline.1.num_local=2'),
        *('data.pipeline.1.num_local=8', 'randomness.seed=3'),
    ]
    start = ['--pretrained', 'work/scfs_seed-3/epoch_3.pth']
    assert test == [
        str(ROOT / 'tools/test.py'),
        *('knn.py', *start, '--work-dir', 'work/scfs_seed-3/knn'),
    ]
    assert probe == [
        str(ROOT / 'tools/train.py'),
        *('linear.py', *start, '--work-dir', 'work/scfs_seed-3/linear'),
        '--overwrite',
    ]


def test_commands_of_several_gpus(tool, commands, capsys):
    assert sweep(tool, '--variants', 'dino', '--gpus', 4, '--dry-run') == 0
    lines = capsys.readouterr().out.splitlines()
    start = 'work/dino/epoch_3.pth'
    assert lines == [
        f'{ROOT}/tools/dist_train.sh dino.py 4 --work-dir work/dino '
        '--resume --cfg-options randomness.seed=0',
        f'{ROOT}/tools/dist_test.sh knn.py {start} 4 --work-dir work/dino/knn',
        f'{ROOT}/tools/dist_train.sh linear.py 4 --pretrained {start} '
        '--work-dir work/dino/linear --overwrite',
    ]


def test_a_dry_run_touches_nothing(tool, commands, capsys):
    assert sweep(tool, '--dry-run') == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert commands.calls == []
    assert not Path('work').exists()
    # What is done is not shown.
    assert sweep(tool, '--variants', 'dino') == 0
    capsys.readouterr()
    assert sweep(tool, '--dry-run') == 0
    assert 'dino.py' not in capsys.readouterr().out


def test_a_killed_sweep_goes_on(tool, commands, capsys):
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


@pytest.mark.parametrize('name', ['sweep', 'grid'])
def test_sigterm_ends_both_tools(tool, commands, monkeypatch, capsys, name):
    """And leaves the handler from before in place."""
    monkeypatch.syspath_prepend(ROOT / 'tools')
    words = dict(sweep=['list.py'], grid=['finetune.py', '--lr', '0.1'])[name]
    before = signal.getsignal(signal.SIGTERM)

    def call(command, log):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr(sys.modules['launch'], 'call', call)
    main = importlib.import_module(name).main
    assert main([*words, '--work-dir', 'work']) == 130
    assert 'stopped' in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_failed_variant_is_named_and_the_others_go_on(
    tool, commands, capsys
):
    commands.failing = {'dino', 'scfs/knn'}
    assert sweep(tool) == 1
    assert [name for name, _ in commands.calls] == [
        'dino',
        'scfs',
        'scfs/knn',
        'scfs/linear',
    ]
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
    assert [name for name, _ in commands.calls] == [
        'dino',
        'dino/knn',
        'dino/linear',
        'scfs/knn',
    ]


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


def test_other_data_have_a_table_of_their_own(
    tool, commands, monkeypatch, capsys
):
    write = write_result

    def write_mine(path, result):
        write(path, result._replace(dataset='mine'))

    monkeypatch.setitem(globals(), 'write_result', write_mine)
    assert sweep(tool) == 0
    text = Path('work/sweep.md').read_text()
    assert '## mine' in text
    assert 'paper (Table' not in text


def test_detection_stands_beside(tool, commands):
    text = LIST + "detection = ['mask_rcnn.py']\n"
    Path('list.py').write_text(text)
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
    Path('list.py').write_text(
        text.replace("config='dino.py'", "config='scfs.py'")
    )
    sys.modules['sweep_list'].load_config.cache_clear()
    assert sweep(tool, *one, *options) == 2
    error = capsys.readouterr().err
    assert "holds the sweep of dino={'config': 'dino', 'cfg_options'" in error
    assert len(commands.calls) == count
    # A variant more is none of their business.
    Path('list.py').write_text(text)
    sys.modules['sweep_list'].load_config.cache_clear()
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


def test_slurm_has_a_job_a_variant(tool, commands, monkeypatch, capsys):
    words = ('--gpus', 2, '--slurm', 'gpu', '--seeds', 0, 1)
    options = ('--cfg-options', 'a=[1,2]', 'b=c d')
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
    assert given[9:17] == [
        '--parsable',
        '--partition=gpu',
        '--job-name=list_scfs',
        '--nodes=1',
        '--ntasks=1',
        '--gres=gpu:2',
        '--cpus-per-task=18',
        '--output=work/slurm_scfs_%j.log',
    ]
    # The job, then the table.
    job = shlex.split(given[17].removeprefix('--wrap='))
    assert job[:3] == ['exec', sys.executable, str(ROOT / 'tools/sweep.py')]
    assert tool.main(job[3:]) == 0
    names = [name for name, _ in commands.calls]
    assert names[::3] == ['scfs', 'scfs_seed-1']
    capsys.readouterr()
    assert sweep(tool, '--table-only') == 1
    assert '85.0' not in capsys.readouterr().err
    assert read_csv()[0][1:3] == ('84.0', '89.0')
    assert sweep(tool, *words, *options, '--variants', 'scfs') == 0
    assert 'everything is done' in capsys.readouterr().out


def test_without_slurm(tool, commands, monkeypatch, capsys):
    monkeypatch.setenv('PATH', '')
    assert sweep(tool, '--gpus', 2, '--slurm', 'gpu') == 2
    assert 'no sbatch on the PATH' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('old', 'new', 'problem'),
    [
        ("'7'", "'3'", "table='3' must be one of '1', '2', "),
        ('variants', 'varieties', 'variants=None must be a list'),
        ("'scfs.py'", "'no.py'", "no config 'no.py'"),
        ("'knn.py'", "'no.py'", "no config 'no.py'"),
        ("'scfs.py'", "'knn.py'", 'knn.py has no train_cfg'),
        ("name='scfs'", "name='dino'", 'two variants have name=dino'),
        ("name='scfs'", "name='a/b'", "name='a/b' must be a word"),
        ("name='scfs'", "name='a_seed-1'", '"_seed-", which names seeds'),
        ('cfg_options', 'options', 'options is unknown: use name, config, '),
        ("'linear.py'", "'./knn.py'", 'two evaluations have the same name'),
        (': 8', ": '8'", "num_local='8' cannot be given to"),
        ('pipeline.1', 'pipeline.5', 'Index 5 exceeds the length'),
    ],
)
def test_bad_lists(tool, commands, capsys, old, new, problem):
    assert old in LIST
    Path('list.py').write_text(LIST.replace(old, new))
    assert sweep(tool) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: list.py: ')
    assert problem in error
    assert not Path('work').exists()


@pytest.mark.parametrize(
    ('words', 'error'),
    [
        (['--seeds', -1], '--seeds -1 must be 0 or more'),
        (['--gpus', 0], '--gpus: 0 must be 1 or more'),
        (['--slurm', 'gpu'], '--slurm needs --gpus'),
        (['--slurm', 'gpu', '--gpus', 2, '--table-only'], 'leave out --slurm'),
        (['--cfg-options', 'a'], "'a' is not KEY=VALUE, e.g. "),
    ],
)
def test_bad_arguments(tool, commands, capsys, words, error):
    with pytest.raises(SystemExit) as caught:
        sweep(tool, *words)
    assert caught.value.code == 2
    assert error in capsys.readouterr().err


def test_unknown_variant_and_nothing_to_gather(tool, commands, capsys):
    assert sweep(tool, '--variants', 'moco') == 2
    assert '--variants moco: list.py has dino, scfs' in capsys.readouterr().err
    assert sweep(tool, '--table-only') == 2
    assert 'has no sweep.json' in capsys.readouterr().err


def test_a_log_in_use_is_not_started_twice(tool, tmp_path):
    """Nor after a kill that left the process running."""
    launch = sys.modules['launch']
    log = tmp_path / 'train.log'
    with open(log, 'a') as file:
        launch.fcntl.flock(file, launch.fcntl.LOCK_EX)
        process = subprocess.Popen(['sleep', '60'], stdout=file)
    problem = launch.run_logged(['true'], log)
    assert problem == f'it is running already, and writes to {log}'
    process.kill()
    process.wait()
    assert launch.run_logged(['true'], log) == ''


def test_a_terminated_tool_ends_its_command(tmp_path):
    """As on a cluster whose time is up, and waits for it: it saves first."""
    log = tmp_path / 'train.log'
    code = (
        'import signal, launch\nfrom pathlib import Path\n'
        'signal.signal(signal.SIGTERM, signal.default_int_handler)\n'
        f'launch.run_logged(["sh", "-c", {SAVES!r}], Path({str(log)!r}))\n'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code],
        env=dict(os.environ, PYTHONPATH=str(ROOT / 'tools')),
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (log.is_file() and log.read_text().endswith('\n')):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    assert log.read_text().endswith('saved\n')


# Through the real commands


def test_two_variants_through_k_nn(tool, tmp_path, monkeypatch):
    """The command lines, checkpoints and results of the real tools."""
    from classification_data import draw

    root = tmp_path / 'data'
    for split in ('train', 'val'):
        for i in range(8):
            draw(root / split / str(i // 4) / f'{i}.jpg', i // 4, i)

    def run(command, _):
        monkeypatch.setattr(sys, 'argv', command[1:])
        monkeypatch.syspath_prepend(ROOT / 'tools')
        runpy.run_path(command[1], run_name='__main__')
        return 0

    monkeypatch.setattr(sys.modules['launch'], 'call', run)
    words = [str(ROOT / 'configs/sweeps/contrast-modes_digits.py')]
    words += ['--work-dir', str(tmp_path / 'work'), '--variants']
    words += ['dino', 'scfs-wo-mc-alone', '--cfg-options']
    words += [
        f'train_dataloader.dataset.data_root={root}',
        'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0',
        'multi_crop.global_size=32',
        'model.neck.hidden_channels=16',
        'model.backbone.stem_channels=8',
        'model.backbone.base_channels=8',
        'train_cfg.max_epochs=1',
        '--eval-cfg-options',
        f'test_dataloader.dataset.data_root={root}',
        f'test_cfg.bank_dataloader.dataset.data_root={root}',
        'test_dataloader.num_workers=0',
        'test_cfg.bank_dataloader.num_workers=0',
        'test_cfg.ks=[1]',
        'model.backbone.stem_channels=8',
        'model.backbone.base_channels=8',
    ]
    assert tool.main(words) == 0
    text = (tmp_path / 'work/sweep.md').read_text()
    ours = [line.strip('|* ') for line in text.splitlines() if '**' in line]
    modes = ['DINO (data)', 'SCFS w/o MC, search alone (data)']
    # By layer, and of the last one.
    assert [line.split('**')[0] for line in ours] == [*modes, *modes]
    content = json.loads((tmp_path / 'work/sweep.json').read_text())
    for run_ in content['runs']:
        assert run_['checkpoint'] == 'epoch_1.pth'
        assert 0 <= run_['scores']['knn_resnet18-w16_digits'] <= 100
    # The search between global views is all that moved the student.
    dumped = tmp_path / 'work/scfs-wo-mc-alone'
    (log,) = dumped.glob('*/vis_data/scalars.json')
    losses = json.loads(log.read_text().splitlines()[0])
    terms = {k: v for k, v in losses.items() if k.startswith('loss_')}
    assert {k for k, v in terms.items() if v} == {
        f'loss_layer{i}_search' for i in (2, 3, 4)
    }
