# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every link, anchor and image of the README and the guides resolves."""

from urllib.parse import urlsplit

import pytest
from documents import DOCUMENTS, ROOT, Block, read_anchors, read_links


def problem(link: Block) -> str | None:
    """Return what is wrong with a link, None if nothing is."""
    url = urlsplit(link.text)
    if url.scheme or url.netloc:
        well_formed = url.scheme in ('http', 'https') and '.' in url.netloc
        return None if well_formed else 'not a web address'
    path = link.path
    if url.path:
        path = (link.path.parent / url.path).resolve()
        if not path.is_relative_to(ROOT):
            return 'leads out of the repository'
        if not path.exists():
            return f'no file {path.relative_to(ROOT)}'
    if url.fragment and url.fragment not in read_anchors(path):
        return f'no heading #{url.fragment} in {path.relative_to(ROOT)}'
    return None


@pytest.mark.parametrize(
    'path', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_resolve(path):
    problems = [
        f'{link.place}: ({link.text}): {text}'
        for link in read_links(path)
        if (text := problem(link))
    ]
    assert not problems, '\n'.join(problems)


@pytest.mark.parametrize(
    ('target', 'expected'),
    [
        ('docs/en/speed.md#the-loader', None),
        ('#license', None),
        ('docs/en/no.md', 'no file docs/en/no.md'),
        ('#no-such', 'no heading #no-such in README.md'),
        ('docs/en/speed.md#no', 'no heading #no in docs/en/speed.md'),
        ('../README.md', 'leads out of the repository'),
        ('ftp://some.host/x', 'not a web address'),
    ],
)
def test_what_is_a_problem(target, expected):
    readme = ROOT / 'README.md'
    text = f'# A\n\nSee [it *all*]({target}).\n\n![x]({target})\n'
    links = [*read_links(readme, text)]
    assert [(link.line, link.text) for link in links] == [
        (3, target),
        (5, target),
    ]
    assert problem(links[0]) == expected
