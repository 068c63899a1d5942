# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Which checkpoint a run resumes from, and what it takes from it."""

import math
import os
import shutil

import pytest
import torch
from mmengine.config import Config
from toy_runs import run, toy_cfg

from mmscfs.checkpoint import read_checkpoint
from mmscfs.engine.resume import PlainCheckpointHook
from mmscfs.engine.resume.chooser import (
    NoRunError,
    check_run,
    check_work_dir,
    choose_checkpoint,
    describe_finished,
    read_saved_run,
)


def save(path, iteration=3, **changes):
    """A checkpoint with what mmengine resumes from; None leaves a part out."""
    parts = dict(
        meta=dict(epoch=1, iter=iteration),
        state_dict=dict(weight=torch.arange(1000.0)),
        optimizer=dict(state={}),
        message_hub=dict(log_scalars={}),
    )
    parts.update(changes)
    parts = {name: part for name, part in parts.items() if part is not None}
    torch.save(parts, path)
    return path


@pytest.fixture
def runs(tmp_path):
    """Checkpoints of the iterations 4, 8 and 12; weights alone of 99."""
    # Neither dates nor names say the order.
    for name, iteration in dict(iter_8=8, interrupted=12, iter_4=4).items():
        save(tmp_path / f'{name}.pth', iteration)
    save(tmp_path / 'best_epoch_3.pth', 99, optimizer=None)
    (tmp_path / 'last_checkpoint').write_text(
        str(tmp_path / 'interrupted.pth')
    )
    return tmp_path


def chosen(folder, **settings):
    cfg = Config(dict(resume=True, work_dir=str(folder), **settings))
    choose_checkpoint(cfg)
    return cfg.load_from


