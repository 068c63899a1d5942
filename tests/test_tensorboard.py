# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Curves in TensorBoard, by the two lines that the guide names."""

import json
from pathlib import Path

import pytest
from mmengine.runner import Runner

from mmscfs.engine import prepare_config

event_accumulator = pytest.importorskip(
    'tensorboard.backend.event_processing.event_accumulator'
)


def test_the_losses_are_in_the_events(tiny_run):
    tiny_run.visualizer.vis_backends = [
        dict(type='LocalVisBackend'),
        dict(type='TensorboardVisBackend'),
    ]
    prepare_config(tiny_run)
    runner = Runner.from_cfg(tiny_run)
    runner.train()
    folder = runner.visualizer.get_backend('TensorboardVisBackend')._save_dir
    runner.visualizer.close()
    events = event_accumulator.EventAccumulator(folder).Reload()
    (scalars,) = (
        path for path in Path(runner._log_dir).glob('vis_data/scalars.json')
    )
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    for name in ('loss', 'lr', 'feature_std'):
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx(
            {line['step']: line[name] for line in lines}, rel=1e-6
        )
        assert len(found) == 8
