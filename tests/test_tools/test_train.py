# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The launchers as a user types them."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import toy_runs
from mmengine.config import Config
from processes_that_meet import free_port

ROOT = Path(__file__).parent.parent.parent
LOSS = re.compile(r'Epoch\(train\).*\[(\d+)\]\[(\d+)/\d+\].* loss: (\S+)')


@pytest.fixture
def small_options(image_folder, tmp_path):
    """Options that shrink configs/scfs_r50.py to seconds."""
    return [
        '--work-dir',
        str(tmp_path / 'work'),
        '--cfg-options',
        f'train_dataloader.dataset.data_root={image_folder}',
        'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0',
        'multi_crop.global_size=32',
        'multi_crop.local_size=32',
        'multi_crop.num_local=2',
        'model.backbone.depth=18',
        'model.backbone.stem_channels=8',
        'model.backbone.base_channels=8',
        'model.neck.in_channels=64',
        'model.neck.num_prototypes=64',
        'model.neck.hidden_channels=16',
        'model.search_neck.in_channels=[16,32,64]',
        'model.search_neck.mid_channels=4',
        'model.search_neck.hidden_channels=16',
        'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.interval=1',
    ]


def run(command, **environment):
    """Run a command in the repository; return the finished process."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def train(*options):
    return run(
        [sys.executable, 'tools/train.py', 'configs/scfs_r50.py', *options]
    )


def losses(process):
    output = process.stdout + process.stderr
    return {(e, i): loss for e, i, loss in LOSS.findall(output)}


def test_one_command_trains_and_one_more_resumes(small_options, tmp_path):
    whole = train(*small_options, 'train_cfg.max_epochs=2')
    assert whole.returncode == 0, whole.stderr
    work = tmp_path / 'work'
    assert {p.name for p in work.glob('*.pth')} == {
        'epoch_1.pth',
        'epoch_2.pth',
    }
    assert len(losses(whole)) == 8
    # Without --resume it would train all that again, over these.
    before = {path: path.read_bytes() for path in work.rglob('*.*')}
    again = train(*small_options, 'train_cfg.max_epochs=2')
    assert again.returncode == 1
    assert f'error: --work-dir {str(work)!r} has the check' in again.stderr
    assert before == {path: path.read_bytes() for path in work.rglob('*.*')}
    (work / 'epoch_2.pth').unlink()
    (work / 'last_checkpoint').write_text(str(work / 'epoch_1.pth'))
    resumed = train('--resume', *small_options, 'train_cfg.max_epochs=2')
    assert resumed.returncode == 0, resumed.stderr
    assert losses(resumed) == {
        key: loss for key, loss in losses(whole).items() if key[0] == '2'
    }
    assert 'change nothing' not in resumed.stderr
    lower = 'optim_wrapper.optimizer.lr=0.001'
    resumed = train(
        '--resume', *small_options, 'train_cfg.max_epochs=3', lower
    )
    assert f'change nothing: {lower} (saved: 0.1)' in resumed.stderr
    assert 'max_epochs=3 is more than the 2 ' in resumed.stderr


def test_two_processes_on_cpu(small_options, tmp_path):
    process = run(
        [
            'bash',
            'tools/dist_train.sh',
            'configs/scfs_r50.py',
            '2',
            *small_options,
        ],
        PYTHON=sys.executable,
        PORT=str(free_port()),
    )
    assert process.returncode == 0, process.stderr[-3000:]
    # 16 images, 2 processes with 4 each: two iterations.
    assert set(losses(process)) == {('1', '1'), ('1', '2')}
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()


def test_options_reach_the_config(small_options, tmp_path):
    process = train('--seed', '7', '--auto-scale-lr', '--amp', *small_options)
    assert process.returncode == 0, process.stderr[-3000:]
    cfg = Config.fromfile(tmp_path / 'work' / 'scfs_r50.py')
    assert cfg.randomness.seed == 7
    assert cfg.auto_scale_lr.enable
    assert cfg.optim_wrapper.precision == 'auto'
    # 4 images instead of 256.
    output = process.stdout + process.stderr
    assert 'Scaling the original LR by 0.015625.' in output


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--resume', 'nowhere.pth'], "no checkpoint 'nowhere.pth'"),
        (['--launcher', 'slurm'], '--launcher=slurm needs GPUs'),
        (['--resume', '--overwrite'], 'mutually exclusive'),
    ],
)
def test_wrong_options_are_named(options, message):
    process = train(*options)
    assert process.returncode != 0
    assert message in process.stderr


def test_a_rate_without_its_batch_size_is_named(tmp_path):
    config = tmp_path / 'own.py'
    config.write_text('train_cfg = dict(max_epochs=1)\nmodel = dict()\n')
    process = run(
        [sys.executable, 'tools/train.py', str(config), '--auto-scale-lr']
    )
    assert process.returncode == 1
    assert 'auto_scale_lr.base_batch_size, the' in process.stderr


def test_missing_config_and_missing_data_are_named(small_options, tmp_path):
    process = run([sys.executable, 'tools/train.py', 'configs/none.py'])
    assert process.returncode == 2
    assert "no config file 'configs/none.py'" in process.stderr
    process = train(
        *small_options,
        f'train_dataloader.dataset.data_root={tmp_path}/missing',
    )
    assert process.returncode != 0
    assert re.search(
        r"no folder '.*missing/train' .*point train_dataloader\.dataset\.",
        process.stderr,
    )


COUNTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """Return what train.py would resume from, in tmp_path/work."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    train = importlib.import_module('train')
    cfgs = []

    def keep(cfg):
        cfgs.append(cfg)
        return SimpleNamespace(train=list)

    monkeypatch.setattr(train, 'build_runner', keep)
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmpretrain'\nmodel = dict(type='A')")

    def choose(*options, **counts):
        words = [config, '--work-dir', tmp_path / 'work', *options]
        monkeypatch.setattr(sys, 'argv', ['train.py', *map(str, words)])
        for name in COUNTS:
            monkeypatch.setenv(name, counts.get(name, '0'))
        train.main()
        return cfgs[-1].resume, cfgs[-1].load_from

    return choose


@pytest.mark.parametrize('count', COUNTS)
def test_restart_goes_on_from_the_newest_or_from_what_was_named(
    count, chosen, tmp_path
):
    whole, _ = toy_runs.run(toy_runs.toy_cfg(tmp_path / 'whole'))
    named, work = tmp_path / 'named.pth', tmp_path / 'work'
    shutil.copy(f'{whole.work_dir}/iter_4.pth', named)
    restart = {count: '1'}
    # Lost before its first save.
    assert chosen('--resume', named) == (True, str(named))
    assert chosen('--resume', named, **restart) == (True, str(named))
    assert chosen('--resume', **restart) == (True, None)
    work.mkdir()
    newest = shutil.copy(f'{whole.work_dir}/iter_8.pth', work)
    (work / 'last_checkpoint').write_text(str(newest))
    assert chosen('--resume', named) == (True, str(named))
    assert chosen('--resume', named, **restart) == (True, str(newest))
    named.unlink()  # an outdated one may be removed
    assert chosen('--resume', named, **restart) == (True, str(newest))
    with pytest.raises(SystemExit) as error:
        chosen('--resume', named)
    assert error.value.code == 2


@pytest.mark.parametrize('script', ['dist_train.sh', 'slurm_train.sh'])
def test_launchers_explain_themselves(script):
    process = run(['bash', f'tools/{script}'])
    assert process.returncode == 2
    assert script in process.stderr
