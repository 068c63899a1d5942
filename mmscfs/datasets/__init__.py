# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .image_files import ImageFiles
from .samplers import KeyedSampler
from .transforms import LoadImage, MultiCrop

__all__ = ['ImageFiles', 'KeyedSampler', 'LoadImage', 'MultiCrop']
