# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Find the backbone in a checkpoint of any known project.

Every project nests and names a backbone's weights in its own way. What is
found here carries the names of mmpretrain and mmdet, which for ResNets are
torchvision's.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from .loading import read_meta

NETWORKS = ('teacher', 'student')
# First words of the keys that only a detector or a segmentor has.
DETECTOR_PARTS = (
    'rpn_head',
    'roi_head',
    'roi_heads',
    'bbox_head',
    'mask_head',
    'query_head',
    'decode_head',
    'panoptic_head',
)
DETECTOR_NECKS = ('neck.fpn_convs', 'neck.lateral_convs')
# What classifiers and self-supervised projects put behind a bare backbone.
HEADS = (
    'fc',
    'head',
    'head_drop',
    'fc_norm',
    'head_dist',
    'projection_head',
    'prediction_head',
    'projector',
    'predictor',
    'prototypes',
)
# Entries that hold the tensors, from the outside in (three are VISSL's).
WRAPPERS = ('classy_state_dict', 'base_model', 'state_dict', 'model', 'trunk')
# What wraps modules, and so their names: DDP, torch.compile, FSDP, and VISSL's
# trunk.
WRAPPED = re.compile(
    r'(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module)\.'
    r'|^_feature_blocks\.'
)
# Two tensors of a ResNet, of one as a sequence and of a vision transformer.
# In any project they have the same name before theirs.
SIGNS = (
    ('conv1.weight', 'layer1.0.conv1.weight'),
    ('0.weight', '4.0.conv1.weight'),
    ('patch_embed.proj.weight', 'blocks.0.norm1.weight'),
    ('patch_embed.projection.weight', 'layers.0.ln1.weight'),
)
# Of two networks, words in the name of the one that the other moves.
MOVED = re.compile(r'(?:^|[._])(?:teacher|target|momentum|ema|key|k)(?=[._])')
# A ResNet as a sequence of its children, as lightly's examples cut it.
SEQUENCE = {
    '0': 'conv1',
    '1': 'bn1',
    '4': 'layer1',
    '5': 'layer2',
    '6': 'layer3',
    '7': 'layer4',
}

# How the names of a vision transformer's tensors begin: in timm and DINO, in
# mmpretrain. "#" is the number of a block; the first that fits counts.
VIT_NAMES = (
    ('cls_token', 'cls_token'),
    ('pos_embed', 'pos_embed'),
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('norm_pre.', 'pre_norm.'),
    ('blocks.#.norm1.', 'layers.#.ln1.'),
    ('blocks.#.norm2.', 'layers.#.ln2.'),
    ('blocks.#.ls1.gamma', 'layers.#.attn.gamma1.weight'),
    ('blocks.#.ls2.gamma', 'layers.#.ffn.gamma2.weight'),
    ('blocks.#.attn.', 'layers.#.attn.'),
    ('blocks.#.mlp.fc1.', 'layers.#.ffn.layers.0.0.'),
    ('blocks.#.mlp.fc2.', 'layers.#.ffn.layers.1.'),
    ('norm.', 'ln1.'),
)


# Depth -> block and blocks of each stage.
RESNETS = {
    18: ('basic', [2, 2, 2, 2]),
    34: ('basic', [3, 4, 6, 3]),
    50: ('bottleneck', [3, 4, 6, 3]),
    101: ('bottleneck', [3, 4, 23, 3]),
    152: ('bottleneck', [3, 8, 36, 3]),
}


class FoundBackbone(NamedTuple):
    """A backbone that was found in a checkpoint."""

    layout: str  #: Who writes such checkpoints, e.g. "DINO release".
    #: "teacher" or "student", None where a layout has only one network.
    network: str | None
    state: dict[str, Tensor]  #: Its tensors, named as in mmpretrain.
    heads: tuple[str, ...]  #: The other parts of the checkpoint.

    def __str__(self) -> str:
        network = f', {self.network}' if self.network else ''
        return f'{self.layout}{network}'


