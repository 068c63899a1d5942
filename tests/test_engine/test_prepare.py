# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
from mmengine.config import Config

from mmscfs.engine import prepare_config


def schedules(warm_up, cosine):
    return Config(
        dict(
            param_scheduler=[
                dict(type='LinearLR', **warm_up),
                dict(type='CosineAnnealingLR', **cosine),
            ]
        )
    )


def test_a_schedule_that_ends_before_it_begins_is_named():
    cfg = schedules(dict(begin=0, end=10), dict(begin=10, end=2))
    with pytest.raises(ValueError, match=r'param_scheduler\.1\.end=2 is not'):
        prepare_config(cfg)
    with pytest.raises(ValueError, match=r'param_scheduler\.0\.end=0 is not'):
        prepare_config(schedules(dict(end=0), dict(begin=0, end=2)))


def test_schedules_that_run_pass():
    prepare_config(schedules(dict(begin=0, end=1), dict(begin=1)))
    prepare_config(Config(dict(param_scheduler=None)))
    prepare_config(Config(dict(param_scheduler=dict(type='ConstantLR'))))
