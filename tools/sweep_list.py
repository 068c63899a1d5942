# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The lists of variants that tools/sweep.py runs."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from command_line import read_settings
from launch import TOOLS
from mmengine.config import Config

NAME = r'[\w.+-]+'  # of a folder, without a space or a slash


class Variant(NamedTuple):
    """A pre-training of a list, and what it is evaluated by.

    Attributes:
        name (str): Names its folder.
        config (str): Its config.
        defaults (tuple[str, ...]): What it changes unless the command's
            --cfg-options say otherwise, KEY=VALUE each.
        cfg_options (tuple[str, ...]): What it is about, whatever they say.
        evaluations (tuple[str, ...]): Configs that write a result file.
        detection (tuple[str, ...]): Configs of detectors.
    """

    name: str
    config: str
    defaults: tuple[str, ...]
    cfg_options: tuple[str, ...]
    evaluations: tuple[str, ...]
    detection: tuple[str, ...]


class SweepList(NamedTuple):
    """The path of a list, and its variants."""

    path: str
    variants: tuple[Variant, ...]


def read_list(path: str) -> SweepList:
    """Read a list: a Python config with ``variants``.

    Each is a dict of ``name``, ``config`` and, if needed, dicts of settings
    by dotted key: ``cfg_options``, and ``defaults`` that the command may
    change. ``evaluations``, ``detection`` (configs) stand beside
    ``variants``, or in a variant that has its own. Configs that the current
    folder lacks are those of this repository.

    Raises:
        ValueError: Something is missing, unknown, or there twice.
        OSError: The list cannot be read.
    """
    content = load_config(path).to_dict()
    given = content.get('variants')
    if not isinstance(given, list) or not given:
        raise ValueError(
            f'{path}: variants={given!r} must be a list, e.g. '
            "[dict(name='scfs', config='configs/scfs_r50.py')]"
        )
    shared = {
        name: content[name]
        for name in ('evaluations', 'detection')
        if name in content
    }
    variants: dict[str, Variant] = {}
    for settings in given:
        try:
            variant = make_variant(shared | dict(settings))
        except (TypeError, ValueError) as error:
            raise ValueError(f'{path}: variant {settings}: {error}') from error
        if variant.name in variants:
            raise ValueError(f'{path}: two variants have name={variant.name}')
        variants[variant.name] = variant
    return SweepList(path, tuple(variants.values()))


def make_variant(settings: Mapping[str, Any]) -> Variant:
    """Return a variant of a list.

    Raises:
        ValueError: A setting is missing, unknown, or no config is there.
    """
    for name in settings:
        if name not in Variant._fields:
            raise ValueError(
                f'{name} is unknown: use {", ".join(Variant._fields)}'
            )
    name = settings.get('name')
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ValueError(f'name={name!r} must be a word that names a folder')
    if '_seed-' in name:
        raise ValueError(
            f'name={name!r} must not have "_seed-", which names seeds'
        )
    evaluations, detection = (
        tuple(find_config(config) for config in settings.get(key, ()))
        for key in ('evaluations', 'detection')
    )
    stems = [Path(config).stem for config in (*evaluations, *detection)]
    if len(set(stems)) < len(stems):
        raise ValueError(f'two evaluations have the same name: {stems}')
    defaults, options = (
        to_words(settings.get(key, {})) for key in ('defaults', 'cfg_options')
    )
    config = find_config(settings.get('config'))
    if not merged_config(config, (*defaults, *options)).get('train_cfg'):
        raise ValueError(f'{config} has no train_cfg: it does not train')
    return Variant(name, config, defaults, options, evaluations, detection)


def find_config(name: Any) -> str:
    """Return the path of a config.

    Raises:
        ValueError: There is none.
    """
    for path in (Path(str(name)), TOOLS.parent / str(name)):
        if path.is_file():
            return str(path)
    raise ValueError(
        f'no config {name!r}: give a path from here or from {TOOLS.parent}'
    )


def to_words(options: Mapping[str, Any], prefix: str = '') -> tuple[str, ...]:
    """Return settings as --cfg-options takes them, KEY=VALUE each.

    Raises:
        ValueError: A value would come back as another one.
    """
    words: list[str] = []
    for key, value in options.items():
        if isinstance(value, Mapping):
            words += to_words(value, f'{prefix}{key}.')
            continue
        text = value if isinstance(value, str) else str(value).replace(' ', '')
        word = f'{prefix}{key}={text}'
        if read_settings([word]) != {f'{prefix}{key}': value}:
            raise ValueError(
                f'cfg_options: {prefix}{key}={value!r} cannot be given to '
                'tools/train.py --cfg-options: write a config for it'
            )
        words.append(word)
    return tuple(words)


@cache
def load_config(path: str) -> Config:
    """Return a config; not to be changed.

    Raises:
        ValueError: It is not valid.
        OSError: It cannot be read.
    """
    try:
        return Config.fromfile(path, import_custom_modules=False)
    except (SyntaxError, NameError, TypeError, KeyError) as error:
        raise ValueError(f'{path}: {error}') from error


def merged_config(path: str, words: Sequence[str]) -> Config:
    """Return a config with settings changed.

    Raises:
        ValueError: They do not fit it, or it is not valid.
    """
    from mmscfs.engine import apply_multi_crop  # slow

    cfg = Config(load_config(path).to_dict(), filename=path)
    try:
        cfg.merge_from_dict(read_settings(words))
        apply_multi_crop(cfg)
    except (KeyError, TypeError) as error:
        raise ValueError(f'{path} with {" ".join(words)}: {error}') from error
    return cfg


def share_out(
    words: Sequence[str], configs: Sequence[str]
) -> dict[str, list[str]]:
    """Return which of some settings each config gets.

    One below a part that only some configs have goes to these alone: the
    search's to SCFS and not to DINO, a bank's to k-NN. What none of them has
    goes to all.

    Args:
        words (Sequence[str]): Settings, KEY=VALUE each.
        configs (Sequence[str]): Paths of configs.
    """
    shares: dict[str, list[str]] = {config: [] for config in configs}
    for word in words:
        key = word.split('=', 1)[0]
        takers = [c for c in shares if has_parent(load_config(c), key)]
        for config in takers or shares:
            shares[config].append(word)
    return shares


def has_parent(cfg: Config, key: str) -> bool:
    """Tell whether a config has the part that a dotted key lies in."""
    part: Any = cfg
    for word in key.split('.')[:-1]:
        if isinstance(part, (list, tuple)):
            known = word.isdecimal() and int(word) < len(part)
            part = part[int(word)] if known else None
        else:
            part = part.get(word) if hasattr(part, 'get') else None
    return part is not None
