# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Arguments of types; those of the samples are worked out by hand."""

from dataclasses import dataclass

import pytest
from torch import nn

from mmscfs.settings.signatures import ANY, arguments_of, arguments_of_type


class Other:
    def __init__(self, z):
        pass


class Base:
    def __init__(self, width, *, depth=3, **kwargs):
        self.bias = kwargs.pop('bias', True)
        super().__init__(**kwargs)


class Plain(Base):
    def __init__(self, plain):
        pass


class Inherited(Base):
    pass


class Network(Base, nn.Module):
    pass


class Mixin:
    def __init__(self, *args, **kwargs):
        super().__init__('lr', *args, **kwargs)


class Mixed(Mixin, Other):
    pass


class Kept(Base):
    def __init__(self, stop=False, **kwargs):
        self.kwargs = kwargs


class Skipping(Plain, Other):
    def __init__(self, own, **kwargs):
        super(Plain, self).__init__(**kwargs)


@dataclass
class Criteria:
    begin: int = 3
    window: int = 4


class HandedOn(Base):
    def __init__(self, stop=False, **criteria):
        self.criteria = Criteria(**criteria)


def build(first, second=2):
    pass


@pytest.mark.parametrize(
    ('kind', 'names', 'is_open'),
    [
        (Plain, 'plain', False),
        (Inherited, 'width depth bias', False),
        (Network, 'width depth bias', True),  # nn.Module takes any
        (Mixed, 'z', False),
        (Kept, 'stop', True),
        (Skipping, 'own', True),
        (HandedOn, 'stop begin window', False),
        (build, 'first second', False),
        (dict, '', True),
    ],
)
def test_arguments_of_types(kind, names, is_open):
    assert arguments_of(kind) == (frozenset(names.split()), is_open)


def test_types_are_looked_for_in_their_scope():
    """mmdet's ResNet has deformable layers, mmpretrain's a drop path."""
    ours = arguments_of_type('ResNet', 'mmpretrain').names
    theirs = arguments_of_type('mmdet.ResNet', 'mmpretrain').names
    assert theirs == arguments_of_type('ResNet', 'mmdet').names
    assert 'drop_path_rate' in ours - theirs
    assert 'dcn' in theirs - ours
    whole = 'mmdet.models.backbones.resnet.ResNet'
    assert arguments_of_type(whole, 'mmpretrain').names == theirs
    for kind in ('NoSuchType', 'mmdet.NoSuchType', 'no_package.Type'):
        assert arguments_of_type(kind, 'mmdet') == ANY