def find_backbone(
    checkpoint: Mapping, network: str | None = None
) -> FoundBackbone:
    """Recognize a checkpoint's layout and return its backbone.

    Knows mmscfs, mmpretrain and mmselfsup, exported backbones, the releases
    of SCFS, DINO (ResNet and ViT), MoCo (v1 to v3) and SwAV, torchvision,
    timm, lightly, solo-learn and VISSL, of compiled models too. In any other
    file it takes the ResNet or vision transformer below any name; of two,
    the one that was trained, not its moving average.

    Args:
        checkpoint (Mapping): What :func:`read_checkpoint` returned.
        network (str, optional): "teacher" or "student"; None takes the
            teacher where there is one. Defaults to None.

    Raises:
        ValueError: ``network`` is unknown or not in the checkpoint, or there
            is no backbone in it, or it is a detector's.
    """
    if network not in (None, *NETWORKS):
        raise ValueError(
            f"network={network!r} must be 'teacher', 'student' or None"
        )
    if {'teacher', 'student'} <= checkpoint.keys():
        return _from_release(checkpoint, network)
    state = _flat_state(checkpoint)
    _refuse_detector(state)
    for teacher, student, layout in (
        ('teacher.backbone.', 'backbone.', 'mmscfs'),
        ('teacher_backbone.', 'student_backbone.', 'lightly'),
    ):
        if any(key.startswith(teacher) for key in state):
            chosen = network or 'teacher'
            prefix = teacher if chosen == 'teacher' else student
            return _take(state, prefix, layout, chosen)
    if network == 'teacher':
        raise ValueError(
            "network='teacher': this checkpoint has no teacher (parts: "
            f'{", ".join(_parts(state))}); leave network out'
        )
    has_mlp = 'encoder_q.fc.2.weight' in state
    for prefix, layout in (
        ('backbone.', 'mmpretrain'),
        ('encoder_q.', f'MoCo {"v2 " if has_mlp else ""}release'),
        ('base_encoder.', 'MoCo v3 release'),
    ):
        if any(key.startswith(prefix) for key in state):
            return _take(state, prefix, layout, None)
    layout = 'torchvision'
    if 'patch_embed.proj.weight' in state:
        layout = 'timm'
    elif 'state_dict' in checkpoint and read_meta(checkpoint):
        layout = 'OpenMMLab backbone'
    return _bare(state, layout, None, ())


def _from_release(checkpoint: Mapping, network: str | None) -> FoundBackbone:
    """Take a network of the SCFS or the DINO release."""
    chosen = network or 'teacher'
    state = _flat_state(checkpoint[chosen])
    # torchextractor, which the SCFS release wraps its ResNet in, adds "model".
    for prefix, layout in (
        ('backbone.model.', 'SCFS release'),
        ('backbone.', 'DINO release'),
    ):
        if any(key.startswith(prefix) for key in state):
            return _take(state, prefix, layout, chosen)
    return _bare(state, 'DINO release', chosen, ())


