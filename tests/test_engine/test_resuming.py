# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Which checkpoint a run resumes from."""

import os
import shutil

import pytest
import torch
from mmengine.config import Config
from toy_runs import run, toy_cfg

from mmscfs.checkpoint import read_checkpoint
from mmscfs.engine import check_work_dir, choose_checkpoint
from mmscfs.engine.hooks import PlainCheckpointHook


@pytest.fixture
def runs(tmp_path):
    """Checkpoints of the iterations 4, 8 and 12; weights alone of 99."""

    def save(name, iteration, **parts):
        torch.save(
            dict(meta=dict(iter=iteration, epoch=0), state_dict={}, **parts),
            tmp_path / name,
        )

    run = dict(optimizer={}, message_hub=dict(log_scalars={}))
    save('iter_8.pth', 8, **run)  # neither dates nor names say the order
    save('interrupted.pth', 12, **run)
    save('iter_4.pth', 4, **run)
    save('best_epoch_3.pth', 99)
    (tmp_path / 'last_checkpoint').write_text(
        str(tmp_path / 'interrupted.pth')
    )
    return tmp_path


def chosen(folder, **settings):
    cfg = Config(dict(resume=True, work_dir=str(folder), **settings))
    choose_checkpoint(cfg)
    return cfg.load_from


def flip(path):
    """Damage one byte of the first part's content."""
    content = bytearray(path.read_bytes())
    content[content.index(b'state_dict') + 1] ^= 1
    path.write_bytes(content)


def tear(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_the_last_one_that_was_saved(runs, capsys):
    assert chosen(runs) == str(runs / 'interrupted.pth')
    (runs / 'last_checkpoint').write_text(str(runs / 'iter_4.pth'))
    assert chosen(runs) == str(runs / 'iter_4.pth')
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('damage', [flip, tear, lambda p: p.write_bytes(b'')])
def test_damaged_last_one(runs, damage, capsys):
    damage(runs / 'interrupted.pth')
    assert chosen(runs) == str(runs / 'iter_8.pth')
    warning = capsys.readouterr().err
    assert warning.startswith('warning: ')
    assert 'interrupted.pth' in warning
    assert 'damaged' in warning
    assert f"Resuming from '{runs / 'iter_8.pth'}'" in warning
    tear(runs / 'iter_8.pth')
    assert chosen(runs) == str(runs / 'iter_4.pth')


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        (None, 'is missing'),
        ('', 'is empty'),
        ('/nowhere/epoch_9.pth', "names '/nowhere/epoch_9.pth', which is mis"),
        ('\x00\ufffd', 'which is missing'),
    ],
)
def test_note_of_the_last_one(runs, text, problem, capsys):
    note = runs / 'last_checkpoint'
    note.unlink() if text is None else note.write_text(text)
    assert chosen(runs) == str(runs / 'interrupted.pth')
    assert problem in capsys.readouterr().err


def test_work_directory_that_was_moved(runs):
    (runs / 'last_checkpoint').write_text('/before/iter_8.pth')
    assert chosen(runs) == str(runs / 'iter_8.pth')


def test_work_directory_that_was_copied(runs, tmp_path):
    copy = shutil.copytree(runs, tmp_path / 'copy')
    assert chosen(copy) == str(copy / 'interrupted.pth')


def test_nothing_to_resume_from_starts_anew(runs, tmp_path):
    assert chosen(tmp_path / 'empty') is None
    # A best checkpoint before the first of the run, and an export.
    for path in (*runs.glob('i*.pth'), runs / 'last_checkpoint'):
        path.unlink()
    torch.save(dict(state_dict={}), runs / 'backbone.pth')
    assert chosen(runs) is None
    (runs / 'last_checkpoint').write_text('/nowhere/epoch_9.pth')
    with pytest.raises(ValueError, match='no whole checkpoint'):
        chosen(runs)


def test_a_drawn_seed_is_taken_again(tmp_path):
    """mmengine would build the sampler with another one."""
    cfg = toy_cfg(tmp_path / 'whole')
    cfg.pop('randomness')
    whole, _ = run(cfg)
    loaded = whole.train_dataloader.dataset.loaded
    cfg.resume, cfg.work_dir = True, str(tmp_path / 'again')
    cfg.load_from = str(tmp_path / 'whole/iter_2.pth')
    choose_checkpoint(cfg)
    assert cfg.randomness.seed == whole.seed
    again, _ = run(cfg)
    # Batches of two.
    assert again.train_dataloader.dataset.loaded == loaded[4:]
    # One's own is kept.
    cfg.randomness = dict(seed=whole.seed + 1)
    choose_checkpoint(cfg)
    assert cfg.randomness.seed == whole.seed + 1


