# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The wrappers of several processes. Formulas stand in for GPUs' kernels."""

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from mmpretrain.registry import MODELS
from torch import nn
from torch.nn.modules import _functions as torchs
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close
from torch.testing._internal.distributed.fake_pg import FakeStore
from toy_runs import in_processes

from mmscfs.engine import distributed
from mmscfs.engine.distributed import SyncBatchNorm, choose_wrapper

IMAGES = (3, 2)  # of the two processes


def rows(x):
    """Inputs (B, C, H, W) as (B H W, C)."""
    return x.movedim(1, -1).flatten(0, -2)


def like(values, x):
    """Values of rows, or of each channel, as inputs are."""
    return values.expand(x.movedim(1, -1).shape).movedim(-1, 1)


def stats(x, eps):
    mean = rows(x).mean(0)
    variance = (rows(x) - mean).square().mean(0)
    return mean, (variance + eps).rsqrt()


def gather_stats(x, means, invstds, old_mean, old_var, momentum, eps, counts):
    counts = counts[:, None]
    number = counts.sum()
    mean = (means * counts).sum(0) / number
    variances = invstds**-2 - eps + (means - mean).square()
    variance = (variances * counts).sum(0) / number
    old_mean.lerp_(mean, momentum)
    old_var.lerp_(variance * number / (number - 1), momentum)
    return mean, (variance + eps).rsqrt()


def normalize(x, weight, bias, mean, invstd, eps):
    normalized = (x - like(mean, x)) * like(invstd, x)
    return normalized * like(weight, x) + like(bias, x)


def backward_reduce(grad, x, mean, invstd, *_):
    of_bias = rows(grad).sum(0)
    moved = (rows(grad) * (rows(x) - mean)).sum(0)
    return of_bias, moved, moved * invstd, of_bias.clone()


def backward_elements(grad, x, mean, invstd, weight, of_bias, moved, counts):
    number = counts.sum()
    slope = invstd.square() * moved / number
    own = grad - like(of_bias / number, x)
    own = own - (x - like(mean, x)) * like(slope, x)
    return own * like(invstd * weight, x)


KERNELS = dict(
    batch_norm_stats=stats,
    batch_norm_gather_stats_with_counts=gather_stats,
    batch_norm_elemt=normalize,
    batch_norm_backward_reduce=backward_reduce,
    batch_norm_backward_elemt=backward_elements,
)


class Torchs(nn.SyncBatchNorm):
    """torch's, whose module refuses inputs on a CPU."""

    def forward(self, x):
        self.num_batches_tracked += 1
        return torchs.SyncBatchNorm.apply(
            *(x, self.weight, self.bias, self.running_mean, self.running_var),
            *(self.eps, self.momentum, dist.group.WORLD, len(IMAGES)),
        )


def inputs():
    """Images of both processes, and the gradients of their outputs."""
    torch.manual_seed(0)
    return torch.randn(2, 5, 4, 3, 3, dtype=torch.float64) + 2


def train(norm, x, grad):
    """Normalize twice; return all that comes of it."""
    norm = norm.double().train()
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 5))
        norm.bias.copy_(torch.arange(4.0))
    x = x.requires_grad_()
    for _ in range(2):
        y = norm(x)
        y.backward(grad)
    with torch.no_grad():  # a teacher
        teacher = norm.requires_grad_(False)(x)
    found = dict(y=y.detach(), teacher=teacher, x=x.grad, **norm.state_dict())
    gradients = {f'grad {k}': p.grad for k, p in norm.named_parameters()}
    return found | gradients


def train_part():
    """Train on the images of this process."""
    library = torch.library.Library('aten', 'IMPL', 'CPU')
    for name, kernel in KERNELS.items():
        library.impl(name, kernel)
    x, grad = (part.split(IMAGES)[dist.get_rank()] for part in inputs())
    return [
        train(kind(4, momentum=0.3), x.clone(), grad.clone())
        for kind in (SyncBatchNorm, Torchs)
    ]


def test_synchronized_batch_norm_is_torchs_and_that_of_all_images(tmp_path):
    results = in_processes(train_part, 2, tmp_path)
    for ours, theirs in results:
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), name
    expected = train(nn.BatchNorm2d(4, momentum=0.3), *inputs())
    for name, value in expected.items():
        found = [ours[name] for ours, _ in results]
        if name in ('y', 'teacher', 'x'):
            joined = torch.cat(found)
        elif name.startswith('grad'):
            joined = sum(found)
        else:
            joined = found[0]
        assert_close(joined, value, rtol=1e-12, atol=1e-12, msg=name)


