# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The length of a run, changed alone; the figures are worked out by hand."""

import mmpretrain
import pytest

from mmscfs.settings import read_config
from mmscfs.settings.lengths import count_iterations

DENSENET = 'densenet121_4xb256_in1k.py'
SCFS = 'scfs_r50.py'  # 200 epochs, 10 of them warm-up
DEMO = 'scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
VIT = 'dino/dino_vit-small-p16_8xb32-mcrop-coslr-200e_in100.py'
RCNN = 'detection/coco/mask-rcnn_r50-fpn_1x_coco.py'
SCENES = 'detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py'
VOC = 'detection/voc/faster-rcnn_r50-c4_24k_voc0712.py'
LINEAR = 'classification/linear/resnet50_8xb32-linear-coslr-100e_in1k.py'
STEPS = 'classification/linear/resnet50_8xb32-linear-steplr-100e_in1k.py'
BYOL = 'peers/byol_resnet50_16xb256-coslr-200e_in1k.py'
WARM_UP = 'default_hooks.teacher_temp'
SCHEDULE = "param_scheduler = [dict(type='CosineAnnealingLR', end=60)]\n"


def times(cfg):
    """Return begin and end of each schedule, and what else it has of times."""
    return [
        (
            item.get('begin', 0),
            item.get('end'),
            *(item[key] for key in ('milestones', 'T_max') if key in item),
        )
        for item in cfg.param_scheduler
    ]


@pytest.mark.parametrize(
    ('name', 'length', 'expected'),
    [
        # The warm-up keeps its share of a shorter run, half an epoch at least
        (SCFS, 100, [(0, 5), (5, 100)]),
        (SCFS, 1, [(0, 0.5), (0.5, 1)]),
        # and its length in a longer one, as the paper's of 800 epochs has it.
        (SCFS, 800, [(0, 10), (10, 800)]),
        # The weight decay too
        (VIT, 50, [(0, 2.5), (2.5, 50), (0, 50)]),
        # A warm-up in iterations is not touched in a run of epochs.
        (RCNN, 24, [(0, 500), (0, 24, [16, 22])]),
        # Each milestone in another epoch; a run too short drops the first.
        (RCNN, 3, [(0, 500), (0, 3, [1, 2])]),
        (RCNN, 1, [(0, 500), (0, 1, [])]),
        (VOC, 2400, [(0, 10), (0, 2400, [1800, 2200])]),
        (SCENES, 200, [(0, 16), (16, 200)]),
        (LINEAR, 10, [(0, 10, 10)]),
        (STEPS, 10, [(0, None, [6, 8])]),
        # Whole epochs, where a schedule steps once an epoch
        (BYOL, 10, [(0, 1), (1, 10, 9)]),
    ],
)
def test_the_length_alone_is_enough(name, length, expected, read):
    unit = 'iters' if length > 1000 or name == SCENES else 'epochs'
    cfg, _ = read(name, {f'train_cfg.max_{unit}': length})
    assert times(cfg) == expected


def test_a_file_that_sets_the_length(read, tmp_path):
    """Also one that inherits from it."""
    wanted = [(0, 500), (0, 3, [1, 2])]
    cfg, lines = read(RCNN, text='train_cfg = dict(max_epochs=3)\n')
    assert times(cfg) == wanted
    assert lines == read(RCNN, {'train_cfg.max_epochs': 3})[1]
    heir = tmp_path / 'heir.py'
    heir.write_text("_base_ = ['child.py']\nlog_level = 'INFO'\n")
    assert times(read(heir)[0]) == wanted


@pytest.mark.parametrize(
    ('name', 'length', 'hook', 'expected'),
    [
        # Frozen for the whole run, also of another length
        (DEMO, 25, 'frozen_prototypes', dict(epochs=25)),
        # For the first epoch, and at least that
        (SCFS, 20, 'frozen_prototypes', dict(epochs=1)),
        # A quarter of the run, and no more epochs in a longer one
        (SCFS, 20, 'teacher_temp', dict(warmup_epochs=5)),
        (SCFS, 800, 'teacher_temp', dict(warmup_epochs=50)),
    ],
)
def test_hooks_follow_the_length(name, length, hook, expected, read):
    cfg, _ = read(name, {'train_cfg.max_epochs': length})
    found = cfg.default_hooks[hook]
    assert {key: found[key] for key in expected} == expected


