# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What detection runs reached, and beside which rows of the paper."""

import copy
import functools
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from report_runs import write_start
from scored_runs import Toy, make_runner

from mmscfs.results.detection import read_run
from mmscfs.results.origin import ORIGINS
from mmscfs.results.paper import arrange

ROOT = Path(__file__).parents[2]
FPN = 'coco/mask-rcnn_r50-fpn_1x_coco'
FPN_2X = 'coco/mask-rcnn_r50-fpn_2x_coco'
C4 = 'coco/mask-rcnn_r50-c4_1x_coco'
VOC = 'voc/faster-rcnn_r50-c4_24k_voc0712'
SCORES = {
    'coco/bbox_mAP': 0.412,
    'coco/bbox_mAP_50': 0.623,
    'coco/bbox_mAP_75': 0.45,
    'coco/bbox_mAP_s': 0.2,
    'coco/segm_mAP': 0.371,
    'coco/segm_mAP_50': 0.588,
    'coco/segm_mAP_75': 0.394,
}
PERCENT = ['41.2', '62.3', '45.0', '37.1', '58.8', '39.4']
VOC_SCORES = {
    'pascal_voc/mAP': 0.5712,
    'pascal_voc/AP50': 0.829,
    'pascal_voc/AP75': 0.634,
}
TORCHVISION = dict(type='Pretrained', checkpoint='torchvision://resnet50')


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Every runner would ask the compilers for their versions."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.chdir(tmp_path)
    ORIGINS.clear()  # of files in the folders of other tests


@functools.cache
def read_config(path):
    return Config.fromfile(ROOT / f'configs/detection/{path}.py')


def detector(config, init_cfg=None, **changes):
    cfg = copy.deepcopy(read_config(config))
    cfg.model.backbone.init_cfg = init_cfg
    cfg.merge_from_dict(changes)
    return cfg


def epoch(number, scores=None):
    """The lines of an epoch: of its training, and of a validation."""
    train = dict(lr=0.1, loss=1.0, epoch=number, iter=100 * number)
    train['step'] = train['iter']
    return [train, dict(scores, time=0.1, step=number)] if scores else [train]


def run(name, config, init_cfg=None, scores=SCORES, **changes):
    """Write a finished run of a config; return its folder."""
    cfg = detector(config, init_cfg, **changes)
    step = cfg.train_cfg.get('max_iters')
    if step is None:
        lines = epoch(cfg.train_cfg.max_epochs, scores)
    else:
        train = dict(loss=1.0, iter=step, step=step)
        lines = [train, dict(scores, step=0)]
    write_start(Path(name), cfg.to_dict(), lines)
    return name


def pretrained(name, kind, data, epochs, network=None):
    """Write a checkpoint of ours; return what --pretrained sets."""
    path = Path(f'{name}.pth')
    cfg = (
        f'model = dict(type={kind!r})\n'
        f'train_dataloader = dict(dataset=dict(data_root={data!r}))\n'
    )
    state = {'teacher.backbone.conv1.weight': torch.zeros(2, 3, 7, 7)}
    meta = dict(cfg=cfg, epoch=epochs)
    torch.save(dict(state_dict=state, meta=meta), path)
    start = dict(type='Pretrained', _scope_='mmscfs', checkpoint=str(path))
    return start | (dict(network=network) if network else {})


def compare(*folders):
    """The rows of the tables: labels, scores and sources."""
    tables = arrange([read_run(folder) for folder in folders])
    return {
        table.title: [
            (*row.labels, row.cells(table.columns)[2:-1], row.source)
            for row in table.rows
        ]
        for table in tables
    }


def only(tables):
    assert len(tables) == 1
    return next(iter(tables.values()))


def ours(*folders):
    rows = only(compare(*folders))
    return [row for row in rows if row[-1].startswith('this run')]


# Which rows stand together


