# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the README and the guides say: their code, links and headings.

A block of code is run by the tests, or has a mark on the line before it:

    <!-- test: needs ImageNet, 8 GPUs -->
    <!-- test: runs in tests/test_chaos.py -->
    <!-- test: settings of configs/scfs_r50.py -->
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from mdit_py_plugins.anchors import anchors_plugin

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / 'README.md', *sorted(ROOT.glob('docs/en/**/*.md'))]
MARK = re.compile(r'<!--\s*test:\s*(.+?)\s*-->')
NAME = re.compile(r'# (\S+\.py)\n')  # the first line of a whole file
MARKDOWN = (
    MarkdownIt('commonmark')
    .enable(['table', 'strikethrough'])
    .use(anchors_plugin, max_level=6)
)


class Block(NamedTuple):
    """A block of code, or a link or image.

    Attributes:
        path (Path): The document.
        line (int): Where it begins, from 1.
        language (str): "bash", "python", "" if it has none, or another.
        text (str): Its lines, or what a link points at.
        mark (str): Its mark, "" without one.
    """

    path: Path
    line: int
    language: str
    text: str
    mark: str = ''

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f'{self.path.relative_to(ROOT)}:{self.line}'


def read_blocks(path: Path, text: str | None = None) -> Iterator[Block]:
    """Yield the blocks of code of a document."""
    previous = None
    text = path.read_text(encoding='utf-8') if text is None else text
    for token in MARKDOWN.parse(text):
        if token.type == 'fence':
            found = MARK.search(previous.content) if previous else None
            yield Block(
                path,
                token.map[0] + 1,
                token.info.partition(' ')[0],
                token.content,
                found[1] if found else '',
            )
        previous = token if token.type == 'html_block' else None


def read_links(path: Path, text: str | None = None) -> Iterator[Block]:
    """Yield the links and images of a document."""
    text = path.read_text(encoding='utf-8') if text is None else text
    for token in MARKDOWN.parse(text):
        line = (token.map or [0])[0] + 1
        for part in token.children or ():
            target = part.attrs.get('href') or part.attrs.get('src')
            if part.type in ('link_open', 'image'):
                yield Block(path, line, 'link', str(target or ''))
        if token.type == 'fence' and token.info.startswith('{image}'):
            target = token.info.split(maxsplit=1)[1].strip()
            yield Block(path, line, 'link', target)


def read_anchors(path: Path) -> set[str]:
    """Return what a link into a document can point at, as GitHub has it."""
    tokens = MARKDOWN.parse(path.read_text(encoding='utf-8'))
    return {
        str(token.attrs['id'])
        for token in tokens
        if token.type == 'heading_open'
    }


def printed_files(guide: str) -> dict[str, str]:
    """Return the text of each file that a guide of docs/en prints whole."""
    texts = [
        block.text
        for block in read_blocks(ROOT / f'docs/en/{guide}.md')
        if block.language == 'python'
    ]
    return {name[1]: text for text in texts if (name := NAME.match(text))}
