# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch

from mmscfs.evaluation import precision as precision_file
from mmscfs.evaluation import resolve_precision


def test_auto_is_the_fastest_that_a_cpu_has(monkeypatch):
    device = torch.device('cpu')
    for able, expected in (
        (True, 'bf16'),
        (False, 'fp32'),
    ):
        monkeypatch.setattr(precision_file, 'has_fast_bf16', lambda a=able: a)
        for precision in ('auto', 'bf16'):
            found = resolve_precision(precision, device)
            assert found == expected
