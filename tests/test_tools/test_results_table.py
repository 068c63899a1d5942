# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/analysis_tools/results_table.py."""

import csv
import importlib.util
from pathlib import Path

import cv2
import pytest

from mmscfs.checkpoint import Result, read_result, result_path, write_result
from mmscfs.visualization.results.arrange import arrange
from mmscfs.visualization.results.entries import Entry
from mmscfs.visualization.results.paper_tables import PAPER_TABLES

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/analysis_tools/results_table.py'
TITLES = {number: table.title for number, table in PAPER_TABLES.items()}
LAYERS = {
    'knn/layer2_k10_top1': 20.0,
    'knn/layer2_k20_top1': 21.0,
    'knn/layer2_k20_top5': 90.0,
    'knn/layer3_k10_top1': 30.0,
    'knn/layer3_k20_top1': 29.0,
    'knn/layer4_k10_top1': 40.0,
    'knn/layer4_k20_top1': 45.0,
}
# What the ablations vary, at the paper's defaults.
DEFAULT = dict(
    num_local=8,
    local_scale=[0.05, 0.14],
    search_layers=[1, 2, 3],
    search='SoftFeatureSearch',
    search_views='all',
)

spec = importlib.util.spec_from_file_location(TOOL.stem, TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(
    protocol,
    dataset,
    score,
    checkpoint='scfs/epoch_200.pth',
    config=None,
    method='SCFS',
    epochs=200,
    batch_size=256,
    data='imagenet',
    backbone='ResNet-50',
    network='teacher',
    settings=None,
    epoch=None,
    recipe=None,
    **metrics,
):
    """Write a result; return its file."""
    name = {'knn': 'knn/top1', 'linear-sweep': 'linear/top1'}.get(
        protocol, 'accuracy/top1'
    )
    config = config or f'{protocol}_{dataset}'
    if checkpoint:
        path = result_path(checkpoint, config, network)
    else:
        path = Path('work', config, f'{config}.json')
    path.parent.mkdir(parents=True, exist_ok=True)
    result = Result(
        protocol=protocol,
        dataset=dataset,
        config=config,
        checkpoint=checkpoint and Path(checkpoint).name,
        network=network if checkpoint else None,
        pretraining=dict(
            method=method,
            epochs=epochs,
            batch_size=batch_size,
            dataset=data,
            **(recipe or {}),
        ),
        backbone=backbone,
        metrics={name: score} | metrics,
        settings=settings or {},
        work_dir='work',
        epoch=epoch,
    )
    write_result(path, result)
    return str(path)


def random(protocol, dataset, score, **kwargs):
    """A result from random weights."""
    facts = dict(method='random', epochs=None, batch_size=None, data=None)
    return save(protocol, dataset, score, None, **facts, **kwargs)


def gather(*args):
    """Run the tool; return the lines of its csv file, by table."""
    assert tool.main([*map(str, args), '--out', 'out']) == 0
    tables = {}
    with open('out/results.csv', newline='') as file:
        for row in csv.DictReader(file):
            tables.setdefault(row.pop('table'), []).append(row)
    return tables


def ours(rows, *columns):
    """The columns of the rows that are no paper's."""
    return [
        tuple(row[column] for column in columns)
        for row in rows
        if row['source'].startswith('this run')
    ]


# The paper's figures


@pytest.mark.parametrize(
    ('number', 'labels', 'scores'),
    [
        ('1', ('Supervised', '256', '100'), (76.2, 74.8)),
        ('1', ('SimSiam', '256', '200'), (70.0, None)),
        ('1', ('SwAV', '256', '200'), (72.7, None)),
        ('1', ('MoCo v3', '4096', '1000'), (74.6, None)),
        ('1', ('DINO*', '256', '200'), (73.0, 64.0)),
        ('1', ('DINO', '4080', '800'), (75.3, 67.5)),
        ('1', ('SCFS', '256', '200'), (73.9, 65.5)),
        ('1', ('SCFS', '1024', '800'), (75.7, 68.5)),
        ('2', ('Supervised', '256', '90'), (25.4, 56.4, 48.4, 80.4)),
        ('2', ('SwAV', '4096', '800'), (53.9, 70.2, 78.5, 89.9)),
        ('2', ('DINO', '4080', '800'), (50.2, 69.3, 74.0, 89.1)),
        ('2', ('SCFS', '1024', '800'), (54.3, 70.5, 78.6, 90.2)),
        ('5', ('BYOL', '-', '-'), (97.8, 86.1, None, 91.6, 88.1, 91.7)),
        ('5', ('DINO*', '-', '-'), (97.7, 86.6, 81.0, 91.1, 87.4, 91.5)),
        ('5', ('SCFS', '-', '-'), (97.8, 86.7, 82.7, 91.6, 88.5, 91.9)),
        ('7', ('DINO w ML', '256', '200'), (82.2, 87.4)),
        ('7', ('ROI Crop', '256', '200'), (83.9, 88.1)),
        ('7', ('SCFS w/o MC', '256', '200'), (79.7, 86.3)),
        ('8', ('SCFS', 'Res2, Res3', '256', '200'), (84.3, 87.5)),
        ('9', ('DINO', '256', '200'), (87.0, 87.2, 85.6, 82.6)),
        ('9', ('SCFS', '256', '200'), (89.2, 88.7, 87.0, 83.1)),
        ('10', ('SCFS', 'ResNet-101', '256', '200'), (85.1, 88.3)),
        ('10', ('DINO', 'ViT-B-16', '256', '200'), (76.2, 80.7)),
    ],
)
def test_figures_of_the_paper(number, labels, scores):
    assert (labels, scores) in PAPER_TABLES[number].rows


def test_paper_tables_are_whole():
    counts = {number: len(t.rows) for number, t in PAPER_TABLES.items()}
    expected = {'1': 26, '2': 6, '5': 5, '7': 6, '8': 3, '9': 2, '10': 6}
    assert counts == expected | {'fig4': 0, 'fig5': 0}
    for table in PAPER_TABLES.values():
        for labels, scores in table.rows:
            assert len(labels) == len(table.labels)
            assert len(scores) == len(table.columns)
    # SCFS is the best of each column with its settings.
    for number in ('1', '2', '7', '8', '9'):
        for i in range(len(PAPER_TABLES[number].columns)):
            column = [
                (r[i] or 0, name) for name, r in PAPER_TABLES[number].rows
            ]
            best = [name[0] for score, name in sorted(column)]
            others = {'1': ['Supervised']}.get(number, [])
            assert [n for n in best if n not in others][-1] == 'SCFS'


# The paper's tables


def test_table_1_has_a_row_for_each_network(capsys):
    save('knn', 'in1k', 65.1)
    save('linear', 'in1k', 73.4, epoch=100, settings=dict(max_epochs=100))
    save('knn', 'in1k', 60.5, network='student')
    save('knn', 'in1k', 63.3, 'dino/last.pth', method='DINO', batch_size=None)
    random('linear', 'in1k', 9.0)
    random('knn', 'in1k', 3.0)
    save('knn', 'in1k', 74.0, 'sup/r.pth', method='supervised', data=None)
    (rows,) = gather('scfs', 'dino', 'sup', 'work').values()
    names = ('method', 'batch', 'epochs', 'LP', 'k-NN', 'source')
    scfs = 'this run (scfs/epoch_200.pth)'
    assert ours(rows, *names) == [
        (
            'random',
            '-',
            '-',
            '9.0',
            '3.0',
            'this run (work/knn_in1k/knn_in1k.json, '
            'work/linear_in1k/linear_in1k.json)',
        ),
        ('supervised', '256', '200', '-', '74.0', 'this run (sup/r.pth)'),
        (
            'DINO (imagenet)',
            '-',
            '200',
            '-',
            '63.3',
            'this run (dino/last.pth)',
        ),
        ('SCFS (imagenet)', '256', '200', '73.4', '65.1', scfs),
        ('SCFS (imagenet), student', '256', '200', '-', '60.5', scfs),
    ]
    methods = [row['method'] for row in rows]
    assert methods[:4] == ['random', 'Supervised', 'supervised', 'SimCLR']
    assert methods[-6:-2] == ['DINO', 'DINO (imagenet)', 'SCFS', 'SCFS']
    paper = [row for row in rows if row['source'] == 'paper (Table 1)']
    assert len(paper) == len(rows) - 5 == 26
    assert 'this run' in capsys.readouterr().out


def test_written_files():
    gather(save('knn', 'in1k', 65.12))
    text = Path('out/results.md').read_text()
    assert '| DINO\\* | 256 | 200 | 73.0 | 64.0 | paper (Table 1) |' in text
    own = ('SCFS (imagenet)', '256', '200', '-', '65.1')
    cells = ' | '.join(f'**{cell}**' for cell in own)
    source = '**this run (scfs/epoch_200.pth)**'
    assert f'| {cells} | {source} |' in text
    assert 'last validation' in text
    picture = cv2.imread('out/results.png')
    assert picture.shape[0] > 1000
    assert picture.std() > 10


def test_table_2_has_both_shares():
    metrics = {'accuracy/top5': 78.0}
    save('semi-1%', 'in1k', 54.0, **metrics)
    save('semi-10%', 'in1k', 70.0, **{'accuracy/top5': 90.0})
    rows = gather('scfs')[TITLES['2']]
    columns = PAPER_TABLES['2'].columns
    assert ours(rows, *columns) == [('54.0', '70.0', '78.0', '90.0')]
    assert rows[-1]['source'].startswith('this run')
    assert rows[-2]['method'] == 'SCFS'


def test_table_5_takes_the_mean_over_classes_of_two():
    for i, name in enumerate(('cifar10', 'cub200', 'aircraft', 'pets')):
        recall = {'single-label/recall': 70.0 + i}
        save('finetune', name, 80.0 + i, **recall)
    rows = gather('scfs')[TITLES['5']]
    expected = ('80.0', '-', '81.0', '-', '72.0', '73.0')
    assert ours(rows, *PAPER_TABLES['5'].columns) == [expected]
    assert rows[0]['method'] == 'Supervised'
    assert rows[0]['CUB-200'] == '81.3'


def in100(protocol, score, run='scfs', method='SCFS', recipe=None, **kwargs):
    recipe = DEFAULT | (recipe or {})
    if method != 'SCFS':
        recipe = {k: recipe[k] for k in ('num_local', 'local_scale')}
    path = f'{run}/epoch_200.pth'
    data = dict(data='imagenet100', method=method, recipe=recipe)
    return save(protocol, 'in100', score, path, **data, **kwargs)


def test_table_7_by_contrast_mode():
    in100('knn', 84.0)
    in100('knn', 77.0, 'd0', 'DINO', dict(num_local=0))
    in100('knn', 79.0, 's0', recipe=dict(num_local=0))
    in100('knn', 83.0, 'roi', recipe=dict(search='RoIFeatureSearch'))
    in100('knn', 81.0, 'ml', recipe=dict(search_views='none'))
    alone = dict(num_local=0, search_alone=True)
    in100('knn', 76.0, 's1', recipe=alone)
    in100('knn', 75.0, 'moco', 'MoCo v2', dict(num_local=0))
    (rows,) = gather('.').values()
    assert [row['method'] for row in rows] == [
        'DINO w/o MC',
        'DINO w/o MC (imagenet100)',
        'DINO',
        'DINO w ML',
        'DINO w ML (imagenet100)',
        'SCFS',
        'SCFS (imagenet100)',
        'ROI Crop',
        'ROI Crop (imagenet100)',
        'SCFS w/o MC',
        'SCFS w/o MC (imagenet100)',
        'MoCo v2 (imagenet100)',
        'SCFS w/o MC, search alone (imagenet100)',
    ]
    scores = [score for (score,) in ours(rows, 'k-NN')]
    assert scores == ['77.0', '81.0', '84.0', '83.0', '79.0', '75.0', '76.0']


def test_the_default_recipe_joins_other_ablations():
    """In Table 7, and in those that a varied recipe opens."""
    in100('linear', 89.0)
    in100('knn', 84.0)
    assert [*gather('scfs')] == [TITLES['7']]
    in100('linear', 86.0, 'l2', recipe=dict(search_layers=[1]))
    in100('linear', 88.0, 's2', recipe=dict(local_scale=[0.14, 0.25]))
    in100('linear', 80.0, 's3', recipe=dict(local_scale=[0.6, 0.8]))
    tables = gather('.')
    assert [*tables] == [TITLES[number] for number in '789']
    layers = ours(tables[TITLES['8']], 'search layers', 'k-NN', 'LP')
    assert layers == [
        ('Res2', '-', '86.0'),
        ('Res2, Res3, Res4', '84.0', '89.0'),
    ]
    columns = (*PAPER_TABLES['9'].columns, '0.6-0.8')
    assert ours(tables[TITLES['9']], *columns) == [
        ('-', '88.0', '-', '-', '-'),
        ('-', '-', '-', '-', '80.0'),
        ('89.0', '-', '-', '-', '-'),
    ]
    assert len(ours(tables[TITLES['7']], 'LP')) == 1


def test_two_changes_at_once_are_no_ablation():
    recipe = dict(search_layers=[1], local_scale=[0.14, 0.25])
    assert [*gather(in100('linear', 80.0, recipe=recipe))] == ['in100']
    recipe = dict(num_local=4, search='RoIFeatureSearch')
    assert [*gather(in100('knn', 80.0, recipe=recipe))] == ['in100']


def test_figure_5_by_number_of_local_views():
    """A row for each network and protocol, the default recipe too."""
    in100('linear', 89.0)
    in100('knn', 84.0)
    in100('knn', 83.0, 's4', recipe=dict(num_local=4))
    in100('knn', 80.0, 's4-s', recipe=dict(num_local=4, search_layers=[1]))
    in100('linear', 85.0, 'd3', 'DINO', recipe=dict(num_local=3))
    in100('knn', 75.0, 'moco', 'MoCo v2', dict(num_local=0))
    tables = gather('.')
    title = f'{TITLES["fig5"]}, in100'
    assert [*tables] == [TITLES['7'], title, 'in100']
    columns = ('method', 'evaluation', '3', '4', '8')
    assert ours(tables[title], *columns) == [
        ('DINO (imagenet100)', 'linear', '85.0', '-', '-'),
        ('SCFS (imagenet100)', 'k-NN', '-', '83.0', '-'),
        ('SCFS (imagenet100)', 'k-NN', '-', '-', '84.0'),
        ('SCFS (imagenet100)', 'linear', '-', '-', '89.0'),
    ]
    assert len(tables[title]) == 4  # none of the paper
    header = Path('out/results.md').read_text()
    assert '| method | evaluation | batch | epochs | 3 | 4 | 8 |' in header
    path = save('knn', 'digits', 60.0, recipe=dict(num_local=2))
    tables = gather(path, '--table', 'fig5')
    assert [*tables] == [f'{TITLES["fig5"]}, digits']


def test_table_10_by_backbone():
    for backbone in ('ResNet-101', 'ViT-S-16'):
        in100('knn', 81.0, backbone, 'DINO', backbone=backbone)
    rows = gather('.')[TITLES['10']]
    assert [row['backbone'] for row in rows] == [
        *['ResNet-101'] * 3,
        *['ViT-S-16'] * 3,
        *['ViT-B-16'] * 2,
    ]
    assert ours(rows, 'backbone') == [('ResNet-101',), ('ViT-S-16',)]
    assert [row['method'][:4] for row in rows[:3]] == ['DINO', 'DINO', 'SCFS']


def test_figure_4_beside_other_tables():
    save('knn', 'in1k', 45.0, **LAYERS)
    random('knn', 'digits', 45.0, **LAYERS, backbone='ResNet-18-w16')
    tables = gather('.')
    for data in ('in1k', 'digits'):
        rows = tables[f'{TITLES["fig4"]}, {data}']
        scores = ours(rows, 'Res2', 'Res3', 'Res4')
        assert scores == [('21.0', '30.0', '45.0')]
        assert len(rows) == 1
    assert TITLES['1'] in tables


# Of a sweep


def sweep(variant, seed, *args, protocol='knn', **kwargs):
    run = f'{variant}_seed-{seed}' if seed else variant
    path = Path(in100(protocol, *args, run=f'sweep/{run}', **kwargs))
    return Entry(path, read_result(path), variant, seed)


def test_seeds_of_a_variant_have_a_mean():
    """Mean and sample standard deviation of what all of them have."""
    entries = [
        sweep('scfs', 0, 84.0),
        sweep('scfs', 0, 88.0, protocol='linear'),
        sweep('roi', 0, 83.0, recipe=dict(search='RoIFeatureSearch')),
        sweep('scfs', 1, 86.0),
        sweep('dino', 0, 80.0, method='DINO'),
        sweep('dino', 1, 80.5, method='DINO'),
        sweep('dino', 4, 82.5, method='DINO'),
    ]
    (table,), left_out = arrange(entries, '7')
    assert left_out == []
    names = ('k-NN', 'LP')
    rows = [(*r.cells(names)[3:5], r.source) for r in table.rows if r.is_ours]
    mean = 'this run: mean and standard deviation of seeds'
    # Deviations of 80, 80.5 and 82.5: (1, .5, 1.5) around 81, over 2.
    assert rows == [
        ('80.0', '-', 'this run (dino)'),
        ('80.5', '-', 'this run (dino_seed-1)'),
        ('82.5', '-', 'this run (dino_seed-4)'),
        ('81.0 ± 1.3', '-', f'{mean} 0, 1, 4'),
        ('84.0', '88.0', 'this run (scfs)'),
        ('86.0', '-', 'this run (scfs_seed-1)'),
        ('85.0 ± 1.4', '-', f'{mean} 0, 1'),
        ('83.0', '-', 'this run (roi)'),
    ]


def test_a_series_of_a_sweep_is_a_row():
    entries = [
        sweep(
            f'{method}-{scale[0]}',
            seed,
            score + seed,
            protocol='linear',
            method=method.upper(),
            recipe=dict(local_scale=scale),
        )
        for seed in (0, 2)
        for method, score in (('dino', 80.0), ('scfs', 85.0))
        for scale in ([0.05, 0.14], [0.4, 0.6])
    ]
    (table,), _ = arrange(entries, '9')
    names = ('0.05-0.14', '0.4-0.6')
    rows = [r.cells(names)[3:] for r in table.rows if r.is_ours]
    mean = 'this run: mean and standard deviation of seeds 0, 2'
    assert rows == [
        ['80.0', '80.0', 'this run (dino-0.05, dino-0.4)'],
        ['82.0', '82.0', 'this run (dino-0.05_seed-2, dino-0.4_seed-2)'],
        ['81.0 ± 1.4', '81.0 ± 1.4', mean],
        ['85.0', '85.0', 'this run (scfs-0.05, scfs-0.4)'],
        ['87.0', '87.0', 'this run (scfs-0.05_seed-2, scfs-0.4_seed-2)'],
        ['86.0 ± 1.4', '86.0 ± 1.4', mean],
    ]


# Tables of a data set


def test_variants_of_other_data_go_by_their_contrast_mode():
    for run, method, recipe in (
        ('a', 'SCFS', dict(num_local=2)),
        ('b', 'SCFS', dict(num_local=0)),
        ('c', 'DINO', dict(num_local=0)),
        ('d', 'MoCo v2', dict(num_local=0)),
    ):
        save(
            'knn',
            'digits',
            60.0,
            f'{run}/e.pth',
            method=method,
            data=None,
            recipe=recipe,
        )
    rows = gather('.')['digits']
    modes = ['MoCo v2', 'DINO w/o MC', 'SCFS', 'SCFS w/o MC']
    assert [mode for (mode,) in ours(rows, 'method')] == modes


def test_other_data_sets_have_protocols_as_columns():
    save('knn', 'digits', 61.0, backbone='ResNet-18-w16')
    save('linear', 'digits', 72.0, backbone='ResNet-18-w16')
    save('linear-sweep', 'digits', 71.0, backbone='ResNet-18-w16')
    save('semi-10%', 'digits', 80.0, backbone='ResNet-18-w16')
    random('knn', 'digits', 31.0, backbone='ResNet-18-w16')
    tables = gather('.')
    names = ('method', 'k-NN', 'linear', 'linear sweep', '10% labels')
    assert ours(tables.pop('digits'), *names) == [
        ('random', '31.0', '-', '-', '-'),
        ('SCFS (imagenet)', '61.0', '72.0', '71.0', '80.0'),
    ]
    assert tables == {}


@pytest.mark.parametrize(
    ('settings', 'title'),
    [
        (dict(val_images=50000, train_images=1281167), TITLES['1']),
        (
            dict(val_images=1000),
            'in1k, 1000 of 50000 validation images',
        ),
        (
            dict(val_images=50000, train_images=12811),
            'in1k, 12811 of 1281167 training images',
        ),
    ],
)
def test_no_paper_beside_a_part_of_the_data(settings, title):
    assert [*gather(save('knn', 'in1k', 65.0, settings=settings))] == [title]


def test_the_lists_of_few_labels_are_whole():
    settings = dict(train_images=12811, val_images=50000)
    path = save('semi-1%', 'in1k', 54.0, settings=settings)
    assert [*gather(path)] == [TITLES['2']]


@pytest.mark.parametrize(
    ('protocol', 'kwargs'),
    [
        ('linear-sweep', {}),
        ('knn', dict(backbone='ResNet-18')),
        ('finetune', {}),
    ],
)
def test_no_paper_beside_another_protocol(protocol, kwargs):
    assert [*gather(save(protocol, 'in1k', 60.0, **kwargs))] == ['in1k']


def test_a_score_given_twice_has_two_rows():
    """The configs tell them apart."""
    save('linear', 'digits', 70.0, config='linear_a')
    save('linear', 'digits', 71.0, config='linear_b')
    save('knn', 'digits', 60.0)
    rows = gather('.')['digits']
    assert ours(rows, 'k-NN', 'linear', 'source') == [
        (
            '60.0',
            '70.0',
            'this run (scfs/epoch_200.knn_digits.json, '
            'scfs/epoch_200.linear_a.json)',
        ),
        ('-', '71.0', 'this run (scfs/epoch_200.linear_b.json)'),
    ]


def test_an_unknown_method_goes_by_its_file():
    path = save('knn', 'digits', 60.0, 'x/mine.pth', method=None, data=None)
    assert ours(gather(path)['digits'], 'method') == [('mine.pth',)]


def test_a_forced_table_names_what_is_not_the_papers():
    settings = dict(val_images=100)
    path = save('knn', 'in1k', 50.0, backbone='ResNet-18', settings=settings)
    other = random('linear', 'digits', 10.0)
    tables = gather(path, other, '--table', '1')
    assert ours(tables[TITLES['1']], 'source') == [
        (
            'this run (scfs/epoch_200.pth), ResNet-18, '
            '100 of 50000 validation images',
        )
    ]
    (row,) = tables['not scored']
    assert row['method'] == 'random'
    assert f'({other}): --table 1 has knn and linear on in1k' in row['source']


# What is not scored


@pytest.mark.parametrize(
    ('kwargs', 'problem'),
    [
        (
            dict(epoch=50, settings=dict(max_epochs=100)),
            'unfinished: 50 of 100 epochs',
        ),
        (
            dict(epoch=5, settings=dict(max_iters=10)),
            'unfinished: 5 of 10 iterations',
        ),
        (
            dict(score=None),
            'its metrics have no number as the score of linear',
        ),
    ],
)
def test_not_scored(capsys, kwargs, problem):
    bad = save(**dict(protocol='linear', dataset='in1k', score=1.0) | kwargs)
    tables = gather(bad, random('knn', 'in1k', 3.0))
    assert len(ours(tables[TITLES['1']], 'method')) == 1
    (row,) = tables['not scored']
    assert row['source'] == f'this run ({bad}): {problem}'
    assert f'- {bad}: {problem}' in Path('out/results.md').read_text()
    assert f'not scored: {bad}: {problem}' in capsys.readouterr().out
    # Alone, it leaves no picture.
    gather(bad)
    assert not Path('out/results.png').exists()


# Refusals


def refuse(capsys, *args):
    assert tool.main([*map(str, args), '--out', 'out']) == 2
    assert not Path('out').exists()
    return capsys.readouterr().err


def test_a_forced_table_without_results(capsys):
    path = save('knn', 'digits', 60.0)
    text = refuse(capsys, path, '--table', 5)
    assert text.startswith('error: --table 5 has finetune on cifar10, cifar')
    assert 'knn on digits' in text


@pytest.mark.parametrize('kind', ['absent', 'empty', 'damaged'])
def test_what_is_no_result(capsys, kind):
    good = save('knn', 'digits', 60.0)
    if kind == 'empty':
        Path(kind).mkdir()
    elif kind == 'damaged':
        Path(kind).write_text(Path(good).read_text()[:-9])
    text = refuse(capsys, good, kind)
    assert text.startswith('error: ')
    assert f"'{kind}'" in text
    assert text.count('\n') == 1


def test_out_that_is_a_file(capsys):
    Path('out').write_text('mine')
    path = save('knn', 'digits', 60.0)
    assert tool.main([path, '--out', 'out']) == 1
    assert '--out out' in capsys.readouterr().err
    assert Path('out').read_text() == 'mine'


def test_unknown_table(capsys):
    with pytest.raises(SystemExit) as caught:
        tool.main(['a', '--table', '3'])
    assert caught.value.code == 2
    assert '--table' in capsys.readouterr().err
