# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Arguments read from source; those of the sample are worked out by hand."""

import pytest

from mmscfs.settings.signatures import ANY, arguments_of_type

BASE = """
class Unregistered:
    def __init__(self, z): pass
class Base(nn.Module):
    def __init__(self, width, *, depth=3, **kwargs):
        self.bias = kwargs.pop('bias', True)
        super().__init__(**kwargs)
"""
TYPES = """
from dataclasses import dataclass
from .base import Base as Renamed, Unregistered
from somewhere import Unknown

raise ImportError('read, not imported')

@dataclass(frozen=True)
class Criteria:
    begin: int = 3
    window: int = 4

class Mixin:
    def __init__(self, *args, **kwargs):
        super().__init__('lr', *args, **kwargs)

@MODELS.register_module()
class OwnPlain(Renamed):
    def __init__(self, plain): pass

@MODELS.register_module()
class OwnInherited(Renamed): pass

@MODELS.register_module()
class OwnMixed(Mixin, Unregistered): pass

@MODELS.register_module()
class OwnHandedOn:
    def __init__(self, stop=False, **criteria):
        self.criteria = Criteria(**criteria)

@MODELS.register_module(name='OwnName')
class OwnKept:
    def __init__(self, stop=False, **kwargs):
        self.kwargs = kwargs

@MODELS.register_module(['OwnFirst', 'OwnSecond'])
def build(first, second=2): pass

@MODELS.register_module()
class OwnUnknown(Unknown):
    def __init__(self, known, **kwargs):
        super().__init__(**kwargs)

@MODELS.register_module()
class OwnSkipping(OwnPlain, Unregistered):
    def __init__(self, own, **kwargs):
        super(OwnPlain, self).__init__(**kwargs)
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that registers types, and cannot be imported."""
    folder = tmp_path / 'own_types_of_this_test'
    folder.mkdir()
    (folder / '__init__.py').write_text('')
    (folder / 'base.py').write_text(BASE)
    (folder / 'types.py').write_text(TYPES)
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


@pytest.mark.parametrize(
    ('kind', 'names', 'is_open'),
    [
        ('OwnPlain', 'plain', False),
        ('OwnInherited', 'width depth bias', True),  # nn.Module's are unknown
        ('OwnMixed', 'z', False),
        ('OwnHandedOn', 'stop begin window', False),
        ('OwnName', 'stop', True),
        ('OwnSecond', 'first second', False),
        ('OwnUnknown', 'known', True),
        ('OwnSkipping', 'own', True),
        ('Unregistered', '', True),
    ],
)
def test_arguments_of_types(kind, names, is_open, package):
    found = arguments_of_type(kind, 'mmengine', (package,))
    assert found == (frozenset(names.split()), is_open)


def test_types_are_looked_for_in_their_scope():
    """mmdet's ResNet has deformable layers, mmpretrain's a drop path."""
    ours = arguments_of_type('ResNet', 'mmpretrain').names
    theirs = arguments_of_type('mmdet.ResNet', 'mmpretrain').names
    assert theirs == arguments_of_type('ResNet', 'mmdet').names
    assert 'drop_path_rate' in ours - theirs
    assert 'dcn' in theirs - ours
    whole = 'mmdet.models.backbones.resnet.ResNet'
    assert arguments_of_type(whole, 'mmpretrain').names == theirs
    assert arguments_of_type('NoSuchType', 'mmdet') == ANY
    assert arguments_of_type('mmdet.NoSuchType', 'mmdet') == ANY


def test_arguments_of_a_class_itself():
    class Kind:
        def __init__(self, one, two=2):
            pass

    assert arguments_of_type(Kind, 'mmdet') == ({'one', 'two'}, False)
    assert arguments_of_type(dict, 'mmdet').is_open
