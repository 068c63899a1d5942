# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Files that a guide prints whole, their name in the first line."""

import re

from documents import ROOT, read_blocks

NAME = re.compile(r'# (\S+\.py)\n')


def printed_files(guide: str) -> dict[str, str]:
    """Return the text of each file that a guide of docs/en prints."""
    texts = [
        block.text
        for block in read_blocks(ROOT / f'docs/en/{guide}.md')
        if block.language == 'python'
    ]
    return {name[1]: text for text in texts if (name := NAME.match(text))}