@pytest.fixture
def first_of_eight(monkeypatch):
    """Be one of eight processes, of which the others say nothing."""
    for name, kernel in KERNELS.items():
        monkeypatch.setattr(torch, name, kernel)
    dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=8)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('is_trained', [True, False])
def test_synchronized_batch_norm_is_compiled_as_one_graph(
    first_of_eight, is_trained
):
    """Not through gloo, but as through NCCL."""
    norm = SyncBatchNorm(4).train().requires_grad_(is_trained)
    torch._dynamo.reset()
    found = torch._dynamo.explain(norm)(torch.randn(2, 4, 3, 3))
    assert found.graph_count == 1, found.break_reasons
    assert found.graph_break_count == 0


@pytest.fixture
def wrap(monkeypatch):
    """Build the wrapper, which torch refuses on a CPU, without torch."""
    monkeypatch.setattr(
        MMDistributedDataParallel,
        '__init__',
        lambda self, module, **_: nn.Module.__init__(self),
    )
    return lambda module: MODEL_WRAPPERS.build(
        dict(type='GPUDistributedDataParallel', module=module)
    )


def test_norms_of_views_alone_become_ours(dino_cfg, wrap):
    dino_cfg['backbone'].update(norm_cfg=dict(type='SyncBN'))
    model = MODELS.build(dino_cfg)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wrap(model)
    kinds = {type(m) for m in model.modules() if 'Batch' in type(m).__name__}
    assert kinds == {SyncBatchNorm}
    # One process, or none at all, needs no synchronization.
    for network in (model.backbone, model.teacher.backbone):
        network.train()
        network(torch.randn(2, 3, 32, 32))
    for name, value in before.items():
        assert model.state_dict()[name].shape == value.shape
    plain = revert_sync_batchnorm(model)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in plain.modules())
    assert [*plain.state_dict()] == [*before]
    # What a detector finds may be empty.
    detector = nn.Sequential(nn.SyncBatchNorm(3))
    wrap(detector)
    assert type(detector[0]) is nn.SyncBatchNorm


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
    monkeypatch.setattr(
        distributed, 'print_log', lambda text, **_: said.append(text)
    )
    cfg = Config(dict(launcher='pytorch'))
    choose_wrapper(cfg)
    neck = MODELS.build(
        dict(
            type='NonLinearNeck', in_channels=6, hid_channels=4, out_channels=2
        )
    )
    assert isinstance(neck.bn0, nn.SyncBatchNorm)
    weight, names = neck.bn0.weight, [*neck.state_dict()]
    # mmengine's runner names a GPU.
    wrapped = MODEL_WRAPPERS.build(
        dict(cfg.model_wrapper_cfg, module=neck, device_ids=[0])
    )
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


OURS = dict(
    type='GPUDistributedDataParallel',
    broadcast_buffers=False,
    find_unused_parameters=False,
    gradient_as_bucket_view=True,
)
STATIC = dict(static_graph=True)
FULLY_SHARDED = dict(type='MMFullyShardedDataParallel')


@pytest.mark.parametrize(
    ('device', 'launcher', 'own', 'expected'),
    [
        ('cuda', 'none', None, None),
        ('npu', 'slurm', None, None),
        ('cuda', 'slurm', None, OURS),
        ('cuda', 'pytorch', STATIC, OURS | STATIC),
        ('cuda', 'slurm', FULLY_SHARDED, FULLY_SHARDED),
        # As a run on CPUs saved its config, in earlier versions.
        (
            'cuda',
            'slurm',
            dict(type='CPUDistributedDataParallel', device_ids=None),
            OURS,
        ),
        ('cpu', 'slurm', OURS, OURS | dict(type='CPUDistributedDataParallel')),
    ],
)
def test_several_processes_have_our_wrapper(
    monkeypatch, device, launcher, own, expected
):
    monkeypatch.setattr(distributed, 'get_device', lambda: device)
    cfg = Config(dict(launcher=launcher, model_wrapper_cfg=own))
    choose_wrapper(cfg)
    assert cfg.model_wrapper_cfg == expected
