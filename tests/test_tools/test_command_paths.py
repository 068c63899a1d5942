# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Wrong paths, which every command refuses before it imports torch."""

import os

import pytest
from commands import ROOT, call_fresh, load_tool

CONFIG = str(ROOT / 'configs/scfs_r50.py')
WEIGHTS = 'runs/epoch_200.pth'
NO_CONFIG = "config: no config file 'mi.py': '.' has my.py; those of mmscfs "
NO_WEIGHTS = f"no checkpoint 'runs/epoch_20.pth': 'runs' has {WEIGHTS[5:]}"
NO_FOLDER = "no folder 'imges': '.' has images"
NEW = ('--out', 'new.py')
# A command, its words, and the argument and the problem that it names.
WRONG = [
    ('train', ['mi.py'], NO_CONFIG),
    ('train', ['mmscfs::scfs_r5'], "'mmscfs::scfs_r5': '{root}/configs' has "),
    ('train', [CONFIG, '--pretrained', 'runs/epoch_20.pth'], NO_WEIGHTS),
    (
        'train',
        [CONFIG, '--pretrained', 'mmscfs::none'],
        "--pretrained: no weights 'mmscfs::none': those of mmscfs are mmscfs:",
    ),
    (
        'train',
        [CONFIG, '--resume', 'rnus/epoch_200.pth'],
        "--resume: no checkpoint 'rnus/epoch_200.pth': the folder 'rnus' does "
        "not exist; '.' has runs",
    ),
    (
        'train',
        [CONFIG, '--cfg-options', 'train_dataloader.dataset.data_root=imges'],
        f'--cfg-options: train_dataloader.dataset.data_root: {NO_FOLDER}',
    ),
    ('train', [CONFIG, '--cfg-options', 'a=[1,2'], 'a=[1,2: Imbalanced br'),
    ('train', [CONFIG, '--resmue'], '--resmue; did you mean --resume?'),
    ('test', [CONFIG, 'runs/epoch_20.pth'], NO_WEIGHTS),
    ('doctor', ['mi.py'], NO_CONFIG),
    ('sweep', ['mi.py'], "list: no file 'mi.py': '.' has my.py"),
    ('recipe', ['imges', *NEW], NO_FOLDER),
    (
        'recipe',
        ['--detector', 'lables.json', '--pretrained', WEIGHTS, *NEW],
        "--detector: no file 'lables.json': '.' has labels.json",
    ),
    (
        'recipe',
        ['--detector', 'labels.json', '--pretrained', '~/no.pth', *NEW],
        "--pretrained: no checkpoint '{home}/no.pth'",
    ),
    (
        'visualization/vis_search',
        ['dog.jpg', '--checkpoint', WEIGHTS],
        "IMAGE: no image 'dog.jpg': '.' has no .jpg",
    ),
    (
        'visualization/vis_detections',
        [CONFIG, '--checkpoints', 'a=runs/epoch_20.pth'],
        NO_WEIGHTS,
    ),
    ('analysis_tools/report', ['rnus'], "no folder 'rnus': '.' has runs"),
    ('analysis_tools/results_table', ['rnus'], "'.' has runs"),
    (
        'dataset_converters/check_dataset',
        ['coco', '--root', 'x'],
        "folder 'x'",
    ),
]


@pytest.fixture(scope='module')
def answers(tmp_path_factory):
    """The folder in which the commands are called, and their answers."""
    folder = tmp_path_factory.mktemp('user')
    for name in ('images', 'runs'):
        (folder / name).mkdir()
    for name in ('my.py', 'labels.json', WEIGHTS):
        (folder / name).touch()
    calls = [(str(ROOT / f'tools/{name}.py'), w) for name, w, _ in WRONG]
    return folder, call_fresh(calls, folder, HOME=str(folder))


@pytest.mark.parametrize('number', range(len(WRONG)))
def test_refused_at_once_in_one_line(answers, number):
    folder, found = answers
    error = found[number]['text']
    assert found[number]['code'] == 2
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert WRONG[number][2].format(root=ROOT, home=folder) in error
    assert not found[number]['torch'], 'the error waits for torch'


def test_what_is_there(tmp_path, monkeypatch):
    tool = load_tool('command_paths')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'runs').mkdir()
    # The newest, if no name is like it; a folder and a hidden file never.
    for age, name in enumerate(('d.pth', 'c.pth', 'b.pth', 'a.pth', '.x.pth')):
        (tmp_path / 'runs' / name).touch()
        os.utime(tmp_path / 'runs' / name, (1e9 - age, 1e9 - age))
    (tmp_path / 'runs/e.pth').mkdir()
    there = "'runs' has d.pth, c.pth, b.pth and 1 more"
    assert tool.what_is_there('runs/epoch_12.pth') == there
    assert tool.what_is_there('runs/last.safetensors') == (
        "'runs' has no .safetensors"
    )
    assert tool.what_is_there('runs') == 'name a file'
    assert tool.what_is_there('runs/d.pth', True) == 'name a folder'
    assert tool.what_is_there('far/off/a.pth') == (
        "the folder 'far' does not exist; '.' has runs"
    )
    assert tool.config('mmscfs::scfs_r50') == f'{ROOT}/configs/scfs_r50.py'
    name = 'mmscfs::scfs_resnet18-w16_digit-cards'
    assert tool.checkpoint(name) == name
