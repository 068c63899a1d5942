# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What docs/en/method.md names is where it says."""

import re

from documents import ROOT

PAGE = (ROOT / 'docs/en/method.md').read_text(encoding='utf-8')
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text(encoding='utf-8')
    for folder in ('mmscfs', 'configs', 'tools', 'tests')
    for path in (ROOT / folder).rglob('*.py')
}
LETTERS = {'B', 'C', 'D', 'G', 'H', 'K', 'N', 'V_L', 'W', 'h', 'w'}


def quoted():
    """Return what the page has in backquotes."""
    return set(re.findall(r'`([^`\n]+)`', PAGE))


def test_equations_have_the_papers_numbers():
    tags = re.findall(r'\\tag\{(\d+)\}', PAGE)
    assert tags == [str(number) for number in range(1, 12)]


def test_files_exist():
    named = {name for name in quoted() if '/' in name}
    assert len(named) >= 15
    assert not [name for name in named if not (ROOT / name).exists()]


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


def test_names_are_where_the_page_says():
    """`Name`, `mmscfs/path.py`: that file defines it."""
    pairs = re.findall(r'`([\w.]+)`,? (?:in )?`(mmscfs/[\w/]+\.py)`', PAGE)
    pairs += re.findall(r'`([\w.]+)`,\s`(mmscfs/[\w/]+\.py)`', PAGE)
    assert len(set(pairs)) > 10
    for name, path in pairs:
        last = name.split('.')[-1]
        assert re.search(
            rf'^\s*(?:class|def) {last}\b', SOURCES[path], re.M
        ), (name, path)
