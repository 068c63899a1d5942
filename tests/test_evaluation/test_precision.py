# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch

from mmscfs.evaluation import resolve_precision


def test_auto_is_the_fastest_that_a_cpu_has(monkeypatch):
    device = torch.device('cpu')
    for able, expected in (
        (dict(amx_bf16=True), 'bf16'),
        (dict(avx512_bf16=True, amx_bf16=False), 'bf16'),
        (dict(avx2=True), 'fp32'),
    ):
        monkeypatch.setattr(
            torch.cpu, 'get_capabilities', lambda able=able: able
        )
        for precision in ('auto', 'bf16'):
            found = resolve_precision(precision, device)
            assert found == expected
