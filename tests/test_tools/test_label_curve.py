# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/label_curve.py with stand-ins; test_demo.py has real trainings."""

import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest
from commands import ROOT, stand_in
from digit_runs import DETECT, ONE_ITERATION, coco_options
from mmengine.config import Config
from report_runs import write_start

from mmscfs.visualization import curves

LENGTH = 20
# AP in percent by start and number of images, less the seed's.
AP = dict(random={4: 10, 8: 14}, scfs={4: 12, 8: 15})
DIGITS = str(ROOT / DETECT)


@pytest.fixture
def tool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    return importlib.import_module('label_curve')


class Trainings:
    """What tools/train.py leaves behind, and which of them were called."""

    def __init__(self):
        self.calls = []

    def __call__(self, command, log_file):
        folder = Path(command[command.index('--work-dir') + 1])
        start, run = folder.parts[-2:]
        self.calls.append(f'{start}/{run}')
        images, seed = (int(word) for word in run.split('-')[::2])
        lines = [dict(loss=2.0, iter=LENGTH, step=LENGTH)]
        # At seed 1 the starts differ by 0.2 points more.
        ap = AP[start][images] + seed * (1.2 if start == 'scfs' else 1)
        lines.append({'coco/bbox_mAP': ap / 100, 'step': LENGTH})
        logger = dict(type='LoggerHook', log_metric_by_epoch=False)
        cfg = dict(
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=LENGTH),
            default_hooks=dict(logger=logger),
        )
        write_start(folder, cfg, lines)
        return 0


@pytest.fixture
def trainings(tool, monkeypatch):
    fake = Trainings()
    stand_in(monkeypatch, fake)
    return fake


@pytest.fixture
def label_curve(tool, digit_scenes, pretrained):
    """A function that calls the tool on sixteen scenes."""

    def call(*words, config=DIGITS):
        return tool.main(
            [
                *(config, '--work-dir', 'work', '--starts', 'random'),
                *(f'scfs={pretrained}', '--images', '4', '8'),
                *('--iterations', str(LENGTH)),
                *map(str, words),
                *coco_options(digit_scenes)[: -len(ONE_ITERATION)],
            ]
        )

    return call


def test_commands_and_their_configs(label_curve, pretrained, capsys):
    assert label_curve('--seeds', 0, 5, '--dry-run') == 0
    out, err = capsys.readouterr()
    assert '16 annotated images, of which 4, 8: 8 trainings of 20 steps' in err
    commands = [shlex.split(line) for line in out.splitlines()]
    python = [sys.executable, str(ROOT / 'tools/train.py')]
    expected = []
    for seed, images in ((0, 4), (0, 8), (5, 4), (5, 8)):
        run = f'{images}-images_seed-{seed}'
        for start, more in (
            ('random', []),
            ('scfs', ['--pretrained', str(pretrained)]),
        ):
            expected.append(
                [
                    *(*python, f'work/configs/{run}.py', *more),
                    *('--work-dir', f'work/{start}/{run}', '--resume'),
                    *('--cfg-options', f'randomness.seed={seed}'),
                ]
            )
    assert commands == expected
    assert [path.name for path in Path('work').iterdir()] == ['configs']
    drawn = {}
    for path in Path('work/configs').iterdir():
        cfg = Config.fromfile(path)
        indices = cfg.train_dataloader.dataset.indices
        assert len({*indices} & {*range(16)}) == int(path.stem.split('-')[0])
        drawn[path.stem] = {*indices}
        train = cfg.train_cfg
        assert (train.max_iters, train.val_interval) == (LENGTH, LENGTH)
        # The schedule follows: 40 steps of warm-up in 500.
        ends = [schedule.end for schedule in cfg.param_scheduler]
        assert ends == [2, LENGTH]
    for seed in (0, 5):
        few, many = (drawn[f'{n}-images_seed-{seed}'] for n in (4, 8))
        assert few < many
    assert drawn['8-images_seed-0'] != drawn['8-images_seed-5']


def test_a_checkpoint_for_each_seed(label_curve, pretrained, capsys):
    own = pretrained.with_name('seed-{seed}.pth')
    for seed in (0, 5):
        own.with_name(f'seed-{seed}.pth').symlink_to(pretrained)
    words = ('--seeds', 0, 5, '--starts', f'own={own}', '--dry-run')
    assert label_curve(*words) == 0
    commands = [shlex.split(s) for s in capsys.readouterr().out.splitlines()]
    found = [words[words.index('--pretrained') + 1] for words in commands]
    names = [Path(path).name for path in found]
    assert names == ['seed-0.pth'] * 2 + ['seed-5.pth'] * 2


