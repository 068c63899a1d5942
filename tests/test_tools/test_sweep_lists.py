# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of the lists in configs/sweeps."""

import sys
from inspect import signature
from pathlib import Path

import pytest
from mmpretrain.registry import MODELS, TRANSFORMS

ROOT = Path(__file__).parents[2]
LISTS = sorted(path.name for path in (ROOT / 'configs/sweeps').glob('*.py'))


@pytest.fixture(scope='module')
def lists():
    """The module that reads them, as if it lay in the current folder."""
    sys.path.insert(0, str(ROOT / 'tools'))
    try:
        import sweep_list
    finally:
        sys.path.pop(0)
    return sweep_list


def missing_word(key, given, cfg):
    """Return the word of a dotted key that a config cannot take, or None."""
    for word in key.split('.'):
        if isinstance(given, list):
            given, cfg = given[int(word)], cfg[int(word)]
            continue
        if word == '_delete_':
            return None
        if given is None and word == 'type':
            if MODELS.get(cfg[word]) is None:
                return word
        elif given is None or word not in given:
            kind = cfg.get('type')
            found = MODELS.get(kind) or TRANSFORMS.get(kind)
            if found is None or not any(
                word in signature(parent.__init__).parameters
                for parent in found.__mro__
            ):
                return word
            given = None
        else:
            given = given[word]
        cfg = cfg[word]
    return None


@pytest.mark.parametrize('name', LISTS)
def test_every_setting_of_a_list_is_known(lists, name, monkeypatch):
    """No misspelt one would pass, for mmengine adds what is not there."""
    monkeypatch.chdir(ROOT)
    content = lists.read_list(f'configs/sweeps/{name}')
    assert content.table or 'digits' in name
    for variant in content.variants:
        words = (*variant.defaults, *variant.cfg_options)
        assert variant.evaluations
        given = lists.load_config(variant.config).to_dict()
        merged = lists.merged_config(variant.config, words).to_dict()
        for key in lists.parse_words(words):
            deleted = key.rsplit('.', 1)[0] + '._delete_=True' in words
            if not deleted:
                assert missing_word(key, given, merged) is None, key
    keys = ('model.serach', 'multi_crop.num_locla')
    for key in keys:  # the check can fail
        merged = lists.merged_config(variant.config, [f'{key}=1']).to_dict()
        assert missing_word(key, given, merged) == key.rsplit('.')[-1]


def read(lists, name):
    return {
        v.name: v
        for v in lists.read_list(
            str(ROOT / f'configs/sweeps/{name}.py')
        ).variants
    }


def crop(lists, variant):
    merged = lists.merged_config(variant.config, variant.cfg_options)
    return merged.train_dataloader.dataset.pipeline[1]


def test_lists_are_the_papers(lists):
    names = ['dino-wo-mc', 'dino', 'dino-ml', 'scfs', 'roi-crop', 'scfs-wo-mc']
    assert [*read(lists, 'contrast-modes_in100')] == [
        *names,
        'scfs-wo-mc-alone',
    ]
    assert [*read(lists, 'contrast-modes_digits')][:7] == [
        *names,
        'scfs-wo-mc-alone',
    ]
    views = read(lists, 'local-views_in100')
    assert {name: crop(lists, v).num_local for name, v in views.items()} == {
        f'{method}-{number}': number
        for method in ('dino', 'scfs')
        for number in (0, 2, 4, 6, 8, 10)
    }
    scales = {
        crop(lists, v).local_scale
        for v in read(lists, 'crop-scales_in100').values()
    }
    assert scales == {(0.05, 0.14), (0.14, 0.25), (0.25, 0.4), (0.4, 0.6)}
    assert len(read(lists, 'crop-scales_in100')) == 8
    assert len(read(lists, 'search-layers_in100')) == 3
    assert len(read(lists, 'backbones_in100')) == 6
    for variant in read(lists, 'backbones_in100').values():
        backbone = variant.name.split('-', 1)[1]
        assert all(backbone in config for config in variant.evaluations)
    for variant in read(lists, 'methods_in1k').values():
        assert len(variant.detection) == 2
