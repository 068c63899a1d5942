# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Damage checkpoints at random: each is read, or refused by name.

python tests/fuzz_checkpoints.py --seconds 300
"""

import argparse
import io
import random
import zipfile
from collections import OrderedDict

import torch
from mutations import fuzz, main, mutate
from safetensors.torch import save

from mmscfs.checkpoint import (
    describe_source,
    find_backbone,
    read_checkpoint,
)
from mmscfs.results import read_origin
from mmscfs.results.origin import ORIGINS

CONFIG = """
model = dict(
    type='SCFS',
    data_preprocessor=dict(mean=[1.0, 2, 3], std=(4, 5, 6), to_rgb=True),
    backbone=dict(type='ResNet', depth=18, out_indices=(1, 2, 3)))
train_dataloader = dict(batch_size=4, dataset=dict(data_root='data/in1k'))
optim_wrapper = dict(accumulative_counts=2)
"""


def checkpoints():
    """Contents that people have, small."""
    generator = torch.Generator().manual_seed(0)
    names = ('conv1.weight', 'bn1.running_mean', 'layer1.0.conv1.weight')
    state = OrderedDict(
        (name, torch.randn(2, 3, generator=generator)) for name in names
    )
    ours = {f'teacher.backbone.{k}': v.half() for k, v in state.items()}
    ours |= {f'backbone.{k}': v for k, v in state.items()}
    scalars = {'train/loss': dict(values=torch.ones(3, dtype=torch.float64))}
    raw = dict(
        meta=dict(cfg=CONFIG, epoch=3, world_size=2, seed=None),
        state_dict=ours,
        optimizer=dict(
            state={0: dict(momentum_buffer=torch.ones(2), step=1)},
            param_groups=[dict(lr=0.1, params=[0], betas=(0.9, 0.99))],
        ),
        message_hub=dict(log_scalars=scalars),
    )
    release = dict(
        student={f'module.backbone.{k}': v for k, v in state.items()},
        teacher={f'backbone.{k}': v for k, v in state.items()},
        args=argparse.Namespace(batch_size_per_gpu=8, world_size=4),
        epoch=7,
    )
    return dict(raw=raw, release=release, torchvision=state)


def samples():
    """Names and bytes of good files, in every format that is read."""
    for name, content in checkpoints().items():
        for suffix, new in (('pth', True), ('old.pth', False)):
            file = io.BytesIO()
            torch.save(content, file, _use_new_zipfile_serialization=new)
            yield f'{name}.{suffix}', file.getvalue()
    raw = checkpoints()['raw']
    meta = dict(cfg=CONFIG, epoch='3', source='x.pth')
    yield 'backbone.safetensors', save(raw['state_dict'], meta)


def damage(content: bytes, generator: random.Random) -> bytes:
    """Damage a file, or in half of the cases a part of an archive.

    Checksums are right then, so that the damage reaches the unpickler.
    """
    if content[:2] != b'PK' or generator.random() < 0.5:
        return mutate(content, generator)
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(file, 'w') as new,
    ):
        parts = old.namelist()
        chosen = generator.choice([parts[0], parts[0], *parts])
        for part in parts:
            data = old.read(part)
            data = mutate(data, generator) if part == chosen else data
            new.writestr(part, data)
    return file.getvalue()


def read(path):
    """Read a checkpoint, and all that is made of what it holds."""
    checkpoint = read_checkpoint(path)
    ORIGINS.clear()
    read_origin(str(path))
    try:
        found = find_backbone(checkpoint)
    except ValueError as error:  # its caller names the file
        raise ValueError(f'{path}: {error}') from error
    describe_source(path, checkpoint, found)


def run(folder, seconds=2.0, seed=0, cases=None):
    folder.mkdir(exist_ok=True)
    return fuzz(
        [(name, content, read) for name, content in samples()],
        folder,
        (ValueError, FileNotFoundError),
        damage,
        seconds,
        cases,
        seed,
    )


if __name__ == '__main__':
    main(__doc__, run)
