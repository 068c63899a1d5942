# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Checkpoints that would run code, or fill the memory, if one let them."""

import io
import os
import pickle
import zipfile

import torch

STATE = {'conv1.weight': torch.ones(4, 3, 3, 3)}


class Trap:
    """Its unpickling makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


class Evaluated(Trap):
    """The same in Python's own words."""

    def __reduce__(self):
        return eval, (f'__import__("os").mkdir({self.marker!r})',)


class Restored(Trap):
    """The same by what restores its state."""

    def __reduce__(self):
        return Restored.made, (), self.marker

    @staticmethod
    def made():
        return Restored.__new__(Restored)

    def __setstate__(self, marker):
        os.mkdir(marker)


def saved(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def repacked(content, change, compression=zipfile.ZIP_STORED):
    """Return an archive with its parts as ``change(name, part)`` has them."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(file, 'w', compression) as new,
    ):
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


def flipped(content):
    """Return an archive with one bit of its weights changed."""
    data = bytearray(content)
    data[data.index(STATE['conv1.weight'].numpy().tobytes())] ^= 1
    return bytes(data)


def script():
    """Return an archive with a program in it."""
    file = io.BytesIO()
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
    torch.jit.save(module, file)
    return file.getvalue()


class Zeros:
    """A bytearray of a length, as torch reads it."""

    def __init__(self, length):
        self.length = length

    def __reduce__(self):
        return bytearray, (self.length,)


# By name of the file: its bytes, for a trap that makes the folder ``marker``.
TRAPS = {
    'zip.pth': lambda marker: saved(dict(state_dict=Trap(marker))),
    'old.pth': lambda marker: saved(
        dict(state_dict=Trap(marker)), _use_new_zipfile_serialization=False
    ),
    'pickle.pth': lambda marker: pickle.dumps(Trap(marker), protocol=2),
    'pickle4.pth': lambda marker: pickle.dumps(Trap(marker), protocol=4),
    'pickle.pkl': lambda marker: pickle.dumps(
        dict(model=STATE, trap=Trap(marker)), protocol=2
    ),
    'optimizer.pth': lambda marker: saved(
        dict(state_dict=STATE, optimizer=dict(state=Trap(marker)))
    ),
    'meta.pth': lambda marker: saved(
        dict(state_dict=STATE, meta=dict(cfg=Trap(marker)))
    ),
    'eval.pth': lambda marker: saved(
        dict(state_dict=STATE, meta=Evaluated(marker))
    ),
    'setstate.pth': lambda marker: saved(
        dict(state_dict=STATE, meta=Restored(marker))
    ),
    'last.pth': lambda marker: saved([STATE, Trap(marker)]),
    'pickle.safetensors': lambda marker: pickle.dumps(Trap(marker)),
}
BAD = {
    'script.pth': lambda: script(),
    'bomb.pth': lambda: repacked(
        saved(dict(weight=torch.zeros(10**7))),
        lambda _, part: part,
        zipfile.ZIP_DEFLATED,
    ),
    'flipped.pth': lambda: flipped(saved(STATE)),
    'expanded.pth': lambda: saved(dict(w=torch.zeros(1).expand(10**12))),
    'sparse.pth': lambda: saved(
        dict(w=torch.sparse_coo_tensor([[0]], [1.0], (10**12,)))
    ),
    'quantized.pth': lambda: saved(
        dict(w=torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8))
    ),
    # 2 GB of zeros, once it is read.
    'bytes.pth': lambda: saved(dict(STATE, meta=Zeros(2**31))),
    'bytes_old.pth': lambda: saved(
        dict(STATE, meta=Zeros(2**31)), _use_new_zipfile_serialization=False
    ),
    'list.pth': lambda: saved([1, 2]),
    'deep.pth': lambda: b'\x80\x02' + b']' * 10**5 + b'a' * 99_999 + b'.',
}
