# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Where results of evaluations stand, and beside which rows of the paper."""

from pathlib import Path

import pytest

from mmscfs.results import PROTOCOLS, Result, result_path
from mmscfs.results.classification import PAPER_TABLES, arrange, make_unscored
from mmscfs.results.entries import Entry

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


def entry(
    protocol,
    dataset,
    score,
    checkpoint='scfs/epoch_200.pth',
    config=None,
    method='SCFS',
    data='imagenet',
    network='teacher',
    recipe=None,
    variant='',
    seed=None,
    metrics=None,
    **changes,
):
    config = config or f'{protocol}_{dataset}'
    path = Path('work', config, f'{config}.json')
    if checkpoint:
        path = result_path(checkpoint, config, network)
    known = 200 if method != 'random' else None
    pretraining = dict(
        method=method,
        epochs=known,
        batch_size=known and 256,
        dataset=data,
        **(recipe or {}),
    )
    content = dict(
        backbone='ResNet-50', settings={}, work_dir='work', epoch=None
    )
    result = Result(
        protocol=protocol,
        dataset=dataset,
        config=config,
        checkpoint=checkpoint and Path(checkpoint).name,
        network=network if checkpoint else None,
        pretraining=pretraining,
        metrics={PROTOCOLS[protocol].score: score} | (metrics or {}),
        **content | changes,
    )
    return Entry(path, result, variant, seed)


def random(protocol, dataset, score, **kwargs):
    kwargs = dict(method='random', data=None) | kwargs
    return entry(protocol, dataset, score, None, **kwargs)


def in100(protocol, score, run='scfs', method='SCFS', recipe=None, **kwargs):
    recipe = DEFAULT | (recipe or {})
    if method != 'SCFS':
        recipe = {k: recipe[k] for k in ('num_local', 'local_scale')}
    path = f'{run}/epoch_200.pth'
    data = dict(data='imagenet100', method=method, recipe=recipe)
    return entry(protocol, 'in100', score, path, **data, **kwargs)


def gather(*entries, number=None):
    tables, left_out = arrange(entries, number)
    assert left_out == []
    return {table.title: table for table in tables}


def ours(table, *columns):
    """The cells of the rows that are not the paper's."""
    cells = (
        dict(zip(table.header, row.cells(table.columns), strict=True))
        for row in table.rows
        if row.is_ours
    )
    return [tuple(row.get(c, '-') for c in columns) for row in cells]


def test_table_1_has_a_row_for_each_network():
    settings = dict(max_epochs=100)
    (table,) = gather(
        entry('knn', 'in1k', 65.1),
        entry('linear', 'in1k', 73.4, epoch=100, settings=settings),
        entry('knn', 'in1k', 60.5, network='student'),
        entry('knn', 'in1k', 63.3, 'd/l.pth', method='DINO'),
        random('linear', 'in1k', 9.0),
        random('knn', 'in1k', 3.0),
        entry('knn', 'in1k', 74.0, 's/r.pth', method='supervised', data=None),
    ).values()
    scfs = 'this run (scfs/epoch_200.pth)'
    files = 'linear_in1k/linear_in1k.json, work/knn_in1k/knn_in1k.json'
    names = ('method', 'batch', 'epochs', 'LP', 'k-NN', 'source')
    assert ours(table, *names) == [
        ('random', '-', '-', '9.0', '3.0', f'this run (work/{files})'),
        ('supervised', '256', '200', '-', '74.0', 'this run (s/r.pth)'),
        ('DINO (imagenet)', '256', '200', '-', '63.3', 'this run (d/l.pth)'),
        ('SCFS (imagenet)', '256', '200', '73.4', '65.1', scfs),
        ('SCFS (imagenet), student', '256', '200', '-', '60.5', scfs),
    ]
    paper = [row for row in table.rows if row.source == 'paper (Table 1)']
    assert len(paper) == len(table.rows) - 5 == 26


