# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/recipe.py, from a folder to a detector's config."""

import re

import pytest
import torch
from classification_data import draw
from commands import call, refusal
from detection_data import make_coco
from digit_runs import save_checkpoint
from mmengine import fileio

TOOL = 'tools/recipe.py'
OUT = ('images', '--out', 'my.py')
MEMORY = ('--gpus', '1', '--gpu-memory')
DETECTOR = (
    *('--detector', 'any.json', '--out', 'my.py'),
    *('--pretrained', 'any.json'),
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of 100 images, in another to write to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for i in range(100):
        draw(tmp_path / f'images/{i}.jpg', i % 2, i)
    return tmp_path


def test_a_config_and_what_follows(folder):
    """Also what differs from what was asked."""
    for i in range(3):
        (folder / f'images/bad{i}.jpg').write_bytes(b'no image')
    done = call(TOOL, 'images', '--out', 'my.py', '--steps', 3, cwd=folder)
    assert not done.returncode, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == 'my.py: SCFS for 100 images'
    rows = {line[:11].strip(): line[11:] for line in lines}
    assert rows['images'] == '100, 40 px on the shorter side (median)'
    assert rows['left out'].startswith('3 files that cannot be opened: ')
    assert 'check_dataset.py images --decode names them' in rows['left out']
    # 103 // 48 = 2 steps an epoch.
    assert rows['length'] == '4 steps of 48 images, 2 epochs'
    start = '4 steps, not 3: a run has whole epochs, here of 2 '
    assert rows['rounded'].startswith(start)
    assert ' minutes: 3 steps took ' in rows['time']
    assert '  python tools/train.py my.py' in lines
    assert lines[-1] == (
        '  python tools/recipe.py --detector ANNOTATIONS.json --images images '
        '--pretrained work_dirs/my/epoch_2.pth --out my_det.py'
    )
    assert (folder / 'my.py').is_file()


def test_a_config_for_other_machines(folder):
    options = ('--gpus', 8, '--gpu-memory', 80)
    done = call(TOOL, 'images', '--out', 'my.py', *options, cwd=folder)
    assert not done.returncode, done.output
    assert '  tools/dist_train.sh my.py 8\n' in done.stdout
    assert 'left out' not in done.stdout
    assert 'rounded' not in done.stdout
    assert ' no step can be timed on this machine' in done.stdout
    text = (folder / 'my.py').read_text()
    assert '    num_workers=8,\n' in text  # as in the paper's config
    # ResNet-18, its projectors and 100 prototypes are 22.6 million weights:
    # 12 bytes each with teacher and momentum, 0.25 GiB; 0.19 for the head's
    # chunks. Gradients, 0.08, and weights in fp16, 0.04; 6 small images.
    (memory,) = re.findall(
        '  memory   about (.*) GiB of 80.0 GiB for each process', done.stdout
    )
    assert float(memory) == pytest.approx(0.6, abs=0.11)


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
    assert any(' 3 steps took ' in line for line in lines)
    # 0.84 GiB of libraries, 1 million parameters, and little for small images.
    assert any('  memory   about 0.9 GiB of ' in line for line in lines)
    assert lines[-1] == (
        '  python tools/detect.py my_det.py work_dirs/my_det/iter_1000.pth '
        'NEW_IMAGES --out work_dirs/my_det/found'
    )
    assert 'index' not in done.output  # what pycocotools prints
    assert 'paramwise_options' not in done.output
    train = 'python tools/train.py my_det.py --pretrained epoch_14.pth'
    assert f'  {train}' in lines


def test_what_an_export_lacks(folder, monkeypatch):
    """Masks, ``iscrowd``, and a box of the class that a tool adds."""
    make_coco(folder / 'boxes', folder / 'all.json', ('a', 'b'), 60)
    content = fileio.load(folder / 'all.json')
    content['categories'].insert(0, dict(id=0, name='things'))
    for annotation in content['annotations']:
        del annotation['segmentation'], annotation['iscrowd']
    fileio.dump(content, folder / 'all.json')
    checkpoint = save_checkpoint(folder / 'epoch_14.pth')
    monkeypatch.setattr('mmscfs.recipes.time_step', lambda *_: 10.0)
    words = ('--detector', 'all.json', '--pretrained', checkpoint.name)
    words += ('--images', 'boxes', '--gpus', 0, '--out')
    done = call(TOOL, *words, 'a.py', '--steps', 3, cwd=folder)
    assert not done.returncode, done.output
    lines = done.stdout.splitlines()
    start = 'a.py: Faster R-CNN, 3 classes, from a ResNet-18 of 16 channels'
    assert lines[0] == start
    assert lines[2].startswith("  Classes without a box: 'things'. Remove ")
    # 24 of 60 images.
    assert '  length   3 steps of 8 images, 0.4 epochs' in lines
    text = (folder / 'a.py').read_text()
    assert text.startswith('# Faster R-CNN for 60 images of all.json')
    for name in ('train', 'val'):
        part = fileio.load(folder / f'a_{name}.json')
        assert {a['iscrowd'] for a in part['annotations']} == {0}
    # 1,000 steps of 10 s.
    done = call(TOOL, *words, 'b.py', cwd=folder)
    took = 'about 2.8 hours: 3 steps took 10.00 s each; for a first try name '
    assert f'  time     {took}fewer steps with --steps\n' in done.stdout


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['empty', '--out', 'my.py'], 'no image in '),
        (['images', '--out', 'my.txt'], "my.txt': a config ends with .py"),
        (['images', '--out', 'any.py'], "any.py' exists: name another file"),
        (
            ['images', '--out', 'no/my.py'],
            'as my.py: the folder does not exist',
        ),
        ([*OUT, '--labeled', 'images'], "images' has no folder 'train': put"),
        ([*OUT, '--steps', '0'], '--steps: 0 must be a whole number >= 2'),
        ([*OUT, '--gpus', '2'], '--gpus 2: this machine has no GPU to look'),
        ([*OUT, '--gpu-memory', '80'], '--gpu-memory 80: this machine has no'),
        ([*OUT, *MEMORY, '0'], "--gpu-memory: '0' must be GiB above 0"),
        ([*OUT, *MEMORY, '0.4'], '0.4 GiB of free GPU memory do not hold'),
        ([*OUT, '--gpu-memory', '8', '--gpus', '0'], '--gpus 0 says CPU'),
        ([*OUT, '--val', 'any.json'], '--val is for --detector: leave it out'),
        ([*OUT, '--detector', 'any.json'], 'and --detector any.json are two'),
        (OUT[1:], 'name a folder of images, or --detector'),
        ([*DETECTOR[:4]], '--detector requires --pretrained CHECKPOINT'),
        ([*DETECTOR, '--labeled', 'labeled'], '--labeled is for a pre-train'),
        ([*DETECTOR, '--val-images', 'images'], '--val-images is for --val'),
        (DETECTOR, "any.json' has no images: its list 'images' is empty"),
        (['--detector', 'win.json', *DETECTOR[2:]], 'is a path of Windows'),
    ],
)
def test_refusals(folder, words, message):
    (folder / 'empty').mkdir()
    for name in ('train', 'val'):
        (folder / 'labeled' / name).mkdir(parents=True)
    (folder / 'any.py').touch()
    (folder / 'any.json').write_text('{}')
    name = next((folder / 'images').rglob('*.jpg')).name
    image = dict(id=1, file_name=f'mine\\{name}', width=8, height=8)
    lists = dict(annotations=[], categories=[dict(id=1, name='a')])
    fileio.dump(dict(lists, images=[image]), folder / 'win.json')
    assert message in refusal(TOOL, *words, cwd=folder)
    assert not (folder / 'my.py').exists()