def test_table_plot_and_sentence(label_curve, trainings, capsys):
    assert label_curve('--seeds', 0, 1) == 0
    assert len(trainings.calls) == 8
    # 2 and 2.2, deviation 0.1414: half 12.7062 * 0.1 = 1.27. 12.6 is on the
    # way from 10.5 to 14.5, of 4 to 8 images: 4 * 2 ** (2.1 / 4).
    sentence = (
        'scfs against random: +2.1 ± 1.3 AP with 4 annotated images; +1.1 ± '
        '1.3 with 8 (not told from 0). For the 12.6 AP that scfs reaches with '
        '4 annotated images, random needs about 6: it saves 2.'
    )
    assert sentence in capsys.readouterr().out
    text = Path('work/label_curve.md').read_text()
    assert sentence in text
    # Halves: 12.7062 * 1 / 2 and 12.7062 * 1.2 / 2.
    assert '## box AP of mask-rcnn_r18-w16-fpn_demo_digits\n' in text
    assert '| **random** | **2** | **10.5 ± 6.4** | **14.5 ± 6.4** |' in text
    assert '| **scfs** | **2** | **12.6 ± 7.6** | **15.6 ± 7.6** |' in text
    assert '| **scfs** | **2** | **2.1 ± 1.3** | **1.1 ± 1.3** |' in text
    content = json.loads(Path('work/label_curve.json').read_text())
    point = content['curves']['scfs']['8']
    assert point == dict(mean=pytest.approx(15.6), half=point['half'], seeds=2)
    assert content['sentences'] == [sentence]
    assert len(content['runs']) == 8
    assert content['runs'][0] == dict(
        start='random', images=4, seed=0, checkpoint=None, AP=10.0
    )
    assert Path('work/label_curve.png').read_bytes()[:4] == b'\x89PNG'


def test_plot(tmp_path, monkeypatch):
    """Bars from mean less half to mean and half, at the numbers of images."""
    drawn = []
    monkeypatch.setattr(curves, '_save', lambda axes, path: drawn.append(axes))
    found = dict(a={200: (18.0, 0), 48: (9.0, 1.5)}, b={48: (11.0, 2.0)})
    curves.draw_label_curves(found, 'box AP', tmp_path / 'a.png')
    (axes,) = drawn
    assert axes.get_ylabel() == 'box AP (%)'
    assert axes.get_xscale() == 'log'
    assert [*axes.get_xticks()] == [48, 200]
    first, second = axes.containers
    line, _, (bars,) = first
    assert line.get_xydata().tolist() == [[48, 9], [200, 18]]
    assert [[*y] for y in bars.get_segments()[0]] == [[48, 7.5], [48, 10.5]]
    (low, high) = second[2][0].get_segments()[0]
    assert (low[1], high[1]) == (9, 13)
    assert 48 < low[0] < 50


@pytest.mark.parametrize(
    ('words', 'error'),
    [
        ('--starts random scfs', '--starts: scfs: name "random", or NAME='),
        ('--starts a/b=a.pth', '--starts: a/b=a.pth: name "random", or'),
        ('--starts random random', '--starts random is there twice'),
        ('--starts a={seed}.pth', "--starts: no checkpoint '0.pth'"),
        ('--images 0%', '--images: 0% must be a whole number >= 1, or a'),
    ],
)
def test_bad_arguments(tool, capsys, words, error):
    given = ['a.py', '--starts', 'random', '--images', '4', *words.split()]
    with pytest.raises(SystemExit) as caught:
        tool.main(given)
    assert caught.value.code == 2
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'error'),
    [
        ('--images 17', '--images 17: 17 of 16 annotated images'),
        ('--images 8 50%', '--images 8 50%: 8 after 8. Name ascending'),
        ('--starts a=wide.pth', '--starts a: '),
    ],
)
def test_refusals(label_curve, tmp_path, capsys, words, error):
    """Before the first training, and before anything is written."""
    import torch
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), 'wide.pth')
    assert label_curve(*words.split()) == 2
    assert error in capsys.readouterr().err
    assert not Path('work').exists()


@pytest.mark.parametrize(
    ('text', 'words', 'error'),
    [
        (
            "train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', "
            'max_epochs=3)\n'
            "param_scheduler = [dict(type='MultiStepLR', milestones=[2])]",
            '',
            'trains for 3 epochs, which are fewer steps with fewer images',
        ),
        ("load_from = 'a.pth'", '', "load_from='a.pth' of own.py would"),
        (
            'val_evaluator = val_cfg = val_dataloader = None',
            '--iterations 20',
            'own.py does not train and validate: it lacks val_evaluator. Name',
        ),
    ],
)
def test_configs_that_do_not_fit(tool, capsys, text, words, error):
    Path('own.py').write_text(f'_base_ = [{DIGITS!r}]\n{text}\n')
    given = ['own.py', '--starts', 'random', '--images', '4', *words.split()]
    assert tool.main(given) == 2
    assert error in capsys.readouterr().err


def test_random_is_random(label_curve, trainings, capsys):
    """A checkpoint of the config is left out, and frozen stages are named."""
    Path('own.py').write_text(
        f'_base_ = [{DIGITS!r}]\n'
        "start = dict(_delete_=True, type='Pretrained', checkpoint='a.pth')\n"
        'model = dict(backbone=dict(frozen_stages=1, init_cfg=start))\n'
    )
    code = label_curve('--dry-run', '--seeds', 0, config='own.py')
    out, err = capsys.readouterr()
    assert code == 0, err
    for line in out.splitlines():
        is_random = '/random/' in line
        assert ('model.backbone.init_cfg=None' in line) == is_random
    assert 'warning: model.backbone.frozen_stages=1 keeps random' in err