def test_table_2_has_both_shares():
    table = gather(
        entry('semi-1%', 'in1k', 54.0, metrics={'accuracy/top5': 78.0}),
        entry('semi-10%', 'in1k', 70.0, metrics={'accuracy/top5': 90.0}),
    )[TITLES['2']]
    expected = ('54.0', '70.0', '78.0', '90.0')
    assert ours(table, *PAPER_TABLES['2'].columns) == [expected]


def test_table_5_takes_the_mean_over_classes_of_two():
    table = gather(
        *(
            entry(
                'finetune', name, top1, metrics={'single-label/recall': mean}
            )
            for name, top1, mean in (
                ('cifar10', 80.0, 70.0),
                ('cub200', 81.0, 71.0),
                ('aircraft', 82.0, 72.0),
                ('pets', 83.0, 73.0),
            )
        )
    )[TITLES['5']]
    expected = ('80.0', '-', '81.0', '-', '72.0', '73.0')
    assert ours(table, *PAPER_TABLES['5'].columns) == [expected]


def test_table_7_by_contrast_mode():
    alone = dict(num_local=0, search_alone=True)
    (table,) = gather(
        in100('knn', 84.0),
        in100('knn', 77.0, 'd0', 'DINO', dict(num_local=0)),
        in100('knn', 79.0, 's0', recipe=dict(num_local=0)),
        in100('knn', 83.0, 'roi', recipe=dict(search='RoIFeatureSearch')),
        in100('knn', 81.0, 'ml', recipe=dict(search_views='none')),
        in100('knn', 76.0, 's1', recipe=alone),
        in100('knn', 75.0, 'moco', 'MoCo v2', dict(num_local=0)),
    ).values()
    rows = [(row.labels[0], row.cells(['k-NN'])[3]) for row in table.rows]
    assert rows == [
        ('DINO w/o MC', '78.1'),
        ('DINO w/o MC (imagenet100)', '77.0'),
        ('DINO', '81.1'),
        ('DINO w ML', '82.2'),
        ('DINO w ML (imagenet100)', '81.0'),
        ('SCFS', '84.8'),
        ('SCFS (imagenet100)', '84.0'),
        ('ROI Crop', '83.9'),
        ('ROI Crop (imagenet100)', '83.0'),
        ('SCFS w/o MC', '79.7'),
        ('SCFS w/o MC (imagenet100)', '79.0'),
        ('SCFS w/o MC, search alone (imagenet100)', '76.0'),
        ('MoCo v2 (imagenet100)', '75.0'),
    ]


def test_the_default_recipe_joins_other_ablations():
    """In Table 7, and in those that a varied recipe opens."""
    default = [in100('linear', 89.0), in100('knn', 84.0)]
    assert [*gather(*default)] == [TITLES['7']]
    tables = gather(
        *default,
        in100('linear', 86.0, 'l2', recipe=dict(search_layers=[1])),
        in100('linear', 88.0, 's2', recipe=dict(local_scale=[0.14, 0.25])),
        in100('linear', 80.0, 's3', recipe=dict(local_scale=[0.6, 0.8])),
    )
    assert [*tables] == [TITLES[number] for number in '789']
    layers = ours(tables[TITLES['8']], 'search layers', 'k-NN', 'LP')
    assert layers == [
        ('Res2', '-', '86.0'),
        ('Res2, Res3, Res4', '84.0', '89.0'),
    ]
    columns = (*PAPER_TABLES['9'].columns, '0.6-0.8')
    assert sorted(ours(tables[TITLES['9']], *columns)) == [
        ('-', '-', '-', '-', '80.0'),
        ('-', '88.0', '-', '-', '-'),
        ('89.0', '-', '-', '-', '-'),
    ]
    assert len(ours(tables[TITLES['7']], 'LP')) == 1


