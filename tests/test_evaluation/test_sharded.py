# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmscfs.evaluation import find_neighbors, find_sharded_neighbors

K = 7


def make_features():
    """Queries and a bank with ties, the same in every process."""
    generator = torch.Generator().manual_seed(3)
    bank = torch.randint(-1, 2, (45, 4), generator=generator).float()
    bank[::3] += torch.randn(15, 4, generator=generator)
    queries = torch.randn(13, 4, generator=generator)
    queries[::2] = queries[::2].round()
    return queries, bank


def search_part(rank, world, folder):
    """Search as one of several processes, and save what was found."""
    os.environ.update(MASTER_ADDR='127.0.0.1')
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous',
        rank=rank,
        world_size=world,
    )
    queries, bank = make_features()
    # The last process of four has too few features for k neighbours.
    own = torch.arange(rank, len(bank), world)
    if world == 4:
        own = torch.arange(45).tensor_split([20, 21, 42])[rank]
    found = find_sharded_neighbors(
        queries[rank::world], bank[own], own, K, query_block=6, bank_block=10
    )
    with pytest.raises(ValueError, match='at most the 45 features'):
        find_sharded_neighbors(queries[rank::world], bank[own], own, 46)
    torch.save(found._asdict(), f'{folder}/{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.parametrize('world', [2, 4])
def test_several_processes_find_what_one_finds(world, tmp_path):
    # Forked, they need not import everything again.
    mp.start_processes(
        search_part, (world, str(tmp_path)), world, start_method='fork'
    )
    expected = find_neighbors(*make_features(), K)
    for rank in range(world):
        found = torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        assert torch.equal(found['index'], expected.index[rank::world])
        torch.testing.assert_close(
            found['similarity'],
            expected.similarity[rank::world],
            rtol=0,
            atol=1e-15,
        )


def test_one_process_returns_places_in_the_whole_bank():
    queries, bank = make_features()
    places = 10 * torch.arange(45)
    found = find_sharded_neighbors(queries, bank, places, K)
    assert torch.equal(
        found.index, 10 * find_neighbors(queries, bank, K).index
    )
