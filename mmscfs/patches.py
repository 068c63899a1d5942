# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The places where the stack has no public way, all of them.

``tests/test_patches.py`` fails when one is no longer needed. mmengine 0.10.7
is 0.10.12 of the OneDL forks, and mmpretrain 1.2.0 is 1.3.6.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import CheckpointLoader
from mmpretrain import registry
from mmpretrain.apis import ModelHub

from .checkpoint.loading import drop_code, read_checkpoint
from .hub import PREFIX, find_config, recipes

# Which of our packages registers in which of mmpretrain's registries.
LOCATIONS = {
    'mmscfs.models': ('MODELS',),
    'mmscfs.datasets': ('DATASETS', 'DATA_SAMPLERS', 'TRANSFORMS'),
    'mmscfs.engine': (
        'HOOKS',
        'LOOPS',
        'OPTIM_WRAPPERS',
        'OPTIM_WRAPPER_CONSTRUCTORS',
        'VISBACKENDS',
    ),
}
_mmengines_path = Config._get_cfg_path
_mmengines_load = CheckpointLoader.load_checkpoint


def install() -> None:
    """Install every patch; a second time changes nothing."""
    # mmengine 0.10.7 has a fixed list of packages.
    Config._get_cfg_path = staticmethod(find_base)
    # mmengine 0.10.7 executes text of a checkpoint, and prints a line for
    # each, past all loggers.
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.load_checkpoint = staticmethod(load_and_log)
    # mmengine 0.10.7 fixes a registry's locations when it is made.
    for module, names in LOCATIONS.items():
        for name in names:
            add_location(getattr(registry, name), module)
    # mmpretrain 1.2.0 takes images only from the files of its list, where a
    # pre-training has none: register_model_index would leave them out.
    ModelHub._models_dict.update(recipes())


def find_base(name: str, filename: str) -> tuple[str, str | None]:
    """Find what ``_base_`` names: mmengine knows only OpenMMLab's packages.

    Ours have no scope. Like a file of the user, they set ``default_scope``,
    and mmengine has no registry of the name mmscfs. For a package's file
    mmengine reads the package's hundred metafiles first, for a second.
    """
    if name.startswith(PREFIX):
        return find_config(name), None
    package, _, inside = name.partition('::')
    spec = find_spec(package) if inside else None
    if spec and spec.origin:
        path = Path(spec.origin).parent / '.mim' / 'configs' / inside
        if path.is_file():
            return str(path), package
    return _mmengines_path(name, filename)


def load_and_log(
    filename: str, map_location: Any = None, logger: Any = 'current'
) -> Mapping[str, Any]:
    """Load a checkpoint; what mmengine would print goes to its log."""
    return _mmengines_load(filename, map_location, logger or 'current')


def load_from_local(
    filename: str, map_location: Any = None
) -> Mapping[str, Any]:
    """Read a local file where mmengine would: load_from, resume, init_cfg.

    mmengine executes the text ``meta['config']``, trusts a file's sizes, and
    under torch before 2.6 runs the code in a pickle. This reads onto the CPU,
    whatever ``map_location``; models and optimizers copy it to their device.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As :func:`read_checkpoint`.
    """
    checkpoint = read_checkpoint(filename)
    drop_code(checkpoint)
    return checkpoint


def add_location(target: Registry, module: str) -> None:
    """Have a registry import a module of ours when it imports its own.

    mmpretrain's models import mmdet: ``import mmscfs`` need not wait for
    them, and registers all the same.
    """
    if module in target._locations:
        return
    target._locations.append(module)
    if target._imported:  # and asks no more
        import_module(module)
