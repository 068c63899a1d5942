# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What pages state is what the project has: names and papers."""

import re

import yaml
from documents import DOCUMENTS, ROOT

from mmscfs.version import __version__

# The guides name what exists; docs/en/method.md defines what it names

FILE = re.compile(r'`((?:configs|mmscfs|tests|tools)/\w[\w./*-]*)`')

METHOD = (ROOT / 'docs/en/method.md').read_text(encoding='utf-8')
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text(encoding='utf-8')
    for folder in ('mmscfs', 'configs', 'tools', 'tests')
    for path in (ROOT / folder).rglob('*.py')
}
LETTERS = {'B', 'C', 'D', 'G', 'H', 'K', 'N', 'V_L', 'W', 'h', 'w'}


def quoted():
    """Return what the page has in backquotes."""
    return set(re.findall(r'`([^`\n]+)`', METHOD))


def test_equations_have_the_papers_numbers():
    tags = re.findall(r'\\tag\{(\d+)\}', METHOD)
    assert tags == [str(number) for number in range(1, 12)]


def test_files_exist():
    """Of all guides but the one that names other projects' files."""
    named = {
        name
        for page in DOCUMENTS
        if page.name != 'migration.md'
        for name in FILE.findall(page.read_text(encoding='utf-8'))
    }
    assert len(named) >= 90
    assert not [name for name in named if not [*ROOT.glob(name)]]


def test_names_are_defined():
    """Classes and functions, alone or as Class.method."""
    text = '\n'.join(SOURCES.values())
    names = {
        part
        for name in quoted() - LETTERS
        if re.fullmatch(r'_?[A-Za-z]\w*(\.[a-z]\w*)?', name)
        and (name[0].isupper() or name in text and f'def {name}(' in text)
        for part in name.split('.')
    }
    assert {'SoftFeatureSearch', 'after_step', 'cosine_momentum'} <= names
    missing = [
        name
        for name in names
        if not re.search(rf'^\s*(?:class|def) {name}\b', text, re.M)
    ]
    assert not missing


# Citations: one version, title and year wherever they stand

CITATION = yaml.safe_load((ROOT / 'CITATION.cff').read_text(encoding='utf-8'))
README = (ROOT / 'README.md').read_text(encoding='utf-8')
ARXIV = 'https://arxiv.org/abs/'


def bibtex():
    """Return the README's entries by key, each as its text on one line."""
    (block,) = re.findall(r'```bibtex\n(.+?)```', README, re.S)
    entries = re.findall(r'^@\w+\{(\w+),(.+?)^\}', block, re.S | re.M)
    return {key: ' '.join(text.split()) for key, text in entries}


def test_version_is_the_packages():
    assert CITATION['version'] == __version__
    assert f'Version {__version__}}}' in bibtex()['mmscfs']


def test_papers_are_the_metafiles_and_the_readmes():
    entries = bibtex()
    assert len(entries) == 4
    keys = ('song2023scfs', 'caron2021dino', 'wei2021co2')
    for family, key, paper in zip(
        ('scfs', 'dino', 'co2'), keys, CITATION['references'], strict=True
    ):
        path = ROOT / f'configs/{family}/metafile.yml'
        metafile = yaml.safe_load(path.read_text(encoding='utf-8'))
        printed = metafile['Collections'][0]['Paper']
        assert (paper['title'], paper['url']) == tuple(printed.values())
        entry = entries[key].replace('{CO2}', 'CO2')
        assert f'{{{paper["title"]}}}' in entry
        assert f'arXiv:{paper["url"].removeprefix(ARXIV)}}}' in entry
        assert f'{{{paper["year"]}}}' in entry
        authors = entry.split('author')[1].split('}, booktitle')[0]
        names = [author['given-names'] for author in paper['authors']]
        assert len(authors.split(' and ')) == len(names)
