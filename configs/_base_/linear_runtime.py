# For linear probing: a check that the backbone stays as it was.
_base_ = ['./classification_runtime.py']

default_hooks = dict(frozen_backbone=dict(type='FrozenBackboneHook'))
