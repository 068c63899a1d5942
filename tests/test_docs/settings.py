# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Whether a config has a setting, or what it configures takes one."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine import registry as mmengine_registry
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner, set_random_seed
from mmpretrain import registry as mmpretrain_registry
from torch.utils.data import DataLoader

# What configs leave for others to name: by the end of the path, its builder.
BUILDERS = {
    'dataloader': DataLoader,
    'optim_wrapper': OptimWrapper,
    'randomness': set_random_seed,
    'train_cfg': EpochBasedTrainLoop,
}
# Read by Runner.from_cfg, tools/train.py or mmscfs.engine.
TOP = {'auto_scale_lr', 'custom_hooks', 'sync_bn', 'find_unused_parameters'}


def unknown_setting(cfg: Config, path: str) -> str | None:
    """Return the part of a dotted path that nothing takes, None if all do.

    A part is right if the config has it, or if the class named by ``type``
    beside it, or one of its bases that its keyword arguments go to, has such
    an argument. What is below a new part is not looked at.
    """
    node: Any = cfg._cfg_dict  # unlike a Config, a mapping
    parts = path.split('.')
    for depth, part in enumerate(parts):
        done = '.'.join(parts[: depth + 1])
        if isinstance(node, (list, tuple)):
            if not part.isdecimal() or int(part) >= len(node):
                return done
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, Mapping) and depth:
            return None if takes(node, parts[depth - 1], part) else done
        elif part in TOP or argument_of(Runner, part):
            return None
        else:  # a value has no parts
            return done
    return None


def takes(node: Mapping, name: str, part: str) -> bool:
    """Tell whether what a config's part builds has an argument."""
    kind = node.get('type')
    if isinstance(kind, str):
        kind = find_class(kind)
    if kind is None:
        kind = next((BUILDERS[end] for end in BUILDERS if end in name), None)
    return kind is not None and argument_of(kind, part)


def find_class(name: str) -> Any:
    """Find what a registry has under a name, None if none has it."""
    modules = [mmpretrain_registry]
    if name.startswith('mmdet.'):
        from mmdet import registry as mmdet_registry  # slow

        modules.insert(0, mmdet_registry)
    for module in (*modules, mmengine_registry):
        for registry in vars(module).values():
            if isinstance(registry, mmengine_registry.Registry):
                found = registry.module_dict.get(name.split('.')[-1])
                if found is not None:
                    return found
    return None


def argument_of(kind: Any, name: str) -> bool:
    """Tell whether a class or function has a named argument."""
    if not inspect.isclass(kind):
        return name in inspect.signature(kind).parameters
    for base in kind.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters
        if name in parameters:
            return True
        kinds = {p.kind for p in parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return False
    return False
