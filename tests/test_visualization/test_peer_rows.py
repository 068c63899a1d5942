# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Where the runs of other methods stand in the paper's tables."""

import pytest

from mmscfs.visualization.results.arrange import place
from mmscfs.visualization.results.paper_tables import PAPER_TABLES
from mmscfs.visualization.transfer.paper_tables import (
    PAPER_TABLES as TRANSFER_TABLES,
)
from mmscfs.visualization.transfer.runs import Run
from mmscfs.visualization.transfer.starts import Start
from mmscfs.visualization.transfer.table import make_table


@pytest.mark.parametrize(
    ('method', 'row'),
    [
        ('SimCLR', 1),  # counted from 0
        ('BYOL', 3),
        ('SwAV', 5),
        ('MoCo v2', 6),
        ('SimSiam', 7),
        ('Barlow Twins', 11),
        ('MoCo v3', 21),
        ('DenseCL', 25.5),  # not in the table: last
        ('MoCo v2 + CO2', 25.5),
    ],
)
def test_table_1(method, row):
    assert place(dict(method=method), PAPER_TABLES['1']) == row + 0.5


def test_table_4():
    """Behind the paper's row of the same method, or before DINO's."""
    methods = [
        'SCFS',
        'MoCo v2 + CO2',
        'DenseCL',
        'MoCo v2',
        'SimSiam',
        'MoCo',
    ]
    model = dict(
        type='MaskRCNN',
        backbone=dict(type='ResNet', depth=50),
        neck=dict(type='FPN'),
    )
    cfg = dict(model=model, train_cfg=dict(max_epochs=12))
    runs = [
        Run(name, cfg, 'val', Start(name, f'{name} (in1k)'), 'coco', {})
        for name in methods
    ]
    table = make_table(TRANSFER_TABLES[4, '1x'], runs)
    names = [row.labels[0] for row in table.rows]
    for before, after in (
        ('MoCo', 'MoCo (in1k)'),
        ('MoCo (in1k)', 'MoCo v2'),
        ('MoCo v2', 'MoCo v2 (in1k)'),
        ('MoCo v2 (in1k)', 'BYOL'),
        ('DenseCL', 'DenseCL (in1k)'),
        ('ORL*', 'MoCo v2 + CO2 (in1k)'),
        ('MoCo v2 + CO2 (in1k)', 'SimSiam (in1k)'),
        ('SimSiam (in1k)', 'DINO'),
        ('SCFS', 'SCFS (in1k)'),
    ):
        assert names.index(after) == names.index(before) + 1
    assert len(names) == 14 + 6
