# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every public class of mmscfs.models has an example, and it is true."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

from mmscfs import models

MODULES = [
    info.name
    for info in pkgutil.walk_packages(models.__path__, 'mmscfs.models.')
    if not info.ispkg
]


@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
    public = [
        kind
        for kind in vars(module).values()
        if inspect.isclass(kind)
        and kind.__module__ == name
        and not kind.__name__.startswith('_')
    ]
    assert [kind for kind in public if '>>>' not in kind.__doc__] == []
