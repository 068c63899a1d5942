# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .keyed_sampler import KeyedSampler, SampleKey

__all__ = ['KeyedSampler', 'SampleKey']
