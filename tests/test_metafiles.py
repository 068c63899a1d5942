# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""model-index.yml, which mim and mmengine's hub read."""

import re
from pathlib import Path

import pytest
from mmengine import fileio
from modelindex.load_model_index import load

from mmscfs.hub import find_weights

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
METAFILES = sorted(
    str(path.relative_to(ROOT)) for path in CONFIGS.rglob('metafile.yml')
)
ENTRIES = [
    (metafile, entry)
    for metafile in METAFILES
    for entry in fileio.load(ROOT / metafile)['Models']
]
# Lists of runs, and evaluations that train nothing.
NO_MODELS = ('knn', 'folders_knn', 'linear-svm', 'linear-sweep')
SAYS = re.compile(r'_(\d+)xb(\d+)-.*?-(\d+)(e|k)(?:_|$)')
# Of 8 GPUs with 2 images each.
DETECTION = {
    '_1x_': ('Epochs', 12),
    '_2x_': ('Epochs', 24),
    '_24k_': ('Iterations', 24000),
}


def test_the_index_has_every_metafile():
    index = load(str(ROOT / 'model-index.yml'))
    assert sorted(fileio.load(ROOT / 'model-index.yml')['Import']) == METAFILES
    assert index.check(silent=True) in (None, [])
    assert {model.name for model in index.models} == {
        entry['Name'] for _, entry in ENTRIES
    }


def test_every_recipe_has_an_entry():
    listed = [entry['Config'] for _, entry in ENTRIES]
    assert len(listed) == len(set(listed))
    folders = [Path(metafile).parent for metafile in METAFILES]
    expected = {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob('*.py')
        if not path.name.startswith(NO_MODELS)
    }
    assert set(listed) == {*expected, 'configs/scfs_r50.py'}


def test_mim_finds_every_config_by_its_file_name():
    # It refuses a name that two files of the package have.
    names = [
        path.name
        for folder in ('configs', 'mmscfs', 'tools')
        for path in (ROOT / folder).rglob('*.py')
    ]
    recipes = [
        path.name
        for path in CONFIGS.rglob('*.py')
        if '_base_' not in path.parts
    ]
    assert [name for name in recipes if names.count(name) != 1] == []


@pytest.mark.parametrize(
    'entry', [entry for _, entry in ENTRIES], ids=lambda entry: entry['Name']
)
def test_an_entry_says_what_is_true(entry):
    assert Path(entry['Config']).stem == entry['Name']
    # Figures of the paper are not ours.
    assert entry['Results'] is None
    # Weights of two, which name their recipe.
    if entry['Weights'] is None:
        assert not entry['Name'].endswith('_digit-cards')
    else:
        assert Path(find_weights(entry['Weights'])).is_file()
        method, network, _, data = entry['Name'].split('_')
        assert entry['Weights'] == f'mmscfs::{method}_{network}_{data}'
    metadata = entry['Metadata']
    if said := SAYS.search(entry['Name']):
        gpus, batch, length, unit = said.groups()
        assert metadata['Batch Size'] == int(gpus) * int(batch)
        if unit == 'e':
            assert metadata['Epochs'] == int(length)
        else:
            assert metadata['Iterations'] == 1000 * int(length)
    for word, (unit, length) in DETECTION.items():
        if word in entry['Name']:
            assert metadata[unit] == length
            assert metadata['Batch Size'] == 8 * 2


@pytest.mark.parametrize('metafile', METAFILES)
def test_collections_are_named_and_explained(metafile):
    content = fileio.load(ROOT / metafile)
    names = {collection['Name'] for collection in content['Collections']}
    assert {entry['In Collection'] for entry in content['Models']} == names
    for collection in content['Collections']:
        folder = (ROOT / metafile).parent
        assert (folder / collection['README']).is_file()
