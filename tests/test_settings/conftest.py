# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from pathlib import Path

import pytest

from mmscfs.settings import read_config

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a config of ours, or one that inherits."""

    def read(name, options=None, text='', for_training=False):
        path = CONFIGS / name
        if text:
            child = tmp_path / 'child.py'
            child.write_text(f'_base_ = [{str(path)!r}]\n{text}')
            path = child
        return read_config(path, options, for_training=for_training)

    return read
