# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The paper's figures, and which results stand beside them."""

from pathlib import Path

import pytest

from mmscfs.results import PROTOCOLS, Result, result_path
from mmscfs.results.evaluations import read_entry
from mmscfs.results.paper import PAPER, arrange

TITLES = {number: paper.table.title for number, paper in PAPER.items()}
ALONE = dict(num_local=0, search_alone=True)
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
        metrics={PROTOCOLS[protocol]: score} | (metrics or {}),
        **content | changes,
    )
    return read_entry(path, result, variant, seed)


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


def gather(*entries):
    return {table.title: table for table in arrange(entries)}


def ours(table, *columns):
    """The cells of the rows that are not the paper's."""
    cells = (
        dict(zip(table.header, row.cells(table.columns), strict=True))
        for row in table.rows
        if row.is_ours
    )
    return [tuple(row.get(c, '-') for c in columns) for row in cells]


def test_paper_tables_are_whole():
    # Table 4 has 15 methods: SwAV lacks 1x; DSC, DetCo and ORL lack 2x.
    counts = {name: len(paper.table.rows) for name, paper in PAPER.items()}
    assert counts == {
        **{'1': 26, '2': 6, '3': 7, '4 1x': 14, '4 2x': 12, '5': 5},
        **{'6 1x': 10, '7': 6, '8': 3, '9': 2, '10': 6},
        **{'fig5': 0, 'other': 0, 'other detectors': 0},
    }
    for name, (table, *_) in PAPER.items():
        for row in table.rows:
            assert len(row.labels) == len(table.labels)
            known = [v for v in row.scores.values() if v is not None]
            if name[0] in '346' and len(known) > 2:
                assert max(known[:3]) == known[1]  # AP50
        if name in ('1', '2', '7', '8', '9'):  # where SCFS is the best
            rivals = table.rows[name == '1' :]  # not the supervised
            for column in table.columns:
                best = max(rivals, key=lambda r: r.scores[column] or 0)
                assert best.labels[0] == 'SCFS'


# What belongs beside it


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


def test_metrics_of_tables_2_and_5():
    """Table 2 has both shares, Table 5 two means over classes."""
    table = gather(
        entry('semi-1%', 'in1k', 54.0, metrics={'accuracy/top5': 78.0}),
        entry('semi-10%', 'in1k', 70.0, metrics={'accuracy/top5': 90.0}),
    )[TITLES['2']]
    columns = ('top-1 1%', 'top-1 10%', 'top-5 1%', 'top-5 10%')
    assert ours(table, *columns) == [('54.0', '70.0', '78.0', '90.0')]
    (table,) = gather(
        *(
            entry(
                'finetune', name, top1, metrics={'single-label/recall': mean}
            )
            for name, top1, mean in (
                ('cifar10', 80.0, 70.0),
                ('aircraft', 82.0, 72.0),
                ('pets', 83.0, 73.0),
            )
        )
    ).values()
    names = ('CIFAR-10', 'CIFAR-100', 'Aircraft', 'Pets')
    assert ours(table, *names) == [('80.0', '-', '72.0', '73.0')]


