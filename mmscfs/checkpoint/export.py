# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Give a backbone the names and the file format of another project."""

import io
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from mmscfs.version import __version__

from .config_text import parse_config
from .layouts import NETWORKS, FoundBackbone, mm_vit_to_timm, resnet_stages
from .loading import read_meta
from .plain import to_count

# The suffixes of the files that each project reads.
SUFFIXES = {
    'openmmlab': ('.pth', '.safetensors'),
    'torchvision': ('.pth', '.safetensors'),
    'timm': ('.pth', '.safetensors'),
    'detectron2': ('.pkl',),
}
RESNET_NAME = re.compile(
    r'conv1\.weight|bn1\.\w+|layer[1-4]\.\d+\.'
    r'(conv[1-3]\.weight|bn[1-3]\.\w+|downsample\.(0\.weight|1\.\w+))'
)
# torchvision's names within the stem or a block -> detectron2's.
DETECTRON2_NAMES = (
    (r'\bbn(\d)\.', r'conv\1.norm.'),
    (r'\bdownsample\.0\.', 'shortcut.'),
    (r'\bdownsample\.1\.', 'shortcut.norm.'),
)


def convert(found: FoundBackbone, target: str) -> dict[str, Any]:
    """Name a backbone's tensors as another project does.

    Args:
        found (FoundBackbone): From :func:`find_backbone`.
        target (str): "openmmlab"; "torchvision", for ResNets; "timm", for
            ResNets and vision transformers; or "detectron2", for ResNets of
            bottlenecks, whose tensors become float32 arrays.

    Raises:
        ValueError: The project does not have this network.
    """
    # Copies: a part of a larger tensor would be saved with all of it.
    state = {
        key: value.detach().clone(memory_format=torch.contiguous_format)
        for key, value in found.state.items()
    }
    stages = resnet_stages(state)
    others = [key for key in state if not RESNET_NAME.fullmatch(key)]
    is_resnet = stages is not None and not others
    if target == 'openmmlab' or (is_resnet and target != 'detectron2'):
        return state
    if target == 'timm':
        try:
            return {mm_vit_to_timm(k): value for k, value in state.items()}
        except ValueError as error:
            raise ValueError(
                f'this {found} backbone is neither a ResNet nor a vision '
                f'transformer of timm: {error}'
            ) from error
    if stages is None or others:
        raise ValueError(
            f"this {found} backbone does not match {target}'s ResNet (it has "
            f'{", ".join(others[:2]) or "no blocks"})'
        )
    block, counts = stages
    if block != 'bottleneck':
        raise ValueError(
            f'this {found} backbone is a ResNet of {block} blocks {counts}; '
            'only bottleneck ResNets, as ResNet-50 and ResNet-101, are '
            'written for detectron2'
        )
    return {
        _detectron2_name(key): value.float().numpy()
        for key, value in state.items()
        if not key.endswith('num_batches_tracked')
    }


def _detectron2_name(key: str) -> str:
    """Return detectron2's name of a tensor in torchvision's ResNet."""
    for pattern, replacement in DETECTRON2_NAMES:
        key = re.sub(pattern, replacement, key)
    if stage := re.match(r'layer(\d)', key):
        return f'res{int(stage[1]) + 1}{key[stage.end() :]}'
    return f'stem.{key}'


def describe_source(
    path: str | Path, checkpoint: Mapping, found: FoundBackbone
) -> dict[str, Any]:
    """Return what an exported file tells about its origin.

    Returns:
        dict: ``source`` (the checkpoint's file name), ``layout``,
        ``mmscfs_version``; and where known ``network``, ``cfg`` (the config
        as text), ``data_preprocessor`` (mean, std, channel_order), ``epoch``
        and ``world_size``.
    """
    meta: dict[str, Any] = dict(
        source=Path(path).name,
        layout=found.layout,
        mmscfs_version=__version__,
    )
    own = read_meta(checkpoint)
    # An exported file has one network, and says which it was.
    if (network := found.network or own.get('network')) in NETWORKS:
        meta['network'] = network
    for name in ('epoch', 'world_size'):
        if (number := to_count(own.get(name))) is not None:
            meta[name] = number
    cfg = own.get('cfg')
    if isinstance(cfg, str):
        meta['cfg'] = cfg
        if preprocessor := read_data_preprocessor(cfg):
            meta['data_preprocessor'] = preprocessor
    return meta


def read_data_preprocessor(cfg: str) -> dict[str, Any] | None:
    """Read how images were normalized from a config's text.

    The text is parsed, never executed: a checkpoint is not a trusted source.

    Returns:
        dict | None: ``mean`` and ``std`` on the scale 0 to 255, and
        ``channel_order``, "RGB" or "BGR"; None if the text has no such
        literals.
    """
    try:
        settings = parse_config(cfg)
        model = settings.get('model') or {}
        own = model.get('data_preprocessor') or settings['data_preprocessor']
        to_rgb = [own.get('to_rgb', False), own.get('bgr_to_rgb', False)]
        if not all(isinstance(value, bool) for value in to_rgb):
            return None
        return dict(
            mean=[float(value) for value in own['mean']],
            std=[float(value) for value in own['std']],
            # Images are read as BGR.
            channel_order='RGB' if any(to_rgb) else 'BGR',
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def encode(
    state: Mapping[str, Any], target: str, suffix: str, meta: Mapping[str, Any]
) -> bytes:
    """Return the content of a file for another project, of SUFFIXES.

    Tensors are those of :func:`convert`; only OpenMMLab's files carry
    ``meta``, that of :func:`describe_source`.
    """
    content = io.BytesIO()
    if target == 'detectron2':
        model = dict(
            model=dict(state),
            __author__=f'mmscfs {__version__}',
            matching_heuristics=True,
        )
        _Detectron2Pickler(content, protocol=2).dump(model)
        return content.getvalue()
    if suffix == '.safetensors':
        texts = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in meta.items()
        }
        return safetensors.torch.save(
            dict(state), texts if target == 'openmmlab' else None
        )
    if target == 'openmmlab':
        state = dict(state_dict=state, meta=meta)
    torch.save(state, content)
    return content.getvalue()


class _Detectron2Pickler(pickle.Pickler):
    """Pickle arrays so that every NumPy reads them.

    NumPy 2 names its internal modules in pickles, which NumPy 1, common
    beside detectron2, does not have.
    """

    def reducer_override(self, value: Any) -> Any:
        """Rebuild an array by ``np.ndarray(shape, dtype, buffer)``."""
        if isinstance(value, np.ndarray):
            content = bytearray(value.tobytes())
            return np.ndarray, (value.shape, value.dtype.str, content)
        return NotImplemented
