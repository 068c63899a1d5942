# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The evaluator of the VOC configs reads as the paper's Table 3."""

from pathlib import Path

import pytest
import torch
from mmdet.registry import METRICS
from mmengine.config import Config

CONFIG = (
    Path(__file__).parents[1]
    / 'configs/detection/voc/faster-rcnn_r50-c4_24k_voc0712.py'
)


def instances(boxes, labels, **values):
    return dict(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
        **{key: torch.tensor(value) for key, value in values.items()},
    )


def voc_ap(samples, classes):
    """Evaluate (ground truth, difficult, detections) of every image."""
    metric = METRICS.build(Config.fromfile(CONFIG).val_evaluator)
    metric.dataset_meta = dict(classes=classes)
    for truth, difficult, found in samples:
        metric.process(
            None,
            [
                dict(
                    gt_instances=truth,
                    ignored_instances=difficult,
                    pred_instances=found,
                )
            ],
        )
    return metric.evaluate(len(samples))


def test_hand_worked_example():
    """Boxes of 10 x 10 px, whose last pixel is inside as VOC counts.

    Cats, three to find, in the order of the scores: a hit of IoU 1; the
    difficult one, which counts as nothing; IoU 9 x 8 / 100 = 0.72; nothing
    there; the first cat again; IoU 9 x 6 / 100 = 0.54. So the precision that
    is reached at a recall of 0, 0.1, ... 1 is

    - at IoU 0.50: 1 up to recall 2/3, then 3/5: (7 x 1 + 4 x 0.6) / 11
    - at 0.55 to 0.70: 1 up to recall 2/3, then 0: 7 / 11
    - at 0.75 to 0.95: 1 up to recall 1/3, then 0: 4 / 11

    Dogs: one to find, after one false alarm: 1/2 everywhere. Birds: none to
    find, so they do not count.
    """
    first, second, difficult = (
        [0, 0, 9, 9],
        [20, 0, 29, 9],
        [40, 40, 49, 49],
    )
    cat, dog, bird = range(3)
    samples = [
        (
            instances([first, second], [cat, cat]),
            instances([difficult], [cat]),
            instances(
                [first, difficult, [20, 20, 29, 29], first, [20, 0, 28, 5]],
                [cat] * 5,
                scores=[0.9, 0.8, 0.6, 0.5, 0.4],
            ),
        ),
        (
            instances([first, [50, 50, 59, 59]], [cat, dog]),
            instances([], []),
            instances(
                [
                    [0, 0, 8, 7],
                    [60, 60, 69, 69],
                    [50, 50, 59, 59],
                    [0, 30, 9, 39],
                ],
                [cat, dog, dog, bird],
                scores=[0.7, 0.35, 0.3, 0.9],
            ),
        ),
    ]
    result = voc_ap(samples, ('cat', 'dog', 'bird'))
    cats = [9.4 / 11, *[7 / 11] * 4, *[4 / 11] * 5]
    by_threshold = [(ap + 0.5) / 2 for ap in cats]
    assert result['pascal_voc/mAP'] == pytest.approx(
        sum(by_threshold) / 10, abs=1e-6
    )
    # Every threshold has its own key; these are rounded.
    assert len(result) == 11
    for i, expected in enumerate(by_threshold):
        key = f'pascal_voc/AP{50 + 5 * i}'
        assert result[key] == pytest.approx(expected, abs=0.00051), key
    assert result['pascal_voc/AP50'] == 0.677
    assert result['pascal_voc/AP75'] == 0.432