def test_table_7_by_contrast_mode():
    (table,) = gather(
        in100('knn', 84.0),
        in100('knn', 77.0, 'd0', 'DINO', dict(num_local=0)),
        in100('knn', 79.0, 's0', recipe=dict(num_local=0)),
        in100('knn', 83.0, 'roi', recipe=dict(search='RoIFeatureSearch')),
        in100('knn', 81.0, 'ml', recipe=dict(search_views='none')),
        in100('knn', 76.0, 's1', recipe=ALONE),
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
    """In Table 7, and where a varied recipe stands."""
    default = [in100('linear', 89.0), in100('knn', 84.0)]
    assert [*gather(*default)] == [TITLES['7']]
    tables = gather(
        *default,
        in100('linear', 86.0, 'l2', recipe=dict(search_layers=[1])),
        in100('linear', 88.0, 's2', recipe=dict(local_scale=[0.14, 0.25])),
        in100('linear', 80.0, 's3', recipe=dict(local_scale=[0.6, 0.8])),
    )
    assert [*tables] == [*(TITLES[n] for n in '789'), 'in100']
    assert ours(tables[TITLES['8']], 'search layers', 'k-NN', 'LP') == [
        ('Res2', '-', '86.0'),
        ('Res2, Res3, Res4', '84.0', '89.0'),
    ]
    columns = ('0.05-0.14', '0.14-0.25', 'source')
    source = 'this run (scfs/epoch_200.pth, s2/epoch_200.pth)'
    assert ours(tables[TITLES['9']], *columns) == [('89.0', '88.0', source)]
    assert ours(tables['in100'], 'linear') == [('80.0',)]


def test_figure_5_by_number_of_local_views():
    """Two changes at once are not an ablation."""
    tables = gather(
        in100('linear', 89.0),
        in100('knn', 84.0),
        in100('knn', 83.0, 's4', recipe=dict(num_local=4)),
        in100('knn', 80.0, 'l', recipe=dict(num_local=4, search_layers=[1])),
        in100('linear', 85.0, 'd2', 'DINO', recipe=dict(num_local=2)),
        in100('linear', 70.0, 'd0', 'DINO', recipe=dict(num_local=0)),
    )
    assert [*tables] == [TITLES['7'], TITLES['fig5'], 'in100']
    names = ('method', 'protocol', '0', '2', '4', '8')
    assert ours(tables[TITLES['fig5']], *names) == [
        ('SCFS (imagenet100)', 'linear', '-', '-', '-', '89.0'),
        ('SCFS (imagenet100)', 'knn', '-', '-', '83.0', '84.0'),
        ('DINO (imagenet100)', 'linear', '70.0', '85.0', '-', '-'),
    ]


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
    table = gather(
        *(
            swept(
                f'scfs-{scale[0]}',
                seed,
                85.0 + seed,
                'linear',
                recipe=dict(local_scale=scale),
            )
            for seed in (0, 2)
            for scale in ([0.05, 0.14], [0.4, 0.6])
        ),
    )[TITLES['9']]
    mean = 'this run: mean and standard deviation of seeds 0, 2'
    assert ours(table, '0.05-0.14', '0.4-0.6', 'source') == [
        ('85.0', '85.0', 'this run (scfs-0.05, scfs-0.4)'),
        ('87.0', '87.0', 'this run (scfs-0.05_seed-2, scfs-0.4_seed-2)'),
        ('86.0 ± 1.4', '86.0 ± 1.4', mean),
    ]


# Tables of a data set


def test_other_data_sets_have_protocols_as_columns():
    """A score given twice has two rows."""
    (table,) = gather(
        entry('knn', 'digits', 61.0),
        entry('linear', 'digits', 72.0),
        entry('linear-sweep', 'digits', 71.0),
        entry('semi-10%', 'digits', 80.0),
        entry('linear', 'digits', 70.0, config='linear_b'),
        random('knn', 'digits', 31.0),
        entry('knn', 'digits', 9.0, 'x/my.pth', method=None, data=None),
        entry('knn', 'digits', 8.0, 'y/z.pth', recipe=dict(num_local=0)),
    ).values()
    names = ('method', 'k-NN', 'linear', 'linear sweep', '10% labels')
    assert ours(table, *names) == [
        ('random', '31.0', '-', '-', '-'),
        ('SCFS (imagenet)', '61.0', '72.0', '71.0', '80.0'),
        ('SCFS (imagenet)', '-', '70.0', '-', '-'),
        ('my.pth', '9.0', '-', '-', '-'),
        ('SCFS w/o MC (imagenet)', '8.0', '-', '-', '-'),
    ]
    assert table.title == 'digits'
    assert table.rows[2].source == 'this run (scfs/epoch_200.linear_b.json)'


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
    assert bad.problem == problem
    (table,) = arrange([bad, random('knn', 'in1k', 3.0)])
    assert ours(table, 'method') == [('random',)]
