# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.registry import WEIGHT_INITIALIZERS

from mmscfs.registry import INITIALIZERS


def test_mmengine_finds_the_scope_without_a_warning(monkeypatch):
    said = []
    monkeypatch.setattr(
        'mmengine.logging.print_log', lambda text, **_: said.append(text)
    )
    with WEIGHT_INITIALIZERS.switch_scope_and_registry('mmscfs') as found:
        assert found is INITIALIZERS
    assert said == []
