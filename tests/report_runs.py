# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Work directories as mmengine writes them, for the report's tests."""

import json
import math

from PIL import Image

K = 512
LENGTH = 40  # iterations of an epoch
INTERVAL = 10  # of the log
LOG = """2026/01/01 00:00:00 - mmengine - INFO -
------------------------------------------------------------
System environment:
    sys.platform: linux
    Python: 3.11.7 (main) [GCC 12.2.0]
    GPU 0: A Card
    PyTorch: 2.11.0+cu130
    PyTorch compiling details: PyTorch built with:
  - GCC 13.3
    MMEngine: 0.10.7

Runtime environment:
    seed: 0
    Distributed training: True
    GPU number: 4
------------------------------------------------------------
2026/01/01 00:00:00 - mmengine - INFO - Config:
    late: no environment
"""


def scfs_cfg(**changes):
    """A pre-training of 10 epochs of 40 iterations of 8 images."""
    return dict(
        model=dict(
            type='SCFS',
            backbone=dict(type='ResNet', depth=18, out_indices=[1, 2, 3]),
            neck=dict(type='DINONeck', num_prototypes=K),
            search_neck=dict(type='FeatureSearchNeck'),
            head=dict(type='SCFSHead'),
        ),
        train_cfg=dict(max_epochs=10, type='EpochBasedTrainLoop'),
        train_dataloader=dict(
            batch_size=8,
            dataset=dict(
                data_root='data/scenes',
                pipeline=[
                    dict(
                        type='MultiCrop',
                        num_local=8,
                        local_size=96,
                        local_scale=[0.05, 0.25],
                    )
                ],
            ),
        ),
        optim_wrapper=dict(
            type='PerParamClipOptimWrapper',
            optimizer=dict(type='SGD', lr=0.1, weight_decay=1e-4),
        ),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=INTERVAL),
            collapse_monitor=dict(
                type='CollapseMonitorHook', begin=100, window=50
            ),
        ),
    ) | dict(changes)


def detector_cfg():
    """A detector of 100 iterations."""
    return dict(
        model=dict(
            type='FasterRCNN',
            backbone=dict(type='ResNet', depth=50),
            roi_head=dict(type='StandardRoIHead'),
        ),
        train_cfg=dict(max_iters=100, type='IterBasedTrainLoop'),
        train_dataloader=dict(batch_size=2, dataset=dict(data_root='voc')),
        val_evaluator=dict(type='VOCMetric', iou_thrs=[0.5] * 10),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=10)),
    )


def train_line(iteration, length=LENGTH, **values):
    """A line of a training, of a healthy one if nothing else is said."""
    share = iteration / 400
    top = math.log(K)
    line = dict(
        lr=0.1 * (1 - share),
        teacher_temp=0.04,
        teacher_momentum=0.99,
        data_time=0.1,
        time=0.5,
        loss=9 - share,
        loss_dino=top - share,
        loss_layer2_global=2.0,
        loss_layer2_search=1.5,
        teacher_entropy=top - 2 - share,
        layer2_teacher_entropy=3.0,
        teacher_student_kl=1.0,
        center_norm=0.5,
        feature_std=0.7,
    )
    line.update(values)
    line['epoch'] = -(-iteration // length)
    return line | dict(iter=iteration, step=iteration)


def val_line(epoch, top1):
    """A line of a k-NN validation."""
    return {
        'knn/layer3_k10_top1': top1 - 10,
        'knn/layer4_k10_top1': top1,
        'knn/top1': top1,
        'knn/k': 10,
        'time': 0.2,
        'step': epoch,
    }


def healthy_lines(last=400, first=INTERVAL):
    """The lines of a training, with a validation at every epoch's end."""
    lines = []
    for iteration in range(first, last + 1, INTERVAL):
        lines.append(train_line(iteration))
        if iteration % LENGTH == 0:
            epoch = iteration // LENGTH
            lines.append(val_line(epoch, 20 + 3 * epoch))
    return lines


def detector_lines():
    """The lines of a detector's training, with its last validation."""
    lines = [
        dict(lr=0.02, loss=1.0, loss_cls=0.5, data_time=0.1, time=0.4)
        | dict(iter=iteration, step=iteration)
        for iteration in range(10, 101, 10)
    ]
    scores = {'pascal_voc/mAP': 0.5, 'pascal_voc/AP50': 0.75}
    return lines + [scores | dict(time=0.1, step=0)]


def write_start(folder, cfg, lines, time='20260101_000000', rest=''):
    """Write what one start of a run leaves; return its vis_data."""
    log = folder / time / 'vis_data'
    log.mkdir(parents=True)
    text = ''.join(f'{name} = {value!r}\n' for name, value in cfg.items())
    (log / 'config.py').write_text(text)
    (log.parent / f'{time}.log').write_text(LOG)
    if lines or rest:
        text = ''.join(f'{json.dumps(line)}\n' for line in lines)
        (log / 'scalars.json').write_text(text + rest)
    return log


def write_picture(log, name, step, color='red', size=(1200, 600)):
    """Write a picture as mmengine's local backend does."""
    folder = log / 'vis_image'
    folder.mkdir(exist_ok=True)
    path = folder / f'{name}_{step}.png'
    Image.new('RGB', size, color).save(path)
    return path
