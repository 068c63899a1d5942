# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from cpu_sync_batch_norm import CPUSyncBatchNorm, synchronize_on_cpu
from torch import nn
from torch.testing import assert_close

# Images of each process: as many, or not, or none.
SHARES = {2: (3, 3), 3: (1, 4, 2), 4: (2, 0, 3, 1)}
CASES = {
    'maps': dict(),
    'channels_last': dict(channels_last=True),
    'vectors': dict(shape=(5,)),
    'without_affine': dict(affine=False),
    'mean_of_batches': dict(momentum=None),
    'without_statistics': dict(track_running_stats=False),
}


def make_case(shape=(5, 4, 3), channels_last=False, world=2, **settings):
    """Batches far from zero, gradients of the outputs, and plain norms."""
    generator = torch.Generator().manual_seed(1)
    size = (2, sum(SHARES[world]), *shape)
    x, grad = torch.randn(2, *size, generator=generator).double()
    x = 30 + x * torch.arange(1, 6).view(5, *[1] * (len(shape) - 1))
    if channels_last:
        x, grad = (t.permute(0, 1, 3, 4, 2).contiguous() for t in (x, grad))
        x, grad = (t.permute(0, 1, 4, 2, 3) for t in (x, grad))
    kind = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
    norm = kind(5, **settings).double()
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
    return norm, x, grad


def run(norm, batches, gradients):
    """Return outputs, gradients and statistics after some batches."""
    results = {}
    for i, (x, grad) in enumerate(zip(batches, gradients, strict=True)):
        x = x.detach().requires_grad_()
        output = norm(x)
        output.backward(grad)
        results |= {f'output{i}': output.detach(), f'input{i}': x.grad}
    for name, parameter in norm.named_parameters():
        results[name] = parameter.grad
    return results | dict(norm.named_buffers())


def run_part(rank, world, folder):
    dist.init_process_group(
        'gloo', init_method=f'file://{folder}/group', rank=rank,
        world_size=world,
    )  # fmt: skip
    results = {}
    for name, case in CASES.items():
        norm, x, grad = make_case(world=world, **case)
        norm = synchronize_on_cpu(
            nn.SyncBatchNorm.convert_sync_batchnorm(norm)
        )
        assert type(norm) is CPUSyncBatchNorm
        share = [t.split(SHARES[world], dim=1)[rank] for t in (x, grad)]
        results[name] = run(norm, *share)
        norm.eval()
        results[name]['eval'] = norm(share[0][0]).detach()
    torch.save(results, f'{folder}/{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.parametrize('world', [2, 3, 4])
def test_is_plain_batch_norm_over_all_processes(world, tmp_path):
    mp.start_processes(
        run_part, (world, str(tmp_path)), world, start_method='fork'
    )
    parts = [
        torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        for rank in range(world)
    ]
    for name, case in CASES.items():
        norm, x, grad = make_case(world=world, **case)
        expected = run(norm, x, grad)
        found = [part[name] for part in parts]
        assert expected.keys() < found[0].keys()
        for key, value in expected.items():
            values = [part[key] for part in found]
            if key in ('weight', 'bias'):  # DDP sums them
                value_found = sum(values)
            elif key.startswith(('output', 'input')):
                value_found = torch.cat(values)
                assert values[0].stride(1) == value.stride(1), (name, key)
            else:
                value_found = values[0]
                assert all(torch.equal(v, values[0]) for v in values), key
            assert_close(value_found, value, rtol=1e-10, atol=1e-10)
        if case.get('track_running_stats', True):
            assert expected['num_batches_tracked'] == 2
            norm.eval()
            evaluated = torch.cat([part['eval'] for part in found])
            assert_close(evaluated, norm(x[0]), rtol=1e-10, atol=1e-10)


def test_one_process_has_plain_batch_norm():
    norm, x, grad = make_case()
    expected = run(norm, x, grad)
    norm, x, grad = make_case()
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    found = run(synchronize_on_cpu(synced), x, grad)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
