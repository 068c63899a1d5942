# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Which checkpoint a run resumes from."""

import pytest
import torch
from mmengine.config import Config

from mmscfs.engine import choose_checkpoint


@pytest.fixture
def runs(tmp_path):
    """Checkpoints of the iterations 4, 8 and 12; weights alone of 99."""

    def save(name, iteration, **parts):
        torch.save(
            dict(meta=dict(iter=iteration, epoch=0), state_dict={}, **parts),
            tmp_path / name,
        )

    run = dict(optimizer={}, message_hub={})
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


def test_nothing_to_resume_from_starts_anew(tmp_path):
    assert chosen(tmp_path) is None
    assert chosen(tmp_path / 'missing') is None


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
