# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of KeyedSampler and of the keys that it makes."""

import pickle
from functools import partial

import mmengine.dataset.sampler as mmengine_sampler
import pytest
from mmengine.dataset import ConcatDataset, DefaultSampler, RepeatDataset
from torch.utils.data import DataLoader

from mmscfs.datasets import ImageFiles, KeyedSampler
from mmscfs.datasets.samplers import SampleKey

DATA = range(10)
RepeatTwice = partial(RepeatDataset, times=2)


def test_a_key_is_an_index_and_survives_pickling():
    key = pickle.loads(pickle.dumps(SampleKey(4, 5, 6)))
    assert key == 4
    assert ['a', 'b', 'c', 'd', 'e'][key] == 'e'
    assert type(key) is SampleKey
    assert key.key == (5, 6, 4)
    assert SampleKey(4).key == (0, 0, 4)


def test_keys_hold_seed_epoch_and_index():
    sampler = KeyedSampler(DATA, seed=7)
    for epoch in (0, 3):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert sorted(keys) == list(DATA)
        assert [key.key for key in keys] == [(7, epoch, int(k)) for k in keys]


@pytest.mark.parametrize('shuffle', [False, True])
def test_order_is_that_of_mmengines_sampler(shuffle):
    ours = KeyedSampler(DATA, shuffle=shuffle, seed=11)
    theirs = DefaultSampler(DATA, shuffle=shuffle, seed=11)
    orders = []
    for epoch in range(3):
        ours.set_epoch(epoch)
        theirs.set_epoch(epoch)
        orders.append([int(index) for index in ours])
        assert orders[-1] == list(theirs)
        assert len(ours) == len(theirs) == 10
    assert (orders[0] != orders[1]) == shuffle
    if not shuffle:
        assert orders[0] == list(DATA)


def test_a_resumed_epoch_skips_what_was_seen():
    sampler = KeyedSampler(DATA, seed=7)
    sampler.set_epoch(2)
    whole = [key.key for key in sampler]
    for start in (0, 4, 10):
        sampler.start = start
        assert [key.key for key in sampler] == whole[start:]
        assert len(sampler) == 10  # batches of an epoch, for the log


@pytest.mark.parametrize('round_up', [True, False])
def test_ranks_share_the_data_set(monkeypatch, round_up):
    """Nine images on two processes: five each, or five and four."""
    ranks = []
    for rank in (0, 1):
        monkeypatch.setattr(
            mmengine_sampler, 'get_dist_info', lambda rank=rank: (rank, 2)
        )
        sampler = KeyedSampler(range(9), seed=3, round_up=round_up)
        sampler.set_epoch(2)
        ranks.append(list(sampler))
        assert len(ranks[-1]) == len(sampler)
    first, second = ranks
    assert len(first) == 5
    assert len(second) == (5 if round_up else 4)
    # Rounding up repeats the first index at the end.
    assert set(first).isdisjoint(second[:4])
    assert sorted(first + second[:4]) == list(range(9))
    assert second[4:] == ([first[0]] if round_up else [])
    # The key of an image does not depend on its process.
    assert {key.key[:2] for key in first + second} == {(3, 2)}


@pytest.mark.parametrize(
    'wrap', [lambda part: ConcatDataset([part, part]), RepeatTwice]
)
def test_keys_reach_the_parts_of_wrapped_data_sets(image_folder, wrap):
    """Views depend on the key alone, whoever loads them."""
    part = ImageFiles(
        data_root=str(image_folder),
        pipeline=[
            dict(type='mmpretrain.LoadImage'),
            dict(type='mmpretrain.MultiCrop', num_local=0, global_size=32),
        ],
    )
    data = wrap(part)
    sampler = KeyedSampler(data, seed=3)
    loader = DataLoader(
        data, 4, sampler=sampler, num_workers=2, collate_fn=list
    )
    found = [sample['crops'][0] for batch in loader for sample in batch]
    crops = part.pipeline.transforms[1]
    assert len(found) == 32  # of 16 images
    for key, (left, top, right, bottom, _) in zip(sampler, found, strict=True):
        box = crops.crop_boxes((72, 80, 3), crops.draw(key))[0]
        assert box == (top, left, bottom - top, right - left)
    assert len({tuple(crop) for crop in found}) == 32
