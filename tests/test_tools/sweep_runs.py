# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""A list of variants, and stand-ins for the commands that run them."""

from pathlib import Path

import torch
from mmengine.config import Config
from report_runs import write_start

from mmscfs.results import Result, result_path, write_result

LIST = """
evaluations = ['knn.py', 'linear.py']
variants = [
    dict(name='dino', config='dino.py'),
    dict(
        name='scfs',
        config='scfs.py',
        cfg_options={'data.pipeline.1.num_local': 8},
    ),
]
"""
CONFIGS = dict(
    dino="""
model = dict(type='DINO', head=dict(type='DINOHead'))
data = dict(pipeline=[dict(type='LoadImage'), dict(type='MultiCrop')])
train_cfg = dict(max_epochs=3)
""",
    scfs="""
_base_ = ['dino.py']
model = dict(type='SCFS', search_neck=dict(type='FeatureSearchNeck'))
""",
    knn="""
test_dataloader = dict(dataset=dict(type='A'))
test_cfg = dict(type='KNNLoop', bank_dataloader=dict(dataset=dict(type='A')))
evaluation = dict(protocol='knn', dataset='in100')
""",
    linear="""
test_dataloader = dict(dataset=dict(type='A'))
train_dataloader = dict(dataset=dict(type='A'))
train_cfg = dict(max_epochs=2)
evaluation = dict(protocol='linear', dataset='in100')
""",
    mask_rcnn="""
model = dict(type='MaskRCNN', backbone=dict(type='ResNet', depth=50))
train_cfg = dict(max_epochs=2)
val_dataloader = dict(dataset=dict(ann_file='mine.json'))
val_evaluator = dict(type='CocoMetric')
""",
)
SCORES = dict(dino=dict(knn=80.0, linear=86.0), scfs=dict(knn=84.0, linear=89))
PRETRAIN = ('dino', 'scfs')
STARTS = ('--resume', '--overwrite')
LENGTH = 10  # iterations of an epoch


class Commands:
    """What tools/train.py and test.py leave behind, and what was called.

    Attributes:
        calls (list): Work directory and how it starts, of each.
        commands (list): Their words.
        failing (set): Work directories of those that fail.
        killed (dict): Of those that are killed, what they have saved: a name
            and a number of iterations.
        dataset (str): What the evaluations say they are of.
        saved_as (str): What checkpoints are named by.
    """

    def __init__(self):
        self.calls = []
        self.commands = []
        self.failing = set()
        self.killed = {}
        self.dataset, self.saved_as = 'in100', 'epoch'

    def __call__(self, command, log_file):
        folder = Path(command[command.index('--work-dir') + 1])
        name = str(folder.relative_to('work'))
        how = next((w for w in command if w in STARTS), None)
        self.calls.append((name, how))
        self.commands.append(command)
        if name in self.failing:
            # Of two processes, below their launcher's own.
            log_file.write(
                'Traceback\n[rank1]: ValueError: no such luck\n'
                'torch.distributed.ChildFailedError: \n  error_file: -\n==\n'
            )
            log_file.flush()
            return 1
        stem = next(
            Path(w).stem
            for w in command
            if w.endswith('.py') and (Path(w).stem in CONFIGS)
        )
        options = dict(w.split('=', 1) for w in command if '=' in w)
        total = int(
            options.get('train_cfg.max_epochs', 3 if stem in PRETRAIN else 2)
        )
        if name in self.killed:
            save(folder, *self.killed.pop(name), total)
            raise KeyboardInterrupt
        if stem != 'knn':
            count = total * (LENGTH if self.saved_as == 'iter' else 1)
            save(folder, f'{self.saved_as}_{count}', total * LENGTH, total)
        if stem in ('knn', 'linear'):
            evaluate(command, stem, folder, self.dataset)
        elif stem == 'mask_rcnn':
            detect(folder)
        return 0


def save(folder, name, count, total):
    """Save after some iterations of a run of some epochs, as mmengine does."""
    info = dict(max_epochs=total, max_iters=total * LENGTH)
    parts = dict(
        # An epoch that is saved by its last iteration is counted later.
        meta=dict(iter=count, epoch=count // LENGTH - ('iter' in name)),
        message_hub=dict(log_scalars={}, runtime_info=info),
        state_dict={},
        optimizer={},
    )
    torch.save(parts, folder / f'{name}.pth')
    (folder / 'last_checkpoint').write_text(f'/elsewhere/{name}.pth')


def evaluate(command, protocol, folder, dataset):
    checkpoint = next(w for w in command if w.endswith('.pth'))
    run = Path(checkpoint).parent.name
    variant, _, seed = run.partition('_seed-')
    name = dict(knn='knn/top1', linear='accuracy/top1')[protocol]
    recipe = dict(num_local=8, local_scale=[0.05, 0.14])
    result = Result(
        protocol=protocol,
        dataset=dataset,
        config=protocol,
        checkpoint=Path(checkpoint).name,
        network='teacher',
        pretraining=dict(
            method=variant.upper(),
            epochs=3,
            batch_size=256,
            dataset='imagenet100',
            **recipe,
        ),
        backbone='ResNet-50',
        metrics={name: SCORES[variant][protocol] + int(seed or 0)},
        settings={},
        work_dir=str(folder.absolute()),
        epoch=None,
    )
    write_result(result_path(checkpoint, protocol), result)


def detect(folder):
    lines = [
        dict(loss=1.0, iter=20, epoch=2, step=20),
        {'coco/bbox_mAP': 0.31, 'coco/segm_mAP': 0.28, 'step': 2},
    ]
    cfg = Config.fromstring(CONFIGS['mask_rcnn'], '.py')
    write_start(folder, cfg.to_dict(), lines)