def test_figure_5_by_number_of_local_views():
    """A row for each network and protocol, the default recipe too.

    Two changes at once are not an ablation.
    """
    tables = gather(
        in100('linear', 89.0),
        in100('knn', 84.0),
        in100('knn', 83.0, 's4', recipe=dict(num_local=4)),
        in100('knn', 80.0, 'l', recipe=dict(num_local=4, search_layers=[1])),
        in100('linear', 85.0, 'd3', 'DINO', recipe=dict(num_local=3)),
        in100('knn', 75.0, 'moco', 'MoCo v2', dict(num_local=0)),
    )
    title = f'{TITLES["fig5"]}, in100'
    assert [*tables] == [TITLES['7'], title, 'in100']
    table = tables[title]
    assert table.columns == ['3', '4', '8']
    assert sorted(ours(table, 'method', 'evaluation', *table.columns)) == [
        ('DINO (imagenet100)', 'linear', '85.0', '-', '-'),
        ('SCFS (imagenet100)', 'k-NN', '-', '-', '84.0'),
        ('SCFS (imagenet100)', 'k-NN', '-', '83.0', '-'),
        ('SCFS (imagenet100)', 'linear', '-', '-', '89.0'),
    ]
    assert all(row.is_ours for row in table.rows)
    digits = entry('knn', 'digits', 60.0, recipe=dict(num_local=2))
    assert [*gather(digits, number='fig5')] == [f'{TITLES["fig5"]}, digits']


def test_table_10_by_backbone():
    table = gather(
        in100('knn', 81.0, 'a', 'DINO', backbone='ResNet-101'),
        in100('knn', 81.0, 'b', 'DINO', backbone='ViT-S-16'),
    )[TITLES['10']]
    backbones = [row.labels[1] for row in table.rows]
    wanted = ['ResNet-101'] * 3 + ['ViT-S-16'] * 3 + ['ViT-B-16'] * 2
    assert backbones == wanted
    # Behind the paper's DINO of the same backbone.
    assert [i for i, row in enumerate(table.rows) if row.is_ours] == [1, 4]


def test_figure_4_beside_other_tables():
    """The best k of each layer."""
    tables = gather(
        entry('knn', 'in1k', 45.0, metrics=LAYERS),
        random('knn', 'digits', 45.0, metrics=LAYERS, backbone='ResNet-18'),
    )
    for data in ('in1k', 'digits'):
        table = tables[f'{TITLES["fig4"]}, {data}']
        assert ours(table, 'Res2', 'Res3', 'Res4') == [
            ('21.0', '30.0', '45.0')
        ]
        assert len(table.rows) == 1
    assert TITLES['1'] in tables


# Sweeps


def swept(variant, seed, score, protocol='knn', **kwargs):
    run = f'sweep/{variant}_seed-{seed}' if seed else f'sweep/{variant}'
    return in100(protocol, score, run, variant=variant, seed=seed, **kwargs)


def test_seeds_of_a_variant_have_a_mean():
    """Mean and sample standard deviation of what all of them have."""
    (table,) = gather(
        swept('scfs', 0, 84.0),
        swept('scfs', 0, 88.0, 'linear'),
        swept('roi', 0, 83.0, recipe=dict(search='RoIFeatureSearch')),
        swept('scfs', 1, 86.0),
        swept('dino', 0, 80.0, method='DINO'),
        swept('dino', 1, 80.5, method='DINO'),
        swept('dino', 4, 82.5, method='DINO'),
        number='7',
    ).values()
    mean = 'this run: mean and standard deviation of seeds'
    # Deviations of 80, 80.5 and 82.5: (1, .5, 1.5) around 81, over 2.
    assert ours(table, 'k-NN', 'LP', 'source') == [
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
        swept(
            f'scfs-{scale[0]}',
            seed,
            85.0 + seed,
            'linear',
            recipe=dict(local_scale=scale),
        )
        for seed in (0, 2)
        for scale in ([0.05, 0.14], [0.4, 0.6])
    ]
    (table,) = gather(*entries, number='9').values()
    mean = 'this run: mean and standard deviation of seeds 0, 2'
    assert ours(table, '0.05-0.14', '0.4-0.6', 'source') == [
        ('85.0', '85.0', 'this run (scfs-0.05, scfs-0.4)'),
        ('87.0', '87.0', 'this run (scfs-0.05_seed-2, scfs-0.4_seed-2)'),
        ('86.0 ± 1.4', '86.0 ± 1.4', mean),
    ]


