# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/recipe.py, from a folder to a detector's config."""

import pytest
import torch
from classification_data import draw
from commands import call, refusal
from detection_data import make_coco
from digit_runs import save_checkpoint

TOOL = 'tools/recipe.py'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of 100 images, in another to write to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for i in range(100):
        draw(tmp_path / f'images/{i}.jpg', i % 2, i)
    return tmp_path


def test_a_config_and_what_follows(folder):
    done = call(TOOL, 'images', '--out', 'my.py', '--steps', 40, cwd=folder)
    assert not done.returncode, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == 'my.py: SCFS for 100 images'
    assert '  images   100, 40 px on the shorter side (median)' in lines
    # 100 // 48 = 2 steps an epoch.
    assert '  length   40 steps of 48 images, 20 epochs' in lines
    (time,) = (line for line in lines if line.startswith('  time '))
    assert ' minutes: 3 steps took ' in time
    assert '  python tools/train.py my.py' in lines
    assert 'work_dirs/my/epoch_20.pth --out my_det.py' in lines[-1]
    assert (folder / 'my.py').is_file()


def test_a_config_for_other_machines(folder):
    options = ('--gpus', 8, '--gpu-memory', 80)
    done = call(TOOL, 'images', '--out', 'my.py', *options, cwd=folder)
    assert not done.returncode, done.output
    assert '  tools/dist_train.sh my.py 8\n' in done.stdout
    assert ' no step can be timed on this machine' in done.stdout
    text = (folder / 'my.py').read_text()
    assert '    num_workers=8,\n' in text  # as in the paper's config
    # 0.9e9 / 2**30 = 0.84 GiB, and little for 6 small images.
    assert (
        '  memory   about 0.9 GiB of 80.0 GiB for each process' in done.stdout
    )


def test_a_detector_and_what_follows(folder):
    make_coco(folder / 'boxes', folder / 'boxes/all.json', ('a', 'b'), 60)
    checkpoint = save_checkpoint(folder / 'epoch_14.pth')
    words = ('--detector', 'boxes/all.json', '--pretrained', checkpoint.name)
    done = call(TOOL, *words, '--out', 'my_det.py', cwd=folder)
    assert not done.returncode, done.output
    lines = done.stdout.splitlines()
    start = 'my_det.py: Mask R-CNN, 2 classes, from a ResNet-18 of 16 channels'
    assert lines[0] == start
    assert 'my_det_val.json' in lines[1]
    # Eight images a step: 1,000 steps are 133 epochs of 60.
    assert '  length   1,000 steps of 8 images, 133 epochs' in lines
    (time,) = (line for line in lines if line.startswith('  time '))
    _, _, took, unit, *_, seconds, _, _ = time.split()
    length = dict([('minutes:', 60), ('hours:', 3600)])[unit]
    # Rounded: to a minute or a tenth of an hour, and to 0.01 s.
    expected = pytest.approx(1000 * float(seconds) / length, abs=0.7)
    assert float(took) == expected
    # 0.84 GiB of libraries, 1 million parameters, and little for small images.
    assert any('  memory   about 0.9 GiB of ' in line for line in lines)
    assert lines[-1] == (
        '  python tools/detect.py my_det.py work_dirs/my_det/iter_1000.pth '
        'NEW_IMAGES --out work_dirs/my_det/found'
    )
    assert 'index' not in done.output  # what pycocotools prints
    train = 'python tools/train.py my_det.py --pretrained epoch_14.pth'
    assert f'  {train}' in lines


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['none', '--out', 'my.py'], "no folder 'none'"),
        (['empty', '--out', 'my.py'], 'no image in '),
        (['images', '--out', 'there.py'], "'there.py' exists: name another"),
        (['images', '--out', 'no/my.py'], 'the folder does not exist'),
        (['images', '--out', 'my.txt'], 'a config ends with .py'),
        (['images', '--out', 'my.py', '--gpus', '2'], 'with --gpu-memory'),
        (['images', '--out', 'my.py', '--gpus', '-1'], 'at least 0'),
        (['images', '--out', 'my.py', '--labeled', 'images'], "'train'"),
        (['images', '--out', 'my.py', '--val', 'a'], '--val is for --detec'),
        (['--out', 'my.py'], 'name a folder of images, or --detector'),
        (['--detector', 'a', '--out', 'my.py'], 'requires --pretrained'),
    ],
)
def test_refusals(folder, words, message):
    (folder / 'empty').mkdir()
    (folder / 'there.py').touch()
    assert message in refusal(TOOL, *words, cwd=folder)
    assert not (folder / 'my.py').exists()
