# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Settings of a config that nothing reads."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, reduce
from operator import or_
from typing import Any

from mmengine.runner import Runner
from torch.utils.data import DataLoader

from .signatures import (
    ANY,
    Arguments,
    arguments_of,
    arguments_of_type,
    read_texts,
)

PACKAGES = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet')
# Top level settings beside the arguments of mmengine's runner.
TOP = frozenset(
    (
        *('activation_checkpointing', 'compile', 'custom_imports'),
        *('efficient_conv_bn_eval', 'evaluation', 'find_unused_parameters'),
        *('model_wrapper_cfg', 'runner_type', 'strategy'),
        *('sync_bn', 'tta_model', 'tta_pipeline'),
    )
)
# A variable that prepare_config puts into the pipeline.
CROPS = 'multi_crop'
# What a registry or a builder takes out before it calls a type.
REGISTRY = frozenset(('type', '_scope_', '_delete_'))
BUILDERS = {
    'default_hooks': ('priority',),
    'custom_hooks': ('priority',),
    'param_scheduler': ('convert_to_iter_based', 'epoch_length'),
    'optim_wrapper': ('constructor', 'optimizer', 'paramwise_cfg'),
}
# Types whose parts are types of other packages.
FOREIGN = ('Albu', 'Albumentations')
# Parts of a config without a type: what reads them.
LOOPS = {
    'train_cfg': ('EpochBasedTrainLoop', 'IterBasedTrainLoop'),
    'val_cfg': ('ValLoop',),
    'test_cfg': ('TestLoop', 'ValLoop'),
    'optim_wrapper': ('OptimWrapper',),
    'log_processor': ('LogProcessor',),
}
PARTS = {
    'auto_scale_lr': 'enable base_batch_size',
    'custom_imports': 'imports allow_failed_imports',
    'env_cfg': 'cudnn_benchmark dist_cfg mp_cfg resource_limit tf32',
    'env_cfg.mp_cfg': 'mp_start_method opencv_num_threads',
    'optim_wrapper.clip_grad': 'type max_norm norm_type clip_value foreach '
    'error_if_nonfinite',
    'randomness': 'seed deterministic diff_rank_seed',
}
# What mmengine adds to the arguments of torch's loader.
LOADER = ('dataset', 'num_batch_per_epoch')
# Parts whose keys are names that a user chooses.
CHOSEN = ('custom_keys', 'default_hooks', 'init_kwargs', 'metainfo')
# Parts of which layers' builders take out what is theirs.
LAYERS = ('conv_cfg', 'dcn', 'norm_cfg')
# What configs of mmcv 1 have (mmselfsup 0, mmcls 0, mmdet 2), and what
# mmengine reads in its place.
OLD_SECTIONS = {
    'checkpoint_config': 'default_hooks.checkpoint',
    'data': 'train_dataloader',
    'log_config': 'default_hooks.logger',
    'lr_config': 'param_scheduler',
    'optimizer': 'optim_wrapper.optimizer',
    'optimizer_config': 'optim_wrapper',
    'runner': 'train_cfg',
    'total_epochs': 'train_cfg.max_epochs',
}
# What these and other projects call a setting.
OTHER_NAMES = OLD_SECTIONS | {
    'batch': 'batch_size',
    'epochs': 'max_epochs',
    'iterations': 'max_iters',
    'iters': 'max_iters',
    'learning_rate': 'lr',
    'resume_from': 'resume',
    'samples_per_gpu': 'batch_size',
    'seed': 'randomness.seed',
    'workers_per_gpu': 'num_workers',
}


