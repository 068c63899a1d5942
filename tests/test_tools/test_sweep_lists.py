# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Lists of variants: those in configs/sweeps, and bad ones."""

import re
from functools import cache
from pathlib import Path

import pytest
from commands import ROOT, load_tool
from sweep_runs import CONFIGS, LIST

from mmscfs.settings import read_config

LISTS = sorted(path.name for path in (ROOT / 'configs/sweeps').glob('*.py'))


@pytest.fixture(scope='module')
def lists():
    return load_tool('sweep')


@pytest.mark.parametrize('name', LISTS)
def test_every_setting_of_a_list_is_read(lists, name, monkeypatch):
    monkeypatch.chdir(ROOT)
    seen = set()
    for variant in read(lists, Path(name).stem).values():
        assert variant.evaluations
        words = (*variant.defaults, *variant.cfg_options)
        # Variants of a config often differ in one setting's value.
        names = variant.config, *(word.split('=')[0] for word in words)
        if names not in seen:
            read_config(variant.config, lists.read_settings(words))
        seen.add(names)


@cache
def read(lists, name):
    return lists.read_list(str(ROOT / f'configs/sweeps/{name}.py'))


def crop(lists, variant):
    merged = lists.merged(variant.config, variant.cfg_options)
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


@pytest.mark.parametrize(
    ('old', 'new', 'problem'),
    [
        ('variants', 'varieties', 'variants=None must be a list'),
        ("'scfs.py'", "'no.py'", "no config 'no.py'"),
        ("'knn.py'", "'no.py'", "no config 'no.py'"),
        ("'scfs.py'", "'knn.py'", 'knn.py has no train_cfg'),
        ("name='scfs'", "name='dino'", 'two variants have name=dino'),
        ("name='scfs'", "name='a/b'", "name='a/b' must be a word"),
        ("name='scfs'", "name='a_seed-1'", "name='a_seed-1' must be a word"),
        ('cfg_options', 'options', 'options is unknown: use name, config, '),
        ("'linear.py'", "'./knn.py'", 'two evaluations have the same name'),
        (': 8', ": '8'", "num_local='8' cannot be given to"),
        ('pipeline.1', 'pipeline.5', 'Index 5 exceeds the length'),
    ],
)
def test_bad_lists(lists, tmp_path, monkeypatch, old, new, problem):
    monkeypatch.chdir(tmp_path)
    for name, text in CONFIGS.items():
        Path(f'{name}.py').write_text(text)
    assert old in LIST
    Path('list.py').write_text(LIST.replace(old, new))
    lists.load.cache_clear()
    with pytest.raises(ValueError, match=re.escape(problem)) as caught:
        lists.read_list('list.py')
    assert str(caught.value).startswith('list.py: ')