def test_settings_that_the_checkpoint_replaces_are_named(runs, capsys):
    optimizer = dict(type='SGD', lr=0.1, betas=(0.9, 0.99))
    cfg = Config(
        dict(
            resume=True,
            load_from=str(runs / 'iter_4.pth'),
            work_dir=str(runs),
            optim_wrapper=dict(optimizer=optimizer, accumulative_counts=1),
            param_scheduler=[dict(type='LinearLR', end=4), dict(end=9)],
            train_cfg=dict(max_epochs=9),
        )
    )
    checkpoint = torch.load(cfg.load_from, weights_only=True)
    checkpoint['meta']['cfg'] = cfg.pretty_text
    torch.save(checkpoint, cfg.load_from)
    choose_checkpoint(cfg)
    assert not capsys.readouterr().err

    cfg.optim_wrapper.accumulative_counts = 2  # this one is taken
    cfg.optim_wrapper.optimizer.lr = 0.05
    cfg.param_scheduler[1].end = 12
    cfg.train_cfg.max_epochs = 12
    choose_checkpoint(cfg)
    settings, length = capsys.readouterr().err.splitlines()
    assert (
        'change nothing: optim_wrapper.optimizer.lr=0.05 (saved: 0.1), '
        'param_scheduler.1.end=12 (saved: 9). To train'
    ) in settings
    assert 'train_cfg.max_epochs=12 is more than the 9 that' in length

    for text in ('no Python', "train_cfg = dict(max_epochs='4')"):
        checkpoint['meta']['cfg'] = text
        torch.save(checkpoint, cfg.load_from)
        choose_checkpoint(cfg)
        assert not capsys.readouterr().err


def test_code_of_a_checkpoint_is_not_run(tmp_path):
    """mmengine executes the text of ``meta['config']``."""
    cfg = toy_cfg(tmp_path)
    run(cfg)
    path, marker = tmp_path / 'iter_4.pth', tmp_path / 'marker'
    checkpoint = dict(read_checkpoint(path))
    code = f'__import__("os").mkdir({str(marker)!r})\n'
    checkpoint['meta']['config'] = code
    torch.save(checkpoint, path)
    resumed, _ = run(cfg, resume=path)
    assert resumed.iter == 15
    # As one that came from an address, past our loader.
    PlainCheckpointHook().after_load_checkpoint(resumed, checkpoint)
    assert 'config' not in checkpoint['meta']
    assert not marker.exists()


def test_nothing_whole_is_an_error(runs):
    for path in runs.glob('i*.pth'):
        tear(path)
    with pytest.raises(ValueError, match='no whole checkpoint') as error:
        chosen(runs)
    for name in ('interrupted.pth', 'iter_4.pth', 'iter_8.pth', 'anew'):
        assert name in str(error.value)


def test_named_checkpoint_is_taken_or_refused(runs):
    path = runs / 'iter_4.pth'
    assert chosen(runs, load_from=str(path)) == str(path)
    flip(path)
    with pytest.raises(ValueError, match=r"iter_4\.pth' is damaged"):
        chosen(runs, load_from=str(path))
    with pytest.raises(ValueError, match='does not hold the state of a run'):
        chosen(runs, load_from=str(runs / 'best_epoch_3.pth'))


def test_run_that_does_not_resume_is_left_alone(runs):
    cfg = Config(dict(resume=False, work_dir=str(runs)))
    choose_checkpoint(cfg)
    assert 'load_from' not in cfg


@pytest.mark.parametrize(
    ('saved', 'named'),
    [
        (['epoch_9.pth', 'epoch_10.pth'], 'epoch_10.pth and 1 more'),
        (['iter_500.pth'], 'iter_500.pth'),
        (['interrupted.pth'], 'interrupted.pth'),
        (['best_knn_top1_epoch_1.pth'], 'best_knn_top1_epoch_1.pth'),
        (['r50.pth', 'scfs_r50.py', 'train.log'], None),
        ([], None),
    ],
)
def test_a_run_that_begins_anew_replaces_no_checkpoint(tmp_path, saved, named):
    for age, name in enumerate(reversed(saved)):
        (tmp_path / name).write_text('kept')
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    cfg = Config(dict(work_dir=str(tmp_path)))
    if named is None:
        check_work_dir(cfg)
    else:
        with pytest.raises(ValueError, match='--work-dir') as caught:
            check_work_dir(cfg)
        assert f'({named}), which this one would replace' in str(caught.value)
        assert '--resume' in str(caught.value)
        assert '--overwrite' in str(caught.value)
    check_work_dir(Config(dict(work_dir=str(tmp_path), resume=True)))
    check_work_dir(Config(dict(work_dir=str(tmp_path / 'new'))))
