# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmscfs.checkpoint import check_same_model, naming, read_checkpoint


@pytest.fixture
def checkpoint():
    return dict(
        state_dict=dict(weight=torch.arange(6.0).view(2, 3)),
        meta=dict(epoch=3),
    )


def test_reads_tensors_and_plain_values(tmp_path, checkpoint):
    torch.save(checkpoint, tmp_path / 'good.pth')
    for path in (tmp_path / 'good.pth', str(tmp_path / 'good.pth')):
        loaded = read_checkpoint(path)
        assert loaded['meta'] == {'epoch': 3}
        weight = loaded['state_dict']['weight']
        assert weight.device.type == 'cpu'
        assert weight.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ('saved', 'there'),
    [
        (('notes.txt', 'run.py'), "'.' has none"),
        (('epoch_9.pth', 'run.py'), "'.' has epoch_9.pth"),
        (
            ('epoch_12.pth', 'epoch_9.pth', 'a.safetensors', 'b.pth'),
            "'.' has b.pth, a.safetensors, epoch_9.pth and 1 more",
        ),
    ],
)
def test_missing_file_is_named_with_those_there(
    tmp_path, monkeypatch, saved, there
):
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(reversed(saved)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    (tmp_path / 'not_one.pth').mkdir()
    for path in ('nowhere.pth', '.'):
        with pytest.raises(FileNotFoundError) as caught:
            read_checkpoint(path)
        assert str(caught.value) == f'no checkpoint {path!r}: {there}'
    with pytest.raises(FileNotFoundError, match="folder 'gone' does not exis"):
        read_checkpoint('gone/epoch_9.pth')


def test_a_checkpoint_is_named_once():
    for text in ('of another kind', "'a.pth' is damaged"):
        with (
            pytest.raises(ValueError, match=r'a\.pth') as caught,
            naming('a.pth'),
        ):
            raise ValueError(text)
        assert str(caught.value).count('a.pth') == 1


@pytest.mark.parametrize('share', [0, 0.9])
@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_truncated_file_is_refused(tmp_path, checkpoint, suffix, share):
    path = tmp_path / f'truncated.{suffix}'
    if suffix == 'pth':
        torch.save(checkpoint, path)
    else:
        save_file(checkpoint['state_dict'], path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=rf"truncated\.{suffix}' is damaged"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    'content',
    [
        b'PK',
        b'version https://git-lfs.github.com/spec/v1\nsize 1\n',
        bytes(100),
    ],
)
def test_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / 'notes.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"'[^']*notes\.pth'.* damaged"):
        read_checkpoint(path)


@pytest.fixture
def model_state():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()


def test_equal_tensors_pass(model_state):
    other = {key: value + 1 for key, value in model_state.items()}
    check_same_model(model_state, dict(state_dict=other, meta={}), 'SCFS')
    check_same_model(model_state, other, 'SCFS')  # a bare state dict
    state = {f'module.{key}': value for key, value in model_state.items()}
    check_same_model(model_state, dict(state_dict=state), 'SCFS')


@pytest.mark.parametrize('state', [[1], None, torch.ones(2)])
def test_a_state_that_is_none_does_not_fit(model_state, state):
    with pytest.raises(ValueError, match=r'not one of this SCFS.* 7 missing'):
        check_same_model(model_state, dict(state_dict=state), 'SCFS')


@pytest.mark.parametrize(
    ('change', 'problem'),
    [
        (torch.Tensor.long, '0.weight is of torch.int64'),
        # torch would drop the imaginary part.
        (lambda v: torch.complex(v, v), '0.weight is of torch.complex64'),
        (lambda v: v * torch.inf, '0.weight is not finite'),
        (lambda v: (v * torch.nan).to(torch.float8_e4m3fn), 'not finite'),
    ],
)
def test_numbers_that_are_no_weights_are_refused(model_state, change, problem):
    state = dict(model_state, **{'0.weight': change(model_state['0.weight'])})
    with pytest.raises(ValueError, match=problem):
        check_same_model(model_state, state, 'SCFS')
    halves = {k: v.to(torch.bfloat16) for k, v in model_state.items()}
    check_same_model(model_state, halves, 'SCFS')
    # A mask that the model has, too.
    endless = dict(model_state, mask=torch.tensor([0, -torch.inf]))
    check_same_model(endless, endless, 'SCFS')


@pytest.mark.parametrize(
    ('without', 'more', 'problems'),
    [
        ('1.running', {}, '2 missing (e.g. 1.running_mean)'),
        (
            'none',
            {'module.teacher.weight': (1,)},
            '1 left over (e.g. teacher.weight)',
        ),
        (
            '',
            {'0.weight': (1,), 'head.weight': (1,)},
            '6 missing (e.g. 0.bias); 1 left over (e.g. head.weight); '
            '1 of another shape (e.g. 0.weight (1,) for (2, 3))',
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    model_state, without, more, problems
):
    state = {k: v for k, v in model_state.items() if not k.startswith(without)}
    state |= {key: torch.ones(shape) for key, shape in more.items()}
    with pytest.raises(ValueError, match='not one of this SCFS') as error:
        check_same_model(model_state, dict(state_dict=state), 'SCFS')
    text = str(error.value)
    assert f': tensors {problems}. ' in text
    names = [key.removeprefix('module.') for key in state]
    held = dict.fromkeys(name.split('.')[0] for name in names)
    needed = dict.fromkeys(key.split('.')[0] for key in model_state)
    parts = f'SCFS with {", ".join(needed)}, but has {", ".join(held)}: '
    assert (parts in text) == ([*held] != [*needed])
    assert 'Resume with the config that wrote it' in text
    assert 'without --resume' in text
