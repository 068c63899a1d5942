# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Read a config, and check its settings before anything else is imported."""

import copy
import os.path as osp
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from .lengths import adapt_lengths, check_lengths
from .names import unread_arguments
from .variables import ConfigFile, unread_options, unread_variables

__all__ = ['expand_home', 'read_config']


def read_config(
    path: str,
    options: Mapping[str, Any] | None = None,
    *,
    for_training: bool = False,
) -> tuple[Config, list[str]]:
    """Read a config with options, and check that something reads each setting.

    Also puts the home directory for ``~`` at the beginning of any text, and
    fits the schedules to a length of the run, ``train_cfg.max_epochs`` or
    ``max_iters``, that was changed alone. ``custom_imports`` are imported
    before the checks, which look at the types that they register.

    Args:
        path (str): A config file.
        options (Mapping[str, Any], optional): By dotted path, as
            ``--cfg-options`` gives them.
        for_training (bool): Also check that the run reaches all of its
            schedules. Defaults to False.

    Returns:
        tuple[Config, list[str]]: The config with the options, and a line for
        the log about each schedule that was changed.

    Raises:
        ValueError: Nothing reads a setting, or it does not fit the config;
            a module cannot be imported, or the run is too short for its
            schedules. Names the settings.

    Example:
        >>> cfg, _ = read_config(
        ...     'configs/scfs_r50.py', {'train_cfg.max_epochs': 100}
        ... )
        >>> cfg.param_scheduler[1].end
        100
    """
    file = ConfigFile(str(path))
    options = expand_home(options or {})
    problems = [
        *unread_variables(file),
        *unread_options(options, file.config),
    ]
    cfg = copy.deepcopy(file.config)
    if not problems:
        try:
            cfg.merge_from_dict(options)
        except (KeyError, TypeError) as error:
            raise ValueError(f'{path} with {options}: {error}') from error
        import_modules(cfg)
        problems = [*unread_arguments(cfg)]
    if problems:
        raise ValueError(' | '.join(dict.fromkeys(problems)))
    for key in cfg:
        cfg[key] = expand_home(cfg[key])
    changes = adapt_lengths(cfg, file, options)
    if for_training:
        check_lengths(cfg)
    return cfg, changes


def import_modules(cfg: Config) -> None:
    """Import the modules of a config, as a run does.

    Raises:
        ValueError: There is none of a name.
    """
    if cfg.get('custom_imports'):
        try:
            import_modules_from_strings(**cfg.custom_imports)
        except ImportError as error:
            raise ValueError(
                f'custom_imports={cfg.custom_imports.to_dict()}: {error}; put '
                'the folder of your module into PYTHONPATH'
            ) from error


def expand_home(part: Any) -> Any:
    """Copy a setting, or a tree of them, with the home directory for ``~``.

    Example:
        >>> expand_home(dict(data_root='~/images'))
        {'data_root': '/home/me/images'}
    """
    if isinstance(part, str):
        return osp.expanduser(part) if part.split('/')[0] == '~' else part
    if isinstance(part, Mapping):
        expanded = {key: expand_home(value) for key, value in part.items()}
        return type(part)(expanded)  # type: ignore[call-arg]
    if type(part) in (list, tuple):
        return type(part)(expand_home(item) for item in part)
    return part