def test_a_time_between_happens_at_the_same_share(read, tmp_path):
    """A span keeps its length in a longer run."""
    hooks = (
        "custom_hooks = [dict(type='Switch', switch_epoch=180, "
        'num_last_epochs=20, interval=20)]\n'
    )
    read(SCFS, text=hooks)
    heir = tmp_path / 'heir.py'
    for length, switch, last in ((100, 90, 10), (400, 360, 20)):
        heir.write_text(
            f"_base_ = ['child.py']\ntrain_cfg = dict(max_epochs={length})\n"
        )
        cfg, _ = read(heir)
        assert cfg.custom_hooks[0] == dict(
            type='Switch',
            switch_epoch=switch,
            num_last_epochs=last,
            interval=20,
        )


def test_each_change_is_one_line_with_both_lengths(read):
    _, lines = read(SCFS, {'train_cfg.max_epochs': 100})
    end = ', for train_cfg.max_epochs=100 instead of 200'
    assert lines == [
        f'param_scheduler.0: end 10 -> 5{end}',
        f'param_scheduler.1: begin 10 -> 5, end 200 -> 100{end}',
        f'default_hooks.teacher_temp: warmup_epochs 50 -> 25{end}',
    ]


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        # What is set stays, and what meets it.
        ({'param_scheduler.1.end': 40}, [(0, 10), (10, 40)]),
        (
            {'param_scheduler.0.end': 3, 'param_scheduler.1.begin': 3},
            [(0, 3), (3, 50)],
        ),
    ],
)
def test_what_an_option_sets_stays(options, expected, read):
    options = {'train_cfg.max_epochs': 50, **options}
    cfg, _ = read(SCFS, {**options, 'default_hooks.teacher_temp.end': 0.05})
    assert times(cfg) == expected
    assert cfg.default_hooks.teacher_temp.warmup_epochs == 12


def test_a_file_that_sets_both_is_taken_as_it_is(read):
    cfg, lines = read(
        SCFS,
        text=f'train_cfg = dict(max_epochs=100)\n{SCHEDULE}'
        'default_hooks = dict(teacher_temp=dict(warmup_epochs=10))\n',
    )
    assert times(cfg) == [(0, 60)]
    assert cfg.default_hooks.teacher_temp.warmup_epochs == 10
    assert lines == []


def test_a_package_may_have_a_recipe_of_another_length(read):
    """The schedule's milestones are of 100 epochs, DenseNet's run has 90."""
    (folder,) = mmpretrain.__path__
    cfg, lines = read(f'{folder}/.mim/configs/densenet/{DENSENET}')
    assert cfg.train_cfg.max_epochs == 90
    assert cfg.param_scheduler.milestones == [30, 60, 90]
    assert lines == []
    cfg, _ = read(cfg.filename, {'train_cfg.max_epochs': 30})
    assert cfg.param_scheduler.milestones == [10, 20, 30]


@pytest.mark.parametrize(
    ('options', 'length', 'named'),
    [
        (
            {'param_scheduler.0.end': 2, 'param_scheduler.1.begin': 10},
            9,
            'param_scheduler.1.begin=10',
        ),
        # A schedule of any kind that the run does not end with
        ({'param_scheduler.1.end': 51}, 50, 'param_scheduler.1.end=51'),
        ({'param_scheduler.1.end': 199}, 200, 'factor=1, begin=199, end=200)'),
        ({f'{WARM_UP}.warmup_epochs': 50}, 9, f'{WARM_UP}.warmup_epochs=50'),
    ],
)
def test_what_lies_beyond_a_training_is_named(options, length, named, read):
    options['train_cfg.max_epochs'] = length
    read(SCFS, options)  # to look at, or to test
    with pytest.raises(ValueError, match='end of the run') as caught:
        read(SCFS, options, for_training=True)
    assert named in str(caught.value)
    assert f'train_cfg.max_epochs={length}' in str(caught.value)