def test_table_4_in_the_order_of_the_paper():
    rows = only(
        compare(
            run('scfs', FPN, pretrained('scfs', 'SCFS', '', 200)),
            run('random', FPN),
            run('supervised', FPN, TORCHVISION),
            run('dino', FPN, pretrained('dino', 'DINO', 'in1k', 100)),
        )
    )
    assert [row for row in rows if row[3].startswith('this run')] == [
        ('random', '-', PERCENT, 'this run (random)'),
        ('supervised (torchvision)', '-', PERCENT, 'this run (supervised)'),
        ('DINO (in1k)', '100', PERCENT, 'this run (dino)'),
        ('SCFS', '200', PERCENT, 'this run (scfs)'),
    ]
    assert len([r for r in rows if r[3] == 'paper (Table 4)']) == 14


@pytest.mark.parametrize(
    ('config', 'scores', 'own', 'scratch'),
    [
        (FPN_2X, SCORES, PERCENT, '38.4 57.5 42.0 34.7 54.8 37.2'),
        (VOC, VOC_SCORES, ['57.1', '82.9', '63.4'], '33.8 60.2 33.1'),
    ],
)
def test_other_tables_have_their_columns(config, scores, own, scratch):
    rows = only(compare(run('a', config, None, scores)))
    number = 3 if config == VOC else 4
    source = f'paper (Table {number})'
    assert rows[0] == ('Scratch', '-', scratch.split(), source)
    assert rows[1] == ('random', '-', own, 'this run (a)')


@pytest.mark.parametrize('thresholds', [0.5, [0.5, 0.75]])
def test_map_over_few_thresholds_is_not_ap(thresholds):
    """mmdet's default of VOCMetric is 0.5: mAP is AP50."""
    scores = {'pascal_voc/mAP': 0.829, 'pascal_voc/AP50': 0.829}
    changes = dict(val_evaluator=dict(type='VOCMetric', iou_thrs=thresholds))
    run('a', VOC, None, scores, **changes)
    assert read_run('a').scores == {'AP50^b': pytest.approx(82.9)}


def test_pretraining_on_coco_is_table_6():
    """Random weights stand in both tables, if both are there."""
    runs = [
        run('a', FPN),
        run('b', FPN, pretrained('coco', 'SCFS', 'coco', 500)),
        run('c', FPN, pretrained('dino', 'DINO', 'in1k', 9)),
    ]
    found = {
        rows[0][-1]: [row[-1] for row in rows if 'this run' in row[-1]]
        for rows in compare(*runs).values()
    }
    assert found == {
        'paper (Table 4)': ['this run (a)', 'this run (c)'],
        'paper (Table 6)': ['this run (a)', 'this run (b)'],
    }


DATASET = 'train_dataloader.dataset'
MORE = dict(type='CocoDataset', ann_file='annotations/instances_more.json')
TRAINVAL = dict(type='VOCDataset', ann_file='ImageSets/Main/trainval.txt')


@pytest.mark.parametrize(
    ('config', 'changes'),
    [
        (C4, {}),
        ('coco/mask-rcnn_r50-fpn-4conv1fc_1x_coco', {}),
        (FPN, {'model.backbone.depth': 101}),
        (FPN, {'train_cfg.max_epochs': 6}),
        (FPN, {f'{DATASET}.indices': 1000}),
        (FPN, {'val_dataloader.dataset.ann_file': 'instances_test.json'}),
        (FPN, {f'{DATASET}.metainfo': dict(classes=('cat',))}),
        (FPN, {DATASET: dict(datasets=[MORE, MORE], _delete_=True)}),
        (VOC, {DATASET: dict(TRAINVAL, _delete_=True)}),
    ],
)
def test_the_paper_stands_beside_its_protocol_alone(config, changes):
    scores = VOC_SCORES if config == VOC else SCORES
    rows = only(compare(run('a', config, None, scores, **changes)))
    assert [row[3] for row in rows] == ['this run (a)']


# Work directories


def real_run(folder, cfg, scores, fails_at=None, test=False):
    """Let mmengine write a work directory: an iteration an epoch."""
    prefix = 'pascal_voc' if 'VOC' in str(cfg.val_evaluator) else 'coco'
    logger = cfg.default_hooks.get('logger', dict(type='LoggerHook'))
    hooks = dict(logger=logger, checkpoint=None)
    model = Toy(fails_at)
    runner = make_runner(cfg, scores, prefix, folder, model, **hooks)
    if test:
        runner.test()
        return
    try:
        runner.train()
    except KeyboardInterrupt:
        assert fails_at