def unread_arguments(cfg: Mapping) -> Iterator[str]:
    """Yield a message for every setting inside a config that nothing reads.

    Arguments of a type are compared with its signature. What takes further
    ones by ``**kwargs``, and parts without a type, are searched for
    misspellings alone: a name that is near another and is in no source file.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    for key in cfg:
        if key in sections() or key == CROPS:
            yield from walk(cfg[key], (key,), scope)


@cache
def sections() -> frozenset[str]:
    """Return the top level settings that a run reads."""
    return (arguments_of(Runner).names - {'cfg'}) | TOP


def walk(part: Any, path: tuple[str, ...], scope: str) -> Iterator[str]:
    """Yield a message for each unread setting below a part of a config."""
    if isinstance(part, (list, tuple)):
        for i, item in enumerate(part):
            yield from walk(item, (*path, str(i)), scope)
        return
    if not isinstance(part, Mapping):
        return
    kind = part.get('type')
    if kind in FOREIGN or (isinstance(kind, str) and '/' in kind):
        return
    scope = part.get('_scope_') or scope
    taken = reader(part, path, scope)
    for key in part:
        if isinstance(key, str) and is_unread(key, part, path, taken):
            owner = kind if isinstance(kind, str) else path[-1]
            names = {*taken.names, *part} - {key}
            yield no_setting('.'.join((*path, key)), names, owner)
    for key, item in part.items():
        is_hook = path == ('default_hooks',) and isinstance(item, Mapping)
        if is_hook and 'type' not in item:  # of a hook that the config lacks
            others = [k for k in part if k != key]
            yield no_setting(f'default_hooks.{key}', others, 'the config')
        else:
            yield from walk(item, (*path, str(key)), scope)


def reader(part: Mapping, path: tuple[str, ...], scope: str) -> Arguments:
    """Return the arguments that a part of a config may have."""
    kind, name = part.get('type'), path[-1]
    if name in CHOSEN or name in LAYERS:
        return ANY
    known = PARTS.get('.'.join(path))
    if known:
        return Arguments(frozenset(known.split()), False)
    if kind is None and name.endswith('dataloader'):
        return Arguments(arguments_of(DataLoader).names | {*LOADER}, False)
    if kind is None and len(path) == 1 and name in LOOPS:
        loops = (arguments_of_type(kind, 'mmengine') for kind in LOOPS[name])
        found = reduce(or_, loops)
        names = found.names | {'by_epoch', *BUILDERS.get(name, ())}
        # A constructor, as of several optimizers, may have keys of its kind.
        return Arguments(names, found.is_open or 'constructor' in part)
    if kind is None:
        return ANY
    is_name = isinstance(kind, str)
    found = arguments_of_type(kind, scope) if is_name else arguments_of(kind)
    extra = BUILDERS.get(path[0], ()) if len(path) < 3 else ()
    return Arguments(found.names | REGISTRY | {*extra}, found.is_open)


def is_unread(
    key: str, part: Mapping, path: tuple[str, ...], taken: Arguments
) -> bool:
    """Whether nothing reads a setting."""
    if key in taken.names or key in REGISTRY:
        return False
    if not taken.is_open:
        return path[0].endswith('_cfg') or not is_taken_out(key)
    if path[-1] in CHOSEN or not key.isidentifier():
        return False
    others = taken.names | {str(k) for k in part if k != key}
    near = difflib.get_close_matches(key, others, cutoff=0.87)
    near = [
        n for n in near if n.rstrip('0123456789') != key.rstrip('0123456789')
    ]
    is_read = any(n in taken.names or is_in_source(rf'\b{n}\b') for n in near)
    return is_read and not is_in_source(rf'\b{key}\b')


def is_taken_out(word: str) -> bool:
    """Whether some code takes a setting out of a part before it builds it.

    mmdet's DETR does so with ``bg_cls_weight`` of its loss.
    """
    pattern = rf'pop\([\'"]{re.escape(word)}[\'"]'
    return is_in_source(pattern, PACKAGES)  # ours does not


@cache
def is_in_source(
    pattern: str, packages: tuple[str, ...] = (*PACKAGES, 'mmscfs')
) -> bool:
    """Whether a source file of packages matches."""
    search = re.compile(pattern).search
    return any(
        search(text)
        for package in packages
        for text in read_texts(package).values()
    )


def no_setting(
    path: str,
    names: Iterable[str],
    owner: str,
    whole: Sequence[str] = (),
    where: str = '',
) -> str:
    """Say that nothing reads the setting ``path``, and which are near.

    ``names`` are listed as those of ``owner``, if that is not ''. ``whole``
    are other settings that may have been meant; ``where`` names the file.
    """
    key = path.split('.')[-1]
    names = sorted({*map(str, names)} - REGISTRY)
    near = [*whole] or [o for o in [OTHER_NAMES.get(key)] if o in names]
    word = key if owner else path.split('.')[0]
    near = near or difflib.get_close_matches(word, names, 1)
    if near:
        return f'no setting {path}{where}; did you mean {" or ".join(near)}?'
    if not owner or not names:
        return f'no setting {path}{where}: nothing reads it, so remove it'
    return f'no setting {path}{where}; {owner} takes {", ".join(names)}'
