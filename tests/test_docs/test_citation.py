# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What is cited: one version, one title and one year wherever it stands."""

import re

import yaml
from documents import ROOT

from mmscfs.version import __version__

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