def _flat_state(checkpoint: Any) -> dict[str, Tensor]:
    """Return the tensors by name, without wrappers around model and names.

    Raises:
        ValueError: It has no tensors.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f'the checkpoint holds a {type(checkpoint).__name__} in place of '
            'tensors by name'
        )
    for wrapper in WRAPPERS:
        if isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = checkpoint[wrapper]
    state = _tensors(checkpoint)
    if not state:  # each network below a name of the user's
        state = {
            f'{name}.{key}': value
            for name, part in checkpoint.items()
            if isinstance(part, Mapping)
            for key, value in _tensors(part).items()
        }
    if not state:
        raise ValueError(
            'the checkpoint holds no weights (its entries: '
            f'{", ".join(map(str, list(checkpoint)[:8])) or "none"})'
        )
    return state


def _tensors(part: Mapping) -> dict[str, Tensor]:
    """Return the tensors by name, without what wraps their modules."""
    return {
        WRAPPED.sub('', str(key)): value
        for key, value in part.items()
        if isinstance(value, Tensor)
    }


def _starts(state: Mapping[str, Tensor]) -> list[str]:
    """Return the names before those of each backbone, '' for a bare one."""
    starts = [
        key.removesuffix(first)
        for key in state
        for first, second in SIGNS
        if key.endswith(first) and key.removesuffix(first) + second in state
    ]
    return [start for start in starts if start[-1:] in ('', '.')]


def _parts(names: Iterable[str]) -> list[str]:
    """Return the first words of the names, in order."""
    return list(dict.fromkeys(name.split('.')[0] for name in names))


def _refuse_detector(state: Mapping[str, Tensor]) -> None:
    # Semi-supervised detectors are two detectors.
    words = {
        re.sub(r'^(teacher|student)\.', '', k).split('.')[0] for k in state
    }
    parts = [part for part in DETECTOR_PARTS if part in words]
    if parts or any(key.startswith(DETECTOR_NECKS) for key in state):
        raise ValueError(
            'this is the checkpoint of a detector '
            f'({", ".join(parts or ["feature pyramid"])}), not of a '
            'backbone. Start from it with load_from, or give the '
            'pre-training checkpoint'
        )


def _take(
    state: Mapping[str, Tensor],
    prefix: str,
    layout: str,
    network: str | None,
) -> FoundBackbone:
    """Take the part behind ``prefix``."""
    part = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix)
    }
    rest = [key for key in state if not key.startswith(prefix)]
    return _bare(part, layout, network, tuple(_parts(rest)))


def _bare(
    state: Mapping[str, Tensor],
    layout: str,
    network: str | None,
    heads: tuple[str, ...],
) -> FoundBackbone:
    """Set heads aside and rename what is left."""
    starts = _starts(state)
    # What mmpretrain saves has the names of its module, as TIMMBackbone's.
    if layout == 'torchvision' and starts and '' not in starts:
        trained = [s for s in starts if not MOVED.search(s)] or starts
        if len(trained) > 1:
            raise ValueError(
                f'this checkpoint has {len(trained)} backbones '
                f'({", ".join(trained)}): save the one to start from alone'
            )
        layout = trained[0].rstrip('.')
        found = _take(state, trained[0], layout, network)
        return found._replace(heads=(*heads, *found.heads))
    if {'0.weight', '4.0.conv1.weight'} <= state.keys():
        layout = 'lightly'
        state = {
            re.sub(r'^\d+', lambda n: SEQUENCE.get(n[0], n[0]), key): value
            for key, value in state.items()
        }
    own_heads = [part for part in _parts(state) if part in HEADS]
    backbone = {
        key: value
        for key, value in state.items()
        if key.split('.')[0] not in HEADS
    }
    if not any(value.ndim > 1 for value in backbone.values()):
        parts = ', '.join(_parts(state))
        raise ValueError(
            f'no backbone in this checkpoint (parts: {parts}); known '
            'layouts are those of mmscfs, mmpretrain, mmselfsup, '
            'torchvision, timm, lightly, solo-learn, VISSL, and the releases '
            'of SCFS, DINO, MoCo and SwAV'
        )
    if 'patch_embed.proj.weight' in backbone:
        # A name without counterpart stays as it is.
        backbone = {
            _translate(key, VIT_NAMES) or key: value
            for key, value in backbone.items()
        }
    return FoundBackbone(layout, network, backbone, (*heads, *own_heads))


def mm_vit_to_timm(key: str) -> str:
    """Return timm's name of a tensor in mmpretrain's vision transformer.

    Raises:
        ValueError: It has none.
    """
    name = _translate(key, [(mm, timm) for timm, mm in VIT_NAMES])
    if name is None:
        raise ValueError(f"timm's vision transformer has no {key}")
    return name


def _translate(key: str, names: Iterable[tuple[str, str]]) -> str | None:
    """Exchange the beginning of a name; None if none of ``names`` fits."""
    for old, new in names:
        start = re.escape(old).replace(r'\#', r'(\d+)')
        if found := re.match(start, key):
            number = ''.join(found.groups())
            return new.replace('#', number) + key[found.end() :]
    return None


def resnet_stages(
    state: Mapping[str, Tensor],
) -> tuple[str, list[int]] | None:
    """Return a ResNet's block ("basic" or "bottleneck") and blocks a stage.

    None if the tensors are not those of a ResNet. [3, 4, 6, 3] bottlenecks
    are a ResNet-50.
    """
    blocks = {
        tuple(map(int, found.groups()))
        for key in state
        if (found := re.match(r'layer(\d)\.(\d+)\.conv1\.weight$', key))
    }
    if not blocks:
        return None
    deep = any(re.match(r'layer\d\.0\.conv3\.', key) for key in state)
    stages = sorted({stage for stage, _ in blocks})
    counts = [sum(s == stage for s, _ in blocks) for stage in stages]
    return ('bottleneck' if deep else 'basic'), counts


def resnet_settings(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Return the settings that build the ResNet of these tensors.

    Returns:
        dict | None: ``depth``, ``stem_channels``, ``base_channels``, and
        ``channels``, those of its four stages, which are the
        ``in_channels`` of an FPN; None if they are not those of a plain
        ResNet.

    Example:
        >>> resnet_settings(found.state)
        {'depth': 50, 'stem_channels': 64, 'base_channels': 64,
         'channels': [256, 512, 1024, 2048]}
    """
    stages = resnet_stages(state)
    depths = [depth for depth, own in RESNETS.items() if own == stages]
    if not depths:
        return None
    last, widest = ('conv2', 1) if depths[0] < 50 else ('conv3', 4)
    names = 'conv1', 'layer1.0.conv1', f'layer1.0.{last}'
    weights = [state.get(f'{name}.weight') for name in names]
    # None of a damaged one; 0 of a scalar.
    stem, base, end = (
        0 if w is None or not w.ndim else len(w) for w in weights
    )
    if not stem or end != widest * base:
        return None  # also of a wide ResNet, or a ResNeXt
    return dict(
        depth=depths[0],
        stem_channels=stem,
        base_channels=base,
        channels=[widest * base * 2**stage for stage in range(4)],
    )
