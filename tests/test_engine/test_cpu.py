# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmscfs.engine import adapt_to_cpu, cpu


def gpu_config(**settings):
    return Config(
        dict(
            sync_bn='torch',
            train_dataloader=dict(pin_memory=True),
            val_dataloader=None,
            val_cfg=dict(bank_dataloader=dict(pin_memory=True)),
            **settings,
        )
    )


def test_config_for_gpus_is_adapted():
    cfg = gpu_config()
    adapt_to_cpu(cfg)
    assert cfg.sync_bn == 'torch'  # the wrapper reverts it
    assert cfg.train_dataloader.pin_memory is False
    assert cfg.val_cfg.bank_dataloader.pin_memory is False
    assert 'model_wrapper_cfg' not in cfg


def test_nothing_changes_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(cpu, 'get_device', lambda: 'cuda')
    cfg = gpu_config(launcher='slurm')
    before = cfg.to_dict()
    adapt_to_cpu(cfg)
    assert cfg.to_dict() == before


def test_what_needs_gpus_is_refused():
    cfg = gpu_config(optim_wrapper=dict(type='AmpOptimWrapper'))
    with pytest.raises(
        ValueError, match=r'--precision\) needs an accelerator'
    ):
        adapt_to_cpu(cfg)


@pytest.fixture
def group(tmp_path):
    """A group of one process, as tools/dist_train.sh makes it."""
    store = dist.FileStore(str(tmp_path / 'store'), 1)
    dist.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_several_processes_have_plain_batch_norm_on_the_cpu(
    group, monkeypatch
):
    """Also where a neck of mmpretrain is synchronized by default."""
    said = []
    monkeypatch.setattr(cpu, 'print_log', lambda text, **_: said.append(text))
    cfg = gpu_config(launcher='pytorch')
    adapt_to_cpu(cfg)
    neck = MODELS.build(
        dict(
            type='NonLinearNeck', in_channels=6, hid_channels=4, out_channels=2
        )
    )
    assert isinstance(neck.bn0, nn.SyncBatchNorm)
    weight, names = neck.bn0.weight, [*neck.state_dict()]
    wrapped = MODEL_WRAPPERS.build(dict(cfg.model_wrapper_cfg, module=neck))
    (text,) = said
    assert text.startswith('Batch norm is not synchronized: that needs GPUs')
    norm = wrapped.module.bn0
    assert isinstance(norm, _BatchNorm)
    assert not isinstance(norm, nn.SyncBatchNorm)
    assert norm.weight is weight
    assert [*wrapped.module.state_dict()] == names
    (output,) = wrapped((torch.randn(3, 6, 5, 5),))
    output.sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize(
    ('own', 'found'),
    [
        ('SynchronizedOnCPU', 'SynchronizedOnCPU'),
        # As a run on GPUs saves its config.
        ('GPUDistributedDataParallel', 'CPUDistributedDataParallel'),
    ],
)
def test_the_model_wrapper_of_the_config_is_kept(group, own, found):
    cfg = gpu_config(launcher='pytorch', model_wrapper_cfg=dict(type=own))
    adapt_to_cpu(cfg)
    assert cfg.model_wrapper_cfg == dict(
        type=found,
        broadcast_buffers=False,
        find_unused_parameters=False,
        gradient_as_bucket_view=True,
        device_ids=None,
    )
