# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Sphinx builds the pages without a warning, with all that they show."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import mmscfs.datasets
import mmscfs.evaluation
import mmscfs.models

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / 'docs/en'


class Page(HTMLParser):
    """What a page refers to and what can be referred to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: set[str] = set()  # by the browser, by itself
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.ids.add(values.get('id', ''))
        if tag == 'a' and 'href' in values:
            self.links.add(values['href'])
        elif tag == 'link' and values.get('rel') not in ('index', 'search'):
            self.loaded.add(values.get('href', ''))
        elif 'src' in values:
            self.loaded.add(values['src'])


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """The pages, built as `make docs` does."""
    folder = tmp_path_factory.mktemp('docs') / 'html'
    command = [
        *(sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-n', '-q'),
        *('-d', str(folder.with_name('doctrees')), '-b', 'html'),
        # Without the pages of Python's sources, which take half of the time.
        *(
            '-D',
            'extensions=myst_parser,sphinx.ext.autodoc,sphinx.ext.napoleon',
        ),
        *(str(SOURCES), str(folder)),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False
    )
    assert not done.returncode, done.stderr[-5000:]
    return folder


def test_the_first_page_leads_to_every_guide_and_the_readme(built):
    first = Page(built / 'index.html')
    for path in SOURCES.glob('*.md'):
        assert (built / f'{path.stem}.html').is_file()
        assert f'{path.stem}.html' in first.links or path.stem == 'index'
    overview = Page(built / 'overview.html')
    assert {'two-commands', 'license'} <= overview.ids
    assert 'get_started.html' in overview.links
    assert 'overview.html#two-commands' in Page(built / 'learning.html').links


def test_a_browser_asks_no_other_host(built):
    """By itself; Sphinx and test_links.py check what a reader clicks."""
    paths = sorted(built.rglob('*.html'))
    assert len(paths) > 20
    for path in paths:
        for target in Page(path).loaded:
            url = urlsplit(target)
            assert not url.scheme, (path.name, target)
            assert not url.netloc, (path.name, target)
            assert (path.parent / unquote(url.path)).is_file(), target


@pytest.mark.parametrize(
    ('page', 'package'),
    [
        ('models', mmscfs.models),
        ('datasets', mmscfs.datasets),
        ('evaluation', mmscfs.evaluation),
        ('checkpoint', mmscfs.checkpoint),
        ('engine', mmscfs.engine.hooks),
        ('engine', mmscfs.engine.loops),
    ],
)
def test_the_reference_has_every_public_name(built, page, package):
    ids = Page(built / 'api' / f'{page}.html').ids
    found = {name.rpartition('.')[2] for name in ids if name}
    names = {n for n in package.__all__ if callable(getattr(package, n))}
    assert names <= found


def test_docstrings_are_rendered(built):
    """Parts of a Google-style docstring become lists, math MathML."""
    text = (built / 'api/models.html').read_text(encoding='utf-8')
    start = text.index('id="mmscfs.models.selfsup.SCFS"')
    scfs = re.sub(r'<[^>]+>', '', text[start : start + 20000])
    for expected in ('Parameters:', 'search_views', 'Raises:', 'Eqs. 5-11'):
        assert expected in scfs
    assert 'Args:' not in scfs
    method = (built / 'method.html').read_text(encoding='utf-8')
    assert '<math' in method
    assert '\\frac' not in method
    assert '<span class="eqno">(6)</span>' in method