# Tables of a data set


def test_other_data_sets_have_protocols_as_columns():
    """The method by its contrast mode; a score given twice has two rows."""
    table = gather(
        entry('knn', 'digits', 61.0),
        entry('linear', 'digits', 72.0),
        entry('linear-sweep', 'digits', 71.0),
        entry('semi-10%', 'digits', 80.0),
        entry('linear', 'digits', 70.0, config='linear_b'),
        random('knn', 'digits', 31.0),
        entry('knn', 'digits', 9.0, 'x/my.pth', method=None, data=None),
        entry('knn', 'digits', 8.0, 'y/z.pth', recipe=dict(num_local=0)),
    )['digits']
    names = ('method', 'k-NN', 'linear', 'linear sweep', '10% labels')
    assert ours(table, *names) == [
        ('random', '31.0', '-', '-', '-'),
        ('my.pth', '9.0', '-', '-', '-'),
        ('SCFS (imagenet)', '61.0', '72.0', '71.0', '80.0'),
        ('SCFS (imagenet)', '-', '70.0', '-', '-'),
        ('SCFS w/o MC (imagenet)', '8.0', '-', '-', '-'),
    ]
    assert table.rows[3].source == 'this run (scfs/epoch_200.linear_b.json)'


@pytest.mark.parametrize(
    ('protocol', 'changes', 'title'),
    [
        ('knn', dict(val_images=50000, train_images=1281167), TITLES['1']),
        ('semi-1%', dict(val_images=50000, train_images=12811), TITLES['2']),
        (
            'knn',
            dict(val_images=1000, train_images=12811),
            'in1k, 12811 of 1281167 training images, '
            '1000 of 50000 validation images',
        ),
        ('linear-sweep', {}, 'in1k'),
        ('finetune', {}, 'in1k'),
    ],
)
def test_the_paper_stands_beside_its_protocols_alone(protocol, changes, title):
    assert [*gather(entry(protocol, 'in1k', 65.0, settings=changes))] == [
        title
    ]
    small = entry(protocol, 'in1k', 65.0, backbone='ResNet-18')
    assert [*gather(small)] == ['in1k']


def test_a_forced_table_names_how_a_run_differs():
    settings = dict(val_images=100)
    own = entry('knn', 'in1k', 5.0, backbone='ResNet-18', settings=settings)
    other = random('linear', 'digits', 10.0)
    (table,), left_out = arrange([own, other], '1')
    assert ours(table, 'source') == [
        (
            'this run (scfs/epoch_200.pth), ResNet-18, '
            '100 of 50000 validation images',
        )
    ]
    assert left_out == [(other, '--table 1 has knn and linear on in1k')]
    with pytest.raises(ValueError, match='--table 5 has finetune on cifar10'):
        arrange([own], '5')


@pytest.mark.parametrize(
    ('score', 'epoch', 'settings', 'problem'),
    [
        (1.0, 50, dict(max_epochs=100), 'unfinished: 50 of 100 epochs'),
        (1.0, 5, dict(max_iters=10), 'unfinished: 5 of 10 iterations'),
        (None, 5, {}, 'its metrics lack a number for the score of linear'),
    ],
)
def test_not_scored(score, epoch, settings, problem):
    bad = entry('linear', 'in1k', score, epoch=epoch, settings=settings)
    (table,), left_out = arrange([bad, random('knn', 'in1k', 3.0)])
    assert ours(table, 'method') == [('random',)]
    (row,) = make_unscored(left_out).rows
    assert row.source == f'{bad.path}: {problem}'
    assert row.labels[0] == 'SCFS (imagenet)'
