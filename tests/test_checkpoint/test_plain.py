# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from mmscfs.checkpoint import restore_histories, to_plain


@pytest.fixture
def hub():
    """A message hub as a short training fills it."""
    hub = MessageHub('test_plain')
    for value, count in ((3.5, 1), (0.1, 2), (-2.25, 4)):
        hub.update_scalar('train/loss', value, count)
    hub.update_scalar('train/lr', np.float32(0.5))
    hub.update_scalar('train/time', 0.2, resumed=False)
    hub.log_scalars['short'] = HistoryBuffer([1.0, 2.0], [1, 1], 2)
    hub._set_resumed_keys('short', True)
    hub.log_scalars['empty'] = HistoryBuffer()
    hub._set_resumed_keys('empty', True)
    hub.update_info('epoch', 3)
    hub.update_info('seed', np.int64(11))
    return hub


def test_round_trip_restores_the_message_hub(hub):
    plain = to_plain(hub.state_dict())
    restored = MessageHub('test_plain_restored')
    restored.load_state_dict(restore_histories(plain))
    assert type(plain['log_scalars']['train/loss']) is dict  # as it was

    saved = ['train/loss', 'train/lr', 'short', 'empty']
    assert list(restored.log_scalars) == saved  # 'train/time' is not saved
    for name in saved:
        before, after = hub.get_scalar(name), restored.get_scalar(name)
        assert type(after) is HistoryBuffer
        assert after.max_length == before.max_length
        for old, new in zip(before.data, after.data, strict=True):
            np.testing.assert_array_equal(new, old)
    assert restored.runtime_info == {'epoch': 3, 'seed': 11}

    loss, short = (restored.get_scalar(n) for n in ('train/loss', 'short'))
    assert loss.mean() == pytest.approx((3.5 + 0.1 - 2.25) / 7)
    assert loss.min() == loss.current() == -2.25
    # They grow as before.
    short.update(5.0)
    assert short.data[0].tolist() == [2, 5]  # max_length is 2
    loss.update(1.0, 3)
    assert loss.data[1].tolist() == [1, 2, 4, 3]


def test_histories_that_mmengine_saved_itself_stay(hub):
    state = hub.state_dict()
    restored = restore_histories(state)['log_scalars']
    assert restored['train/loss'] is state['log_scalars']['train/loss']


def test_saved_file_holds_what_any_torch_loads(hub, tmp_path):
    """No type of mmengine or NumPy is allowed, so none is imported."""
    allowed = str(torch.serialization.get_safe_globals())
    assert 'mmengine' not in allowed
    assert 'numpy' not in allowed
    state = hub.state_dict()
    meta = dict(epoch=np.int32(3), names=('a', 'b'), seed=np.float64(0.5))
    path = tmp_path / 'epoch_3.pth'

    # mmengine's own state is refused: the conversion is needed.
    torch.save(dict(message_hub=state), path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)

    torch.save(dict(message_hub=to_plain(state), meta=to_plain(meta)), path)
    found = torch.load(path, weights_only=True)
    loss = found['message_hub']['log_scalars']['train/loss']
    assert loss['values'].tolist() == [3.5, 0.1, -2.25]
    assert loss['counts'].tolist() == [1, 2, 4]
    assert loss['max_length'] == 1000000
    assert found['message_hub']['runtime_info'] == dict(epoch=3, seed=11)
    assert found['meta'] == dict(epoch=3, names=('a', 'b'), seed=0.5)


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (np.float32(0.5), 0.5),
        (np.uint8(255), 255),
        (np.bool_(True), True),
        (np.str_('name'), 'name'),
        (np.array(['a', 'b']), ['a', 'b']),
        ([np.int64(1), (np.float64(2.5), None)], [1, (2.5, None)]),
    ],
)
def test_values_become_plain(value, expected):
    plain = to_plain(value)
    assert plain == expected
    assert type(plain) is type(expected)
    if isinstance(plain, list):
        assert [type(item) for item in plain] == [*map(type, expected)]


@pytest.mark.parametrize('dtype', ['float64', 'bool'])
def test_arrays_become_tensors_at_any_depth(dtype):
    array = np.array([[0, 1, 0], [1, 1, 0]], dtype)
    tensor = torch.ones(2)
    plain = to_plain(dict(a=[dict(b=array)], tensor=tensor))
    found = plain['a'][0]['b']
    assert type(found) is torch.Tensor
    assert found.dtype == getattr(torch, dtype)
    array[:] = 1  # a copy: what is saved no longer changes
    assert found.tolist() == [[0, 1, 0], [1, 1, 0]]
    assert plain['tensor'] is tensor
