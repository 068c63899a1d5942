# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Runs that learn nothing, quickly, and reach given scores."""

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn


class Toy(BaseModel):
    """Has one weight; fails in one iteration."""

    def __init__(self, fails_at=None):
        BaseModel.__init__(self)
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


def loader(images, batch_size, sampler='DefaultSampler'):
    return dict(
        dataset=[dict(inputs=torch.zeros(1))] * images,
        sampler=dict(type=sampler),
        batch_size=batch_size,
        collate_fn=dict(type='default_collate'),
    )


def make_runner(cfg, scores, prefix, folder, model=None, batches=1, **hooks):
    """Make a run of a config; training batches have two images."""
    by_epoch = 'max_epochs' in cfg.train_cfg
    sampler = 'DefaultSampler' if by_epoch else 'InfiniteSampler'
    evaluator = [Given(scores, prefix)]
    return Runner(
        model or Toy(),
        work_dir=str(folder),
        train_dataloader=loader(2 * batches, 2, sampler),
        val_dataloader=loader(5, 5),
        test_dataloader=loader(5, 5),
        train_cfg=cfg.train_cfg,
        val_cfg=dict(),
        test_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        default_hooks=hooks,
        log_processor=dict(by_epoch=by_epoch),
        load_from=cfg.get('load_from'),
        resume=cfg.get('resume', False),
        log_level='ERROR',
        default_scope='mmpretrain',
        cfg=cfg,
    )
