# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/analysis_tools/compare_transfer.py."""

import copy
import csv
import functools
import importlib.util
import json
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmscfs.checkpoint import parse_config
from mmscfs.visualization.transfer.paper_tables import PAPER_TABLES
from mmscfs.visualization.transfer.starts import read_start

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/analysis_tools/compare_transfer.py'
DETECTION = ROOT / 'configs/detection'
FPN = 'coco/mask-rcnn_r50-fpn_1x_coco'
FPN_2X = 'coco/mask-rcnn_r50-fpn_2x_coco'
C4 = 'coco/mask-rcnn_r50-c4_1x_coco'
VOC = 'voc/faster-rcnn_r50-c4_24k_voc0712'
COLUMNS = ('AP^b', 'AP50^b', 'AP75^b', 'AP^s', 'AP50^s', 'AP75^s')
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

spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def ours(checkpoint, **kwargs):
    """What tools/train.py --pretrained sets."""
    return dict(
        type='Pretrained', _scope_='mmscfs', checkpoint=checkpoint, **kwargs
    )


def write_session(folder, cfg, lines, time='20260101_000000', test=None):
    """Write what mmengine writes for one start of a run."""
    log = folder / time / 'vis_data'
    log.mkdir(parents=True)
    # As Config.dump, which takes a second to make it look nice.
    settings = (f'{key} = {v!r}\n' for key, v in cfg.to_dict().items())
    (log / 'config.py').write_text(''.join(settings))
    if lines:
        text = ''.join(f'{json.dumps(line)}\n' for line in lines)
        (log / 'scalars.json').write_text(text)
    if test:
        (log.parent / f'{time}.json').write_text(json.dumps(test))


@functools.cache
def read_config(path):
    return Config.fromfile(path)


def detector(config, init_cfg=None, **changes):
    cfg = copy.deepcopy(read_config(DETECTION / f'{config}.py'))
    cfg.model.backbone.init_cfg = init_cfg
    cfg.merge_from_dict(changes)
    return cfg


def epoch(number, scores=None):
    """The lines of an epoch: of its training, and of a validation."""
    train = dict(lr=0.1, loss=1.0, epoch=number, iter=100 * number)
    train['step'] = train['iter']
    return [train, dict(scores, time=0.1, step=number)] if scores else [train]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Write a finished run of a config; return its folder's name."""
    monkeypatch.chdir(tmp_path)

    def make(name, config, init_cfg=None, scores=SCORES, **changes):
        cfg = detector(config, init_cfg, **changes)
        if 'max_epochs' in cfg.train_cfg:
            lines = epoch(cfg.train_cfg.max_epochs, scores)
        else:
            step = cfg.train_cfg.max_iters
            lines = [
                dict(loss=1.0, iter=step, step=step),
                dict(scores, step=0),
            ]
        write_session(tmp_path / name, cfg, lines)
        return name

    return make


def compare(*args):
    """Run the tool; return the lines of its csv file, by table."""
    assert tool.main([*map(str, args), '--out', 'out']) == 0
    tables = {}
    with open('out/transfer.csv', newline='') as file:
        for row in csv.DictReader(file):
            scores = [row[column] for column in COLUMNS]
            entry = (row['initialisation'], row['epochs'], scores)
            tables.setdefault(row['table'], []).append((*entry, row['source']))
    return tables


def only(tables):
    assert len(tables) == 1
    return next(iter(tables.values()))


# The paper's figures


@pytest.mark.parametrize(
    ('table', 'schedule', 'name', 'row'),
    [
        (3, '', 'Scratch', ('-', 33.8, 60.2, 33.1)),
        (3, '', 'Supervised', ('90', 53.5, 81.3, 58.8)),
        (3, '', 'DINO', ('800', 55.9, 82.1, 62.3)),
        (3, '', 'SCFS', ('800', 57.4, 83.0, 63.6)),
        (4, '1x', 'Scratch', ('-', 31.0, 49.5, 33.2, 28.5, 46.8, 30.4)),
        (4, '1x', 'SCFS', ('800', 40.5, 61.8, 44.0, 36.7, 58.8, 39.2)),
        (4, '2x', 'Scratch', ('-', 38.4, 57.5, 42.0, 34.7, 54.8, 37.2)),
        (4, '2x', 'DINO', ('800', 41.9, 62.6, 46.0, 37.8, 59.7, 40.6)),
        (4, '2x', 'SwAV', ('400', 42.3, 62.8, 46.3, 38.2, 60.0, 41.0)),
        (6, '1x', 'UniVIP', ('-', 40.8, None, None, 36.8, None, None)),
        (6, '1x', 'DINO', ('-', 39.0, 59.6, 42.9, 35.6, 56.8, 38.0)),
        (6, '1x', 'SCFS', ('-', 40.9, 61.6, 44.4, 36.9, 58.4, 39.5)),
    ],
)
def test_figures_of_the_paper(table, schedule, name, row):
    found = {n: (e, *v) for n, e, v in PAPER_TABLES[table, schedule].rows}
    assert found[name] == row


