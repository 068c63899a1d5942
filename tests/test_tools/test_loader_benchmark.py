# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import importlib
from pathlib import Path

import cv2
import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks'
SMALL = ['--images', '2', '--rounds', '1', '--local', '1']


@pytest.fixture
def loader(monkeypatch):
    threads = cv2.getNumThreads()
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module('loader')
    cv2.setNumThreads(threads)


def test_all_pipelines_are_measured(loader, capsys):
    assert loader.main([*SMALL, '--size', '240x180']) == 0
    printed = capsys.readouterr().out
    for row in (
        'ours',
        'reduced decode',
        'color on device',
        'Pillow and torchvision',
    ):
        assert row in printed


def test_a_folder_of_ones_own(loader, image_folder, capsys):
    assert loader.main([*SMALL, '--data', str(image_folder)]) == 0
    assert '2 images of' in capsys.readouterr().out


def test_a_folder_without_images(loader, tmp_path, capsys):
    assert loader.main([*SMALL, '--data', str(tmp_path)]) == 2
    assert f'no images in --data {tmp_path}' in capsys.readouterr().err
