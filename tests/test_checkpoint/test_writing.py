# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Whether a result can be written, before long work."""

import os
from pathlib import Path

import pytest

from mmscfs.checkpoint import check_writable


def test_a_writable_place_is_left_as_it_was(tmp_path):
    check_writable(tmp_path / 'a.json')
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_and_a_folder_in_place(tmp_path):
    with pytest.raises(OSError, match='gone.*folder does not exist; make it'):
        check_writable(tmp_path / 'gone' / 'a.json')
    with pytest.raises(OSError, match='is a folder; remove it'):
        check_writable(tmp_path)


def test_a_folder_that_takes_no_file(tmp_path, monkeypatch):
    """Root may write anywhere: the refusal is the system's word."""

    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr(Path, 'touch', refuse)
    with pytest.raises(OSError, match='Permission denied; give') as error:
        check_writable(tmp_path / 'a.json')
    assert str(tmp_path) in str(error.value)
    assert 'ln -s' in str(error.value)