def flip(path):
    """Damage one byte of a tensor, which torch does not see."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor([500.0]).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)


def tear(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path):
    path.write_bytes(b'')


def test_the_last_one_that_was_saved(runs, tmp_path, capsys):
    assert chosen(runs) == str(runs / 'interrupted.pth')
    copy = shutil.copytree(runs, tmp_path / 'copy')
    assert chosen(copy) == str(copy / 'interrupted.pth')
    # As if the folder had been moved since.
    (runs / 'last_checkpoint').write_text('/before/iter_4.pth')
    assert chosen(runs) == str(runs / 'iter_4.pth')
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('damage', [flip, tear, empty])
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
        ('\x00\ufffd', 'which is missing'),
    ],
)
def test_note_of_the_last_one(runs, text, problem, capsys):
    note = runs / 'last_checkpoint'
    note.unlink() if text is None else note.write_text(text)
    assert chosen(runs) == str(runs / 'interrupted.pth')
    assert problem in capsys.readouterr().err


def test_nothing_to_resume_from_starts_at_the_beginning(runs, tmp_path):
    assert chosen(tmp_path / 'empty') is None
    # A best checkpoint before the first of the run, and an export.
    for path in (*runs.glob('i*.pth'), runs / 'last_checkpoint'):
        path.unlink()
    torch.save(dict(state_dict={}), runs / 'backbone.pth')
    assert chosen(runs) is None
    (runs / 'last_checkpoint').write_text('/nowhere/epoch_9.pth')
    with pytest.raises(ValueError, match='no whole checkpoint'):
        chosen(runs)


def test_nothing_whole_is_an_error(runs):
    for path in runs.glob('i*.pth'):
        tear(path)
    with pytest.raises(ValueError, match='no whole checkpoint') as error:
        chosen(runs)
    for name in ('interrupted.pth', 'iter_4.pth', 'iter_8.pth', 'start over'):
        assert name in str(error.value)


def test_named_checkpoint_is_taken_or_refused(runs):
    path = runs / 'iter_4.pth'
    assert chosen(runs, load_from=str(path)) == str(path)
    flip(path)
    with pytest.raises(ValueError, match=r"iter_4\.pth' is damaged .*data/0"):
        chosen(runs, load_from=str(path))
    with pytest.raises(ValueError, match='does not hold the state of a run'):
        chosen(runs, load_from=str(runs / 'best_epoch_3.pth'))


def test_a_drawn_seed_is_taken_again(tmp_path):
    """mmengine would build the sampler with another one."""
    cfg = toy_cfg(tmp_path / 'whole')
    cfg.pop('randomness')
    whole, expected = run(cfg)
    cfg.resume, cfg.work_dir = True, str(tmp_path / 'again')
    cfg.load_from = str(tmp_path / 'whole/iter_2.pth')
    choose_checkpoint(cfg)
    assert cfg.randomness.seed == whole.seed
    _, losses = run(cfg)
    assert losses.values == expected.values[2:]
    # One that the config sets is kept.
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
    meta = dict(iter=4, epoch=0, cfg=cfg.pretty_text)
    save(cfg.load_from, meta=meta)
    choose_checkpoint(cfg)
    assert not capsys.readouterr().err

    cfg.optim_wrapper.accumulative_counts = 2  # this one is taken
    cfg.optim_wrapper.optimizer.lr = 0.05
    cfg.param_scheduler[1].end = cfg.train_cfg.max_epochs = 12
    choose_checkpoint(cfg)
    length, settings = capsys.readouterr().err.splitlines()
    assert (
        'train_cfg.max_epochs=12 (saved: 9): the schedules are the '
        "checkpoint's, made for 9 epochs"
    ) in length
    assert length.endswith(f' --cfg-options load_from={cfg.load_from}')
    assert (
        'change nothing: optim_wrapper.optimizer.lr=0.05 (saved: 0.1), '
        'param_scheduler.1.end=12 (saved: 9). To train'
    ) in settings

    # Of a run by epochs the loop says it: their steps change.
    cfg.train_cfg = dict(max_iters=90)
    cfg.train_dataloader = dict(batch_size=16)
    save(cfg.load_from, meta=dict(meta, cfg=cfg.pretty_text))
    cfg.train_dataloader.batch_size = 8
    choose_checkpoint(cfg)
    (batch,) = capsys.readouterr().err.splitlines()
    assert 'train_dataloader.batch_size=8 (saved: 16)' in batch
    assert 'train_cfg.max_iters=90 steps' in batch

    save(cfg.load_from, meta=dict(meta, cfg='no Python'))
    choose_checkpoint(cfg)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ('done', 'length', 'words'),
    [
        (dict(epoch=8, iter=40), dict(max_epochs=9), None),
        # Saved by iterations: hooks of the last epoch have work to do.
        (dict(epoch=8, iter=45), dict(max_epochs=9), None),
        (dict(epoch=9, iter=45), dict(max_epochs=6), '9 of 6 epochs'),
        (dict(epoch=0, iter=44), dict(max_iters=45), None),
        (dict(epoch=0, iter=45), dict(max_iters=45), '45 of 45 iterations'),
    ],
)
def test_a_finished_run_is_named(runs, done, length, words):
    path = runs / 'interrupted.pth'
    save(path, meta=done)
    cfg = Config(dict(resume=True, work_dir=str(runs), train_cfg=length))
    text = describe_finished(cfg, choose_checkpoint(cfg))
    if words is None:
        assert text == ''
    else:
        (name,) = length
        assert text.startswith(f'This run has finished already: {words}.')
        assert f'checkpoint   {path}' in text
        assert f'raise train_cfg.{name} ' in text


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


@pytest.mark.parametrize(
    ('saved', 'named'),
    [
        (['epoch_9.pth', 'epoch_10.pth'], 'epoch_10.pth and 1 more'),
        (['interrupted.pth'], 'interrupted.pth'),
        (['best_knn_top1_epoch_1.pth'], 'best_knn_top1_epoch_1.pth'),
        (['r50.pth', 'scfs_r50.py', 'train.log'], None),
    ],
)
def test_a_run_that_starts_over_replaces_no_checkpoint(tmp_path, saved, named):
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


@pytest.mark.parametrize(
    ('changes', 'missing'),
    [
        (dict(optimizer=None, state_dict=[1]), 'no state_dict, optimizer'),
        (dict(message_hub={}), r"no message_hub\['log_scalars'\]"),
        (
            dict(message_hub=dict(log_scalars={}, runtime_info=3)),
            r"no message_hub\['runtime_info'\]",
        ),
        (dict(meta='text'), r"no meta, meta\['iter'\]"),
        (
            dict(meta=dict(iter=True, epoch=-5)),
            r"no meta\['iter'\], meta\['epoch'\]",
        ),
    ],
)
def test_weights_alone_are_not_a_run(changes, missing, tmp_path):
    """Neither are parts of another kind."""
    path = save(tmp_path / 'a.pth', **changes)
    with pytest.raises(NoRunError, match=f'{missing}.*--pretrained'):
        read_saved_run(path)


@pytest.mark.parametrize('new_format', [True, False])
def test_what_a_checkpoint_says(new_format, tmp_path):
    hub = dict(log_scalars={}, runtime_info=dict(max_iters=12, max_epochs=6))
    meta = dict(seed=7, cfg='lr = 1\n', iter=5, epoch=2)
    path = save(tmp_path / 'a.pth', meta=meta, message_hub=hub)
    parts = torch.load(path, weights_only=True)
    torch.save(parts, path, _use_new_zipfile_serialization=new_format)
    assert check_run(path) == (5, 2, 2, 7, 'lr = 1\n')
    # What another program wrote there is not believed.
    save(path, meta=dict(meta, seed='7', cfg=torch.ones(2)))
    assert check_run(path) == (5, 2, math.inf, None, '')
