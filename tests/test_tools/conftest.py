# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
from commands import call
from digit_runs import save_checkpoint


@pytest.fixture(scope='module')
def digit_scenes(tmp_path_factory):
    """Sixteen training and eight validation scenes, COCO and VOC."""
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    done = call(
        'tools/dataset_converters/make_digit_scenes.py',
        *('--out', folder, '--train', 16, '--val', 8, '--workers', 0),
    )
    assert done.returncode == 0, done.output
    return folder


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """A raw checkpoint of the demo's model."""
    return save_checkpoint(tmp_path_factory.mktemp('weights') / 'epoch_14.pth')
