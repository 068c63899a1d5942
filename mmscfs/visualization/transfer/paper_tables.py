# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The rows of Tables 3, 4 and 6 of the SCFS paper, as printed there."""

from typing import NamedTuple

# Columns: AP^b, AP50^b, AP75^b, and for COCO AP^s, AP50^s, AP75^s.
TABLE_3 = """
Scratch    |    - | 33.8 60.2 33.1
Supervised |   90 | 53.5 81.3 58.8
SimCLR     | 1000 | 56.3 81.9 62.5
BYOL       |  300 | 51.9 81.0 56.5
SwAV       |  400 | 45.1 77.4 46.5
DINO       |  800 | 55.9 82.1 62.3
SCFS       |  800 | 57.4 83.0 63.6
"""
# 1x and 2x schedule.
TABLE_4 = """
Scratch     |   - | 31.0 49.5 33.2 28.5 46.8 30.4 | 38.4 57.5 42.0 34.7 54.8 37.2
Supervised  |  90 | 38.9 59.6 42.7 35.4 56.5 38.1 | 41.3 61.3 45.0 37.3 58.3 40.3
MoCo        | 200 | 38.5 58.9 42.0 35.1 55.9 37.7 | 40.8 61.6 44.7 36.9 58.4 39.7
MoCo v2     | 200 | 40.4 60.2 44.2 36.4 57.2 38.9 | 41.7 61.6 45.6 37.6 58.7 40.5
BYOL        | 300 | 40.4 61.6 44.1 37.2 58.8 39.8 | 42.3 62.6 46.2 38.3 59.6 41.1
SwAV        | 400 | -                             | 42.3 62.8 46.3 38.2 60.0 41.0
ReSim-FPN^T | 200 | 39.8 60.2 43.5 36.0 57.1 38.6 | 41.4 61.9 45.4 37.5 59.1 40.3
SetSim      | 200 | 40.2 60.7 43.9 36.4 57.7 39.0 | 41.6 62.4 45.9 37.7 59.4 40.6
DenseCL     | 200 | 40.3 59.9 44.3 36.4 57.0 39.2 | 41.2 61.9 45.1 37.3 58.9 40.1
DSC         | 200 | 39.4 58.9 43.2 35.7 56.1 38.3 | -
HSA         | 800 | 40.2 60.9 43.9 36.5 57.9 39.1 | 42.2 63.0 46.1 38.1 59.9 40.9
DetCo       | 800 | 40.1 61.0 43.9 36.4 58.0 38.9 | -
ORL*        | 800 | 40.3 60.2 44.4 36.3 57.3 38.9 | -
DINO        | 800 | 40.0 61.6 43.4 36.5 58.6 39.1 | 41.9 62.6 46.0 37.8 59.7 40.6
SCFS        | 800 | 40.5 61.8 44.0 36.7 58.8 39.2 | 42.1 63.4 46.1 38.1 60.2 41.0
"""  # noqa: E501
TABLE_6 = """
Scratch     | - | 31.0 49.5 33.2 28.5 46.8 30.4
Supervised* | - | 38.9 59.6 42.7 35.4 56.5 38.1
SimCLR      | - | 37.0 56.8 40.3 33.7 53.8 36.1
MoCo v2     | - | 38.5 58.1 42.1 34.8 55.3 37.3
BYOL        | - | 39.5 59.3 43.2 35.6 56.5 38.2
DenseCL     | - | 39.6 59.3 43.3 35.7 56.5 38.4
ORL         | - | 40.3 60.2 44.4 36.3 57.3 38.9
UniVIP      | - | 40.8 -    -    36.8 -    -
DINO        | - | 39.0 59.6 42.9 35.6 56.8 38.0
SCFS        | - | 40.9 61.6 44.4 36.9 58.4 39.5
"""


class PaperTable(NamedTuple):
    """A table of the paper: rows of (name, epochs, scores in percent)."""

    number: int
    title: str
    note: str
    rows: tuple[tuple[str, str, tuple[float | None, ...]], ...]


def parse_rows(text: str, group: int = 0) -> tuple:
    """Return the rows that have scores in a group of columns."""
    rows = []
    for line in text.strip().splitlines():
        name, epochs, *groups = (part.strip() for part in line.split('|'))
        if groups[group] != '-':
            values = groups[group].split()
            scores = tuple(None if v == '-' else float(v) for v in values)
            rows.append((name, epochs, scores))
    return tuple(rows)


_COCO = 'COCO, Mask R-CNN R50-FPN'
# By number and schedule.
PAPER_TABLES = {
    (3, ''): PaperTable(
        3,
        'PASCAL VOC trainval07+12, test2007, Faster R-CNN R50-C4',
        "Beside the paper's Table 3.",
        parse_rows(TABLE_3),
    ),
    **{
        (4, schedule): PaperTable(
            4,
            f'{_COCO}, {schedule} schedule',
            "Beside the paper's Table 4; * pre-trained on COCO.",
            parse_rows(TABLE_4, group),
        )
        for group, schedule in enumerate(('1x', '2x'))
    },
    (6, '1x'): PaperTable(
        6,
        f'{_COCO}, 1x schedule, pre-trained on COCO',
        "Beside the paper's Table 6; * pre-trained on ImageNet. The paper "
        'gives 800 epochs of pre-training in its caption, 500 in the text.',
        parse_rows(TABLE_6),
    ),
}
