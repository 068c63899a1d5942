# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from .dino import DINO
from .moco_co2 import MoCoCO2
from .scfs import SCFS

__all__ = ['DINO', 'SCFS', 'MoCoCO2']