def test_paper_tables_are_whole():
    counts = {key: len(table.rows) for key, table in PAPER_TABLES.items()}
    # Table 4 has 15 methods: SwAV lacks 1x; DSC, DetCo and ORL lack 2x.
    expected = {(3, ''): 7, (4, '1x'): 14, (4, '2x'): 12, (6, '1x'): 10}
    assert counts == expected
    for (number, _), table in PAPER_TABLES.items():
        for _, _, values in table.rows:
            assert len(values) == (3 if number == 3 else 6)
            known = [v for v in values[:3] if v is not None]
            assert max(known) == known[len(known) // 2]  # AP50 is the largest


# Which rows stand together


def test_table_4_in_the_order_of_the_paper(run, capsys):
    runs = [
        run('scfs', FPN, ours('work_dirs/scfs_r50/epoch_200.pth')),
        run('random', FPN),
        run('supervised', FPN, TORCHVISION),
        run('dino', FPN, ours('dino_r50_8xb32-100e/last.pth')),
    ]
    rows = only(compare(*runs))
    own = [row for row in rows if row[3].startswith('this run')]
    assert own == [
        ('random', '-', PERCENT, 'this run (random)'),
        ('supervised (torchvision)', '-', PERCENT, 'this run (supervised)'),
        ('DINO', '100', PERCENT, 'this run (dino)'),
        ('SCFS', '200', PERCENT, 'this run (scfs)'),
    ]
    names = [row[0] for row in rows]
    assert names[:3] == ['Scratch', 'random', 'Supervised']
    assert names[-4:] == ['DINO', 'DINO', 'SCFS', 'SCFS']
    paper = [row for row in rows if row[3] == 'paper (Table 4)']
    assert len(paper) == len(rows) - 4 == 14
    scfs = ['40.5', '61.8', '44.0', '36.7', '58.8', '39.2']
    assert ('SCFS', '800', scfs, 'paper (Table 4)') in paper
    assert 'this run (scfs)' in capsys.readouterr().out


def test_written_files(run):
    compare(run('a', FPN), run('b', FPN_2X))
    text = Path('out/transfer.md').read_text()
    assert '| SCFS | 800 | 42.1 | 63.4 | 46.1 | 38.1 | 60.2 | 41.0 |' in text
    own = ' | '.join(f'**{score}**' for score in PERCENT)
    assert f'| **random** | **-** | {own} | **this run (b)** |' in text
    assert 'last validation' in text
    picture = cv2.imread('out/transfer.png')
    assert picture.shape[0] > 1000
    assert picture.std() > 10


def test_2x_has_its_own_columns(run):
    rows = only(compare(run('a', FPN_2X)))
    scratch = ['38.4', '57.5', '42.0', '34.7', '54.8', '37.2']
    assert rows[0] == ('Scratch', '-', scratch, 'paper (Table 4)')


def test_voc_is_table_3(run):
    rows = only(compare(run('a', VOC, TORCHVISION, VOC_SCORES)))
    blank = ['-'] * 3
    source = 'this run (a)'
    scores = ['57.1', '82.9', '63.4']
    own = ('supervised (torchvision)', '-', [*scores, *blank], source)
    assert rows[2] == own
    scores = ['33.8', '60.2', '33.1']
    assert rows[0] == ('Scratch', '-', [*scores, *blank], 'paper (Table 3)')
    assert len(rows) == 8


@pytest.mark.parametrize('thresholds', [0.5, [0.5], [0.5, 0.75]])
def test_map_over_few_thresholds_is_no_ap(run, thresholds):
    """mmdet's default of VOCMetric is 0.5: mAP is AP50."""
    scores = {'pascal_voc/mAP': 0.829, 'pascal_voc/AP50': 0.829}
    changes = dict(val_evaluator=dict(type='VOCMetric', iou_thrs=thresholds))
    rows = only(compare(run('a', VOC, None, scores, **changes)))
    assert rows[1][2] == ['-', '82.9', *['-'] * 4]


def test_pretraining_on_coco_is_table_6(run):
    runs = [
        run('a', FPN),
        run('b', FPN, ours('scfs_resnet50-500e_coco/epoch_500.pth')),
    ]
    rows = only(compare(*runs))
    assert {row[3] for row in rows} == {
        'paper (Table 6)',
        'this run (a)',
        'this run (b)',
    }
    assert rows[1][0] == 'random'
    assert rows[-1][:2] == ('SCFS (coco)', '500')
    # With a run of Table 4 as well, random weights stand in both.
    tables = compare(*runs, run('c', FPN, ours('dino/epoch_9.pth')))
    assert len(tables) == 2
    assert all(
        any(row[3] == 'this run (a)' for row in rows)
        for rows in tables.values()
    )


@pytest.mark.parametrize(
    ('config', 'changes'),
    [
        (C4, {}),
        (FPN, {'model.backbone.depth': 101}),
        (FPN, {'train_cfg.max_epochs': 6}),
        (FPN, {'train_dataloader.dataset.indices': 1000}),
        (FPN, {'val_dataloader.dataset.ann_file': 'instances_test.json'}),
        (FPN, {'train_dataloader.dataset.metainfo': dict(classes=('cat',))}),
    ],
)
def test_no_paper_beside_another_protocol(run, config, changes):
    rows = only(compare(run('a', config, None, **changes)))
    assert [row[3] for row in rows] == ['this run (a)']


def test_no_paper_beside_another_voc(run):
    """The digit scenes have VOC's folders, too."""
    dataset = detector(VOC).val_dataloader.dataset.to_dict()
    dataset.update(ann_file='VOC2007/ImageSets/Main/trainval.txt')
    changes = {'train_dataloader.dataset': dict(dataset, _delete_=True)}
    rows = only(compare(run('a', VOC, None, VOC_SCORES, **changes)))
    assert [row[3] for row in rows] == ['this run (a)']


def test_no_paper_beside_more_data(run):
    train = detector(FPN).train_dataloader.dataset.to_dict()
    more = dict(train, ann_file='annotations/instances_more.json')
    both = dict(type='ConcatDataset', datasets=[train, more], _delete_=True)
    rows = only(compare(run('a', FPN, **{'train_dataloader.dataset': both})))
    assert [row[3] for row in rows] == ['this run (a)']


def test_each_protocol_has_its_table(run):
    tables = compare(run('a', C4), run('b', C4), run('c', FPN, TORCHVISION))
    assert sorted(map(len, tables.values())) == [2, 15]


def test_forced_table_names_the_detector(run):
    rows = only(compare(run('a', C4), '--table', 4))
    assert rows[1][3] == 'this run (a), MaskRCNN ResNet-50 C4'
    assert rows[0][3] == 'paper (Table 4)'


# What a run started from


def write_checkpoint(path, **entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {'teacher.backbone.conv1.weight': torch.zeros(2, 3, 7, 7)}
    torch.save(dict(state_dict=state) | entries, path)
    return str(path)


def start_of(*configs):
    start = read_start(configs)
    return start.label, start.epochs


def config_of(init_cfg=None, **settings):
    return dict(model=dict(backbone=dict(init_cfg=init_cfg)), **settings)


def test_start_from_the_checkpoint(tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/scfs_r50.py')
    # Another algorithm's name and number in the file's name.
    path = write_checkpoint(
        tmp_path / 'dino' / 'epoch_3.pth',
        meta=dict(epoch=120, cfg=cfg.pretty_text),
    )
    expected = 'SCFS (imagenet)', '120'
    assert start_of(config_of(ours(path))) == expected
    plain = dict(type='Pretrained', checkpoint=path)
    teacher = dict(plain, prefix='teacher.backbone.')
    assert start_of(config_of(teacher)) == expected
    student = 'SCFS (imagenet), student', '120'
    for init_cfg in (
        ours(path, network='student'),
        dict(plain, prefix='backbone.'),
    ):
        assert start_of(config_of(init_cfg)) == student


def test_start_from_an_exported_file(tmp_path):
    """Its metadata names the checkpoint that it comes from."""
    cfg = Config.fromfile(ROOT / 'configs/scfs_r50.py')
    path = write_checkpoint(
        tmp_path / 'backbone.pth',
        meta=dict(source='epoch_200.pth', cfg=cfg.pretty_text),
    )
    assert start_of(config_of(ours(path))) == ('SCFS (imagenet)', '200')


def test_start_from_a_release(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    state = {'module.backbone.conv1.weight': torch.zeros(2, 3, 7, 7)}
    torch.save(dict(teacher=state, student=state, epoch=800), path)
    assert start_of(config_of(ours(str(path)))) == ('DINO', '800')


@pytest.mark.parametrize(
    ('init_cfg', 'expected'),
    [
        (None, ('random', '-')),
        (dict(type='Kaiming', layer='Conv2d'), ('random', '-')),
        (TORCHVISION, ('supervised (torchvision)', '-')),
        (
            [dict(type='Constant'), TORCHVISION],
            ('supervised (torchvision)', '-'),
        ),
        (ours('a/resnet50-0676ba61.pth'), ('supervised', '-')),
        (
            ours('mocov2_resnet50_8xb32-coslr-200e_in1k.pth'),
            ('MoCo v2', '200'),
        ),
        (ours('dino_x_500e_coco/epoch_30.pth'), ('DINO (coco)', '30')),
        (ours('b/mine.pth'), ('b/mine.pth', '-')),
    ],
)
def test_start_from_names(init_cfg, expected):
    """Of files that are gone."""
    assert start_of(config_of(init_cfg)) == expected


def test_a_damaged_checkpoint_is_known_by_its_name(tmp_path):
    path = tmp_path / 'scfs' / 'epoch_7.pth'
    path.parent.mkdir()
    path.write_bytes(b'PK torn')
    assert start_of(config_of(ours(str(path)))) == ('SCFS', '7')


def test_start_is_before_resumption():
    """A resumed session need not repeat --pretrained."""
    scfs, resumed = config_of(ours('scfs/epoch_9.pth')), config_of(resume=True)
    assert start_of(scfs, resumed, resumed) == ('SCFS', '9')
    assert start_of(scfs, config_of(), resumed) == ('random', '-')
    # A job that always asks to resume.
    always = config_of(ours('scfs/epoch_9.pth'), resume=True)
    assert start_of(always, always) == ('SCFS', '9')


def test_a_whole_detector_is_no_pretraining():
    cfg = config_of(TORCHVISION, load_from='other/epoch_12.pth')
    assert start_of(cfg) == ('all of epoch_12.pth', '-')


# Work directories


class Toy(BaseModel):
    """Learns nothing, quickly; fails in one iteration."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.fails_at = fails_at
        self.count = 0

    def forward(self, inputs, mode='tensor'):
        if mode == 'loss':
            self.count += 1
            if self.count == self.fails_at:
                raise KeyboardInterrupt
            return dict(loss=self.weight.sum())
        return [inputs]


class Given(BaseMetric):
    """Returns given scores, one after another."""

    def __init__(self, scores, prefix):
        super().__init__(prefix=prefix)
        self.scores = iter(scores)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return next(self.scores)


@pytest.fixture(autouse=True)
def _no_survey(monkeypatch):
    """Every runner would ask the compilers for their versions."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


def real_run(folder, cfg, scores, fails_at=None, test=False):
    """Let mmengine write a work directory: an iteration an epoch."""
    loader = dict(
        dataset=[dict(inputs=torch.zeros(1))],
        sampler=dict(
            type='InfiniteSampler'
            if 'max_iters' in cfg.train_cfg
            else 'DefaultSampler'
        ),
        batch_size=1,
        collate_fn=dict(type='default_collate'),
    )
    once = dict(loader, sampler=dict(type='DefaultSampler'))
    prefix = 'pascal_voc' if 'VOC' in str(cfg.val_evaluator) else 'coco'
    runner = Runner(
        Toy(fails_at),
        work_dir=str(folder),
        train_dataloader=loader,
        val_dataloader=once,
        test_dataloader=once,
        train_cfg=cfg.train_cfg,
        val_cfg=dict(),
        test_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_evaluator=[Given(scores, prefix)],
        test_evaluator=[Given(scores, prefix)],
        default_hooks=dict(
            logger=cfg.default_hooks.get('logger', dict(type='LoggerHook')),
            checkpoint=None,
        ),
        log_processor=cfg.get('log_processor'),
        log_level='WARNING',
        default_scope='mmpretrain',
        cfg=cfg,
    )
    if test:
        runner.test()
        return
    try:
        runner.train()
    except KeyboardInterrupt:
        assert fails_at


def coco_scores(*boxes):
    return [dict(bbox_mAP=box, bbox_mAP_50=box) for box in boxes]


def test_real_run_by_epochs(tmp_path, monkeypatch):
    """The last validation counts, though an earlier one was better."""
    monkeypatch.chdir(tmp_path)
    cfg = detector(FPN, None, **{'train_cfg.val_interval': 5})
    real_run(tmp_path / 'a', cfg, coco_scores(0.2, 0.5, 0.4))
    rows = only(compare('a'))
    assert rows[1] == (
        'random',
        '-',
        ['40.0', '40.0', *'----'],
        'this run (a)',
    )


@pytest.mark.parametrize('fails_at', [None, 5, 6])
@pytest.mark.parametrize(
    ('interval', 'by_epoch'), [(1, None), (5, None), (5, False), (10, None)]
)
def test_real_run_by_iterations(
    tmp_path, monkeypatch, capsys, interval, by_epoch, fails_at
):
    """Validations after 4 and 6 iterations, whichever step they log."""
    monkeypatch.chdir(tmp_path)
    hook = dict(type='LoggerHook', interval=interval)
    if by_epoch is not None:
        hook['log_metric_by_epoch'] = by_epoch
    cfg = Config(
        dict(
            model=dict(type='FasterRCNN', backbone=dict(type='ResNet')),
            train_cfg=dict(
                type='IterBasedTrainLoop', max_iters=6, val_interval=4
            ),
            val_dataloader=dict(dataset=dict(ann_file='test.txt')),
            val_evaluator=dict(type='VOCMetric', iou_thrs=[0.5] * 10),
            default_hooks=dict(logger=hook),
            log_processor=dict(by_epoch=False),
        )
    )
    real_run(
        tmp_path / 'a',
        cfg,
        [dict(mAP=0.5, AP50=0.7), dict(mAP=0.4, AP50=0.6)],
        fails_at,
    )
    tables = compare('a')
    if fails_at is None:
        own = ('random', '-', ['40.0', '60.0', *'----'], 'this run (a)')
        assert only(tables) == [own]
    else:
        assert [*tables] == ['not scored']
        assert 'unfinished: ' in only(tables)[0][3]
        assert 'of 6 iterations' in capsys.readouterr().out


def test_real_test_of_a_checkpoint(tmp_path, monkeypatch):
    """What was tested tells what it started from."""
    monkeypatch.chdir(tmp_path)
    cfg = detector(FPN, ours('scfs/epoch_9.pth'))
    write_session(tmp_path / 'trained', cfg, epoch(12, SCORES))
    for number in (12, 11):
        # The config of the test has another init_cfg.
        cfg = detector(FPN, TORCHVISION)
        cfg.load_from = f'trained/epoch_{number}.pth'
        folder = tmp_path / f'tested{number}'
        real_run(folder, cfg, coco_scores(0.33), test=True)
    source = 'this run (tested12, test of epoch_12.pth)'
    row = ('SCFS', '9', ['33.0', '33.0', *'----'], source)
    assert row in only(compare('tested12'))
    rows = only(compare('tested11'))
    assert 'unfinished: epoch_11.pth of 12 epochs' in rows[0][3]


def test_resumed_run(run, tmp_path):
    """Sessions are one run; a torn line and a dead start do no harm."""
    first = detector(FPN, ours('scfs/epoch_9.pth'))
    again = detector(FPN, None, resume=True)
    early = dict(SCORES, **{'coco/bbox_mAP': 0.9})
    folder = tmp_path / 'a'
    write_session(folder, first, epoch(7, early))
    log = folder / '20260101_000000/vis_data/scalars.json'
    log.write_text(log.read_text() + '{"loss": 1.')
    write_session(folder, again, epoch(12, SCORES), '20260102_000000')
    write_session(folder, again, [], '20260103_000000')
    row = ('SCFS', '9', PERCENT, 'this run (a)')
    assert row in only(compare('a'))


@pytest.mark.parametrize(
    ('lines', 'problem'),
    [
        ([], 'unfinished: 0 of 12 epochs'),
        (epoch(3), 'unfinished: 3 of 12 epochs'),
        (epoch(3, SCORES), 'unfinished: 3 of 12 epochs'),
        (epoch(12), 'unfinished: 12 of 12 epochs, not yet evaluated'),
        (epoch(12, SCORES) + epoch(1), 'unfinished: 1 of 12 epochs'),
        (epoch(12, {'x': 1}), 'its last validation has no AP'),
        (epoch(12, {'coco/bbox_mAP': -1.0}), 'its last validation has no AP'),
    ],
)
def test_unfinished_runs_are_not_scored(run, tmp_path, lines, problem):
    write_session(tmp_path / 'half', detector(FPN), lines)
    tables = compare('half', run('whole', FPN))
    (row,) = tables.pop('not scored')
    assert row[:3] == ('random', '-', ['-'] * 6)
    assert row[3].startswith(f'this run (half): {problem}')
    assert not any('half' in source for *_, source in only(tables))
    assert f'- half: {problem}' in Path('out/transfer.md').read_text()


def test_unfinished_alone_leaves_no_picture(run, tmp_path):
    compare(run('whole', FPN))
    write_session(tmp_path / 'half', detector(FPN), epoch(3))
    compare('half')
    assert not Path('out/transfer.png').exists()


def test_nothing_is_executed(run):
    folder = run('a', FPN)
    (path,) = Path(folder).glob('*/vis_data/config.py')
    evil = "__import__('pathlib').Path('evil').touch()"
    path.write_text(f'{path.read_text()}\n{evil}\nspare = {evil}\n')
    compare(folder)
    assert not Path('evil').exists()


def test_configs_are_read_as_mmengine_reads_them():
    """Whatever a dump holds, up to tuples."""
    cfg = detector(VOC, ours('a.pth'))
    cfg.spare = dict({'a b': (1, -2.5), 'c': dict(d=None, e="it's")})
    text = cfg.pretty_text
    expected = Config.fromstring(text, '.py').to_dict()
    assert parse_config(text) == json.loads(json.dumps(expected))


# Refusals


def refuse(capsys, *args):
    assert tool.main([*map(str, args), '--out', 'out']) == 2
    assert not Path('out').exists()
    return capsys.readouterr().err


@pytest.mark.parametrize('kind', ['absent', 'empty', 'file'])
def test_what_is_no_work_directory(run, capsys, kind):
    if kind == 'empty':
        Path(kind).mkdir()
    elif kind == 'file':
        Path(kind).write_text('hello')
    text = refuse(capsys, run('a', FPN), kind)
    assert f"'{kind}' is no work directory" in text


def test_a_pretraining_run_has_no_ap(run, tmp_path, capsys):
    cfg = Config.fromfile(ROOT / 'configs/scfs_r50.py')
    write_session(tmp_path / 'scfs', cfg, epoch(200))
    text = refuse(capsys, 'scfs')
    assert "'scfs' is no detection run" in text
    assert 'val_evaluator' in text


def test_damaged_files_are_named(run, capsys):
    folder = run('a', FPN)
    (path,) = Path(folder).glob('*/vis_data/scalars.json')
    path.write_text('{"loss": 1.\n' + path.read_text())
    assert f'{path}, line 1' in refuse(capsys, folder)
    config = path.with_name('config.py')
    config.write_text('model = dict(\n')
    assert str(config) in refuse(capsys, folder)


def test_forced_table_of_other_data(run, capsys):
    voc = run('v', VOC, None, VOC_SCORES)
    text = refuse(capsys, voc, '--table', 4)
    assert '--table 4: v is of' in text
    assert 'COCO train2017' in text
    six = run('six', FPN, None, **{'train_cfg.max_epochs': 6})
    text = refuse(capsys, six, '--table', 4)
    assert '--table 4: six was trained for 6 epochs' in text
    text = refuse(capsys, run('two', FPN_2X), '--table', 6)
    assert 'trained for 24 epochs' in text


def test_out_that_is_a_file(run, capsys):
    Path('out').write_text('mine')
    assert tool.main([run('a', FPN), '--out', 'out']) == 1
    assert '--out out' in capsys.readouterr().err
    assert Path('out').read_text() == 'mine'


def test_unknown_table(capsys):
    with pytest.raises(SystemExit) as caught:
        tool.main(['a', '--table', '5'])
    assert caught.value.code == 2
    assert '--table' in capsys.readouterr().err
