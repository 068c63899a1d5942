# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
from mmengine.config import Config

from mmscfs.engine import adapt_to_cpu, cpu


def gpu_config(**settings):
    return Config(
        dict(
            sync_bn='torch',
            train_dataloader=dict(pin_memory=True),
            val_dataloader=None,
            **settings,
        )
    )


def test_config_for_gpus_is_adapted():
    cfg = gpu_config()
    adapt_to_cpu(cfg)
    assert cfg.sync_bn is None
    assert cfg.train_dataloader.pin_memory is False
    assert 'model_wrapper_cfg' not in cfg


def test_nothing_changes_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(cpu, 'get_device', lambda: 'cuda')
    cfg = gpu_config(launcher='slurm')
    before = cfg.to_dict()
    adapt_to_cpu(cfg)
    assert cfg.to_dict() == before


def test_launcher_without_gpus_is_refused():
    with pytest.raises(ValueError, match='--launcher=mpi needs GPUs'):
        adapt_to_cpu(gpu_config(launcher='mpi'))


def test_amp_of_mmengine_is_refused_on_cpu():
    with pytest.raises(ValueError, match=r'--amp\) needs an accelerator'):
        adapt_to_cpu(gpu_config(optim_wrapper=dict(type='AmpOptimWrapper')))
