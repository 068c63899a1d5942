# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/train.py as a user types it; tests/test_tools/test_processes.py and
test_transfer.py have its launchers."""

import re
import shutil
from types import SimpleNamespace

import pytest
import toy_runs
from commands import ROOT, call, refusal
from mmengine.config import Config

TRAIN = ('tools/train.py', 'configs/scfs_r50.py')
LOSS = re.compile(r'Epoch\(train\).*\[(\d+)\]\[(\d+)/\d+\].* loss: (\S+)')


@pytest.fixture
def small_options(image_folder, tmp_path):
    """Options that shrink configs/scfs_r50.py to seconds."""
    return [
        f'--work-dir={tmp_path / "work"}',
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


def losses(text):
    return {(e, i): loss for e, i, loss in LOSS.findall(text)}


def test_one_command_trains_and_one_more_resumes(small_options, tmp_path):
    two_epochs = [*small_options, 'train_cfg.max_epochs=2']
    whole = call(*TRAIN, *two_epochs)
    assert whole.returncode == 0, whole.output
    whole = losses(whole.output)
    assert len(whole) == 8
    work = tmp_path / 'work'
    names = {path.name for path in work.glob('*.pth')}
    assert names == {'epoch_1.pth', 'epoch_2.pth'}
    # Without --resume it would train all that again, over these.
    before = {path: path.read_bytes() for path in work.rglob('*.*')}
    error = refusal(*TRAIN, *two_epochs)
    assert error.startswith(f'error: --work-dir {str(work)!r} has the check')
    assert before == {path: path.read_bytes() for path in work.rglob('*.*')}
    (work / 'epoch_2.pth').unlink()
    (work / 'last_checkpoint').write_text(str(work / 'epoch_1.pth'))
    resumed = call(*TRAIN, '--resume', *two_epochs)
    assert resumed.returncode == 0, resumed.output
    second = {key: loss for key, loss in whole.items() if key[0] == '2'}
    assert losses(resumed.output) == second
    assert 'change nothing' not in resumed.output
    # Nothing is left to train.
    before = {path: path.read_bytes() for path in work.rglob('*.*')}
    done = call(*TRAIN, '--resume', *two_epochs)
    assert done.returncode == 0
    assert done.output.startswith('This run has finished already: 2 of 2 ep')
    assert before == {path: path.read_bytes() for path in work.rglob('*.*')}
    lower = 'optim_wrapper.optimizer.lr=0.001'
    longer = [*small_options, 'train_cfg.max_epochs=3', lower]
    resumed = call(*TRAIN, '--resume', *longer)
    text = f'{lower} (saved: 0.1), param_scheduler.1.end=3 (saved: 2). To'
    assert f'change nothing: {text}' in resumed.output
    assert 'warning: train_cfg.max_epochs=3 (saved: 2)' in resumed.output
    assert 'fitted' not in resumed.output


def test_options_reach_the_config(small_options, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    options = ['--seed', '7', '--auto-scale-lr', '--precision', 'bf16']
    options.append('--work-dir=~/home')
    done = call(*TRAIN, *options, *small_options[1:])
    assert done.returncode == 0, done.output
    cfg = Config.fromfile(tmp_path / 'home' / 'scfs_r50.py')
    assert cfg.randomness.seed == 7
    assert cfg.auto_scale_lr.enable
    assert cfg.optim_wrapper.precision == 'bf16'
    assert '  precision    bf16\n' in done.output
    # 4 images instead of 256.
    assert 'Scaling the original LR by 0.015625.' in done.output
    # The schedules follow the length.
    (log,) = (tmp_path / 'home').glob('*/*.log')
    changed = 'begin 10 -> 0.5, end 200 -> 1, for train_cfg.max_epochs=1 '
    assert changed in log.read_text()
    assert 'collapse_monitor, begin + window = 1200, is beyond' in done.output


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (
            [TRAIN[1], '--launcher', 'slurm'],
            '--launcher=slurm: SLURM_PROCID is not set: start the run by '
            'tools/slurm_train.sh',
        ),
        ([TRAIN[1], '--resume', '--overwrite'], 'mutually exclusive'),
        ([TRAIN[1], '--network=teacher'], '--network requires'),
        ([TRAIN[1], '--amp', '--precision=bf16'], 'not allowed with argument'),
        (
            [
                *(TRAIN[1], '--precision=bf16', '--cfg-options'),
                'optim_wrapper.precision=fp16',
            ],
            '--precision bf16 sets optim_wrapper.precision, and',
        ),
    ],
)
def test_wrong_options_are_named(words, message, tmp_path):
    assert message in refusal(TRAIN[0], *words, f'--work-dir={tmp_path}')


def test_a_rate_without_its_batch_size_is_named(tmp_path):
    config = tmp_path / 'own.py'
    config.write_text('train_cfg = dict(max_epochs=1)\nmodel = dict()\n')
    error = refusal(TRAIN[0], config, '--auto-scale-lr')
    assert 'auto_scale_lr.base_batch_size, the' in error


def test_missing_data_are_named(small_options, tmp_path):
    missing = f'train_dataloader.dataset.data_root={tmp_path}/missing'
    error = refusal(*TRAIN, *small_options, missing)
    assert f"dataset.data_root: no folder '{tmp_path}/missing': " in error
    error = refusal(*TRAIN, *small_options, 'model.type=SCSF')
    assert error.startswith('error: SCSF is not in the mmpretrain::model regi')


def test_an_error_after_the_first_step_keeps_its_traceback(
    small_options, tmp_path, monkeypatch
):
    (tmp_path / 'fails.py').write_text(
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n'
        '@HOOKS.register_module()\n'
        'class FailingHook(Hook):\n'
        '    def after_train_iter(self, *_, **__):\n'
        '        raise ValueError("after the first step")\n'
    )
    config = tmp_path / 'own.py'
    config.write_text(
        f"_base_ = ['{ROOT}/configs/scfs_r50.py']\n"
        "custom_imports = dict(imports=['mmscfs', 'fails'])\n"
        "custom_hooks = [dict(type='FailingHook')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match='after the first step'):
        call(TRAIN[0], config, *small_options)


COUNTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """Return what train.py would resume from, in tmp_path/work."""
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmpretrain'\nmodel = dict(type='A')")
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    cfgs = []

    def keep(cfg, changes):
        cfgs.append(cfg)
        return SimpleNamespace(train=list)

    monkeypatch.setattr('mmscfs.engine.screen.build_runner', keep)

    def choose(*options, **counts):
        counts = dict.fromkeys(COUNTS, '0') | counts
        options = [f'--work-dir={tmp_path / "work"}', *options]
        done = call(TRAIN[0], config, *options, **counts)
        if done.returncode:
            return done.returncode
        return cfgs[-1].resume, cfgs[-1].load_from

    return choose


def test_a_restart_resumes_from_the_newest_or_from_what_was_named(
    chosen, tmp_path
):
    whole, _ = toy_runs.run(toy_runs.toy_cfg(tmp_path / 'whole'))
    named, work = tmp_path / 'named.pth', tmp_path / 'work'
    shutil.copy(f'{whole.work_dir}/iter_4.pth', named)
    restart, slurm = ({count: '1'} for count in COUNTS)
    # Lost before its first save.
    assert chosen('--resume', named) == (True, str(named))
    assert chosen('--resume', named, **restart) == (True, str(named))
    assert chosen('--resume', **slurm) == (True, None)
    work.mkdir(exist_ok=True)
    newest = shutil.copy(f'{whole.work_dir}/iter_8.pth', work)
    (work / 'last_checkpoint').write_text(str(newest))
    assert chosen('--resume', named) == (True, str(named))
    assert chosen('--resume', named, **restart) == (True, str(newest))
    named.unlink()  # an outdated one may be removed
    assert chosen('--resume', named, **slurm) == (True, str(newest))
    assert chosen('--resume', named) == 2


@pytest.mark.parametrize(
    ('text', 'path'),
    [
        *((p, p) for p in ('2024', '1e3', 'True', '[1]', '(a)', "it's")),
        ('run 1,day 2', 'run 1,day 2'),
        ('a=b', 'a=b'),
        ("'2024'", '2024'),
        ("''", ''),
        ('"', '"'),
        ('None', None),  # which unsets it
    ],
)
def test_a_path_is_a_text(monkeypatch, text, path):
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    from command_line import read_settings

    key = 'train_dataloader.dataset.data_root'
    words = [f'{key}={text}', 'train_cfg.max_epochs=2', 'a=1,2']
    assert read_settings(words) == {
        key: path,
        'train_cfg.max_epochs': 2,
        'a': [1, 2],
    }
