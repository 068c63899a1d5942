# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
from torch.nn.functional import normalize

from mmscfs.evaluation.bank import measure_bank, unit
from mmscfs.evaluation.coarse import find_largest


def test_limit_of_the_coarse_pass_holds():
    """No feature outside the candidates exceeds the limit."""
    queries, bank = torch.randn(40, 64), torch.randn(500, 64)
    queries = unit(queries)
    cosines = queries @ unit(bank).T
    for precision, error in (('fp32', 1e-5), ('fp64', 1e-5)):
        index, limit = find_largest(
            queries,
            measure_bank(bank, precision, 70, queries.device),
            50,
            precision,
        )
        outside = cosines.scatter(1, index, -2).amax(-1)
        assert (outside <= limit).all()
        # And it is of use: near the last of the candidates.
        last = cosines.gather(1, index).amin(-1)
        assert (limit - last).max() < 2 * error


@pytest.mark.parametrize('setting', ['highest', 'high', 'medium'])
def test_a_cpu_multiplies_float32_as_it_is(setting):
    queries, bank = torch.randn(40, 512), torch.randn(600, 512)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        index, _ = find_largest(
            unit(queries),
            measure_bank(bank, 'fp32', 300, queries.device),
            20,
            'fp32',
        )
        # And leaves the setting as it was.
        assert torch.get_float32_matmul_precision() == setting
    finally:
        torch.set_float32_matmul_precision(before)
    cosines = normalize(queries.double()) @ normalize(bank.double()).T
    expected = cosines.topk(20).indices
    # bfloat16 mistakes one of these 800 with next to certainty.
    assert torch.equal(index, expected)
