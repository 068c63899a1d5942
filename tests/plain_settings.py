# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Settings of a config as plain values, to be compared."""

from mmengine.config import Config


def plain(value):
    """Return settings without the scope that mmengine notes in them."""
    if isinstance(value, Config):
        value = value.to_dict()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