def test_a_constant_rate_at_the_end_is_taken(read):
    text = (
        "param_scheduler = [dict(type='LinearLR', end=5), "
        "dict(type='CosineAnnealingLR', begin=5, end=180), "
        "dict(type='ConstantLR', factor=1, begin=180, end=200)]\n"
    )
    cfg, _ = read(SCFS, text=text, for_training=True)
    assert [s.end for s in cfg.param_scheduler] == [5, 180, 200]
    # So is one from the warm-up to the end, of no schedule.
    text = "param_scheduler = [dict(type='ConstantLR', factor=0.3, end=5)]\n"
    read(SCFS, text=text, for_training=True)


@pytest.mark.parametrize(
    ('files', 'expected'),
    [
        # Of a package, whose files get its scope where they are inherited.
        (
            {
                'a.py': "_base_ = ['mmdet::faster_rcnn/"
                "faster-rcnn_r50_fpn_1x_coco.py']\n"
                'train_cfg = dict(max_epochs=24)'
            },
            [(0, 500), (0, 24, [16, 22])],
        ),
        # Schedule and length of two bases.
        (
            {
                'a.py': "_base_ = ['./s.py', './l.py']\n"
                'train_cfg = dict(max_epochs=3)',
                's.py': "param_scheduler = [dict(type='CosineAnnealingLR', "
                'by_epoch=True, begin=0, end=14)]',
                'l.py': 'train_cfg = dict(by_epoch=True, max_epochs=14)',
            },
            [(0, 3)],
        ),
        # One that its file has made for the new length.
        (
            {
                'a.py': "_base_ = ['./l.py']\n"
                "param_scheduler = [dict(type='CosineAnnealingLR', "
                'by_epoch=True, begin=0, end=3)]',
                'l.py': 'train_cfg = dict(by_epoch=True, max_epochs=14)',
            },
            [(0, 3)],
        ),
    ],
)
def test_schedules_of_inherited_files(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    options = {} if len(files) != 2 else {'train_cfg.max_epochs': 3}
    cfg, _ = read_config(str(tmp_path / 'a.py'), options)
    assert times(cfg) == expected


def test_epochs_become_iterations(read):
    """Of 12 epochs with milestones at 8 and 11, and 500 steps of warm-up."""
    cfg, _ = read(RCNN)
    count_iterations(cfg, 24000)
    assert cfg.train_cfg == dict(
        type='IterBasedTrainLoop', max_iters=24000, val_interval=24000
    )
    assert times(cfg) == [(0, 500), (0, 24000, [16000, 22000])]
    assert not any(item.by_epoch for item in cfg.param_scheduler)
    assert cfg.train_dataloader.sampler == dict(type='InfiniteSampler')
    checkpoint = cfg.default_hooks.checkpoint
    assert (checkpoint.by_epoch, checkpoint.interval) == (False, 6000)
    assert cfg.log_processor.by_epoch is False
    with pytest.raises(ValueError, match='counts no epochs'):
        count_iterations(cfg, 24000)


@pytest.mark.parametrize(
    ('options', 'error'),
    [
        (
            {'custom_hooks': [dict(type='EMAHook', begin_epoch=3)]},
            'custom_hooks.0.begin_epoch=3 counts epochs',
        ),
        (
            {'param_scheduler': [dict(type='ExponentialLR', gamma=0.5)]},
            'param_scheduler.0 multiplies the rate by gamma=0.5 in each epoch',
        ),
    ],
)
def test_what_has_no_counterpart_in_iterations(read, options, error):
    cfg, _ = read(RCNN)
    cfg.merge_from_dict(options)
    with pytest.raises(ValueError, match=error):
        count_iterations(cfg, 100)