@pytest.mark.parametrize('fails_at', [None, 6])
def test_real_run_by_iterations(fails_at):
    """Validations after 4 and 6 iterations."""
    cfg = Config(
        dict(
            model=dict(type='FasterRCNN', backbone=dict(type='ResNet')),
            train_cfg=dict(
                type='IterBasedTrainLoop', max_iters=6, val_interval=4
            ),
            val_evaluator=dict(type='VOCMetric', iou_thrs=[0.5] * 10),
            default_hooks=dict(logger=dict(type='LoggerHook', interval=5)),
        )
    )
    scores = [dict(mAP=0.5, AP50=0.7), dict(mAP=0.4, AP50=0.6)]
    real_run('a', cfg, scores, fails_at)
    found = read_run('a')
    if fails_at is None:
        assert found.scores == {'AP^b': 40, 'AP50^b': 60}
    else:
        assert found.scores == {}
        assert ' of 6 iterations' in found.problem


def test_real_test_of_a_checkpoint():
    """The run that was tested says what it started from."""
    cfg = detector(FPN, pretrained('scfs', 'SCFS', 'in1k', 9))
    write_start(Path('trained'), cfg.to_dict(), epoch(12, SCORES))
    # The config of the test has another init_cfg.
    cfg = detector(FPN, TORCHVISION)
    cfg.load_from = 'trained/epoch_12.pth'
    torch.save(dict(state_dict=Toy().state_dict()), cfg.load_from)
    real_run('tested', cfg, [dict(bbox_mAP=0.33, bbox_mAP_50=0.33)], test=True)
    source = 'this run (tested, test of epoch_12.pth)'
    scores = ['33.0', '33.0', *'----']
    assert ours('tested') == [('SCFS (in1k)', '9', scores, source)]


def test_resumed_run():
    """Starts are one run; a torn line and a dead start do no harm."""
    first = detector(FPN, pretrained('scfs', 'SCFS', '', 9)).to_dict()
    again = detector(FPN, None, resume=True).to_dict()
    early = dict(SCORES, **{'coco/bbox_mAP': 0.9})
    write_start(Path('a'), first, epoch(7, early), rest='{"loss": 1.')
    write_start(Path('a'), again, epoch(12, SCORES), '20260102_000000')
    write_start(Path('a'), again, [], '20260103_000000')
    assert ours('a') == [('SCFS', '9', PERCENT, 'this run (a)')]


@pytest.mark.parametrize(
    ('lines', 'problem'),
    [
        ([], 'unfinished: 0 of 12 epochs'),
        (epoch(3, SCORES), 'unfinished: 3 of 12 epochs'),
        (epoch(12), 'unfinished: 12 of 12 epochs, not yet evaluated'),
        (epoch(12, SCORES) + epoch(1), 'unfinished: 1 of 12 epochs'),
        (epoch(12, {'x': 1}), 'its scores lack AP'),
        (epoch(12, {'coco/bbox_mAP': -1.0}), 'its scores lack AP'),
    ],
)
def test_unfinished_runs_are_not_scored(lines, problem):
    write_start(Path('half'), detector(FPN).to_dict(), lines)
    half = read_run('half')
    assert half.problem.startswith(problem)
    (table,) = arrange([half, read_run(run('whole', FPN))])
    assert not any('half' in row.source for row in table.rows)


def test_other_and_damaged_runs_are_named():
    cfg = dict(model=dict(type='SCFS'), train_cfg=dict(max_epochs=2))
    write_start(Path('scfs'), cfg, epoch(2))
    with pytest.raises(ValueError, match="'scfs' is not a detection run"):
        read_run('scfs')
    (path,) = Path(run('a', FPN)).glob('*/vis_data/scalars.json')
    path.write_text('{"loss": 1.\n' + path.read_text())
    with pytest.raises(ValueError, match=r"'a/.*scalars.json' has 1 damaged"):
        read_run('a')
    path.with_name('config.py').write_text('model = dict(\n')
    with pytest.raises(ValueError, match="'a/.*config.py'"):
        read_run('a')
