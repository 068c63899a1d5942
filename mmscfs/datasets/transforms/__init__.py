# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .loading import LoadImage
from .multi_crop import MultiCrop

__all__ = ['LoadImage', 'MultiCrop']
