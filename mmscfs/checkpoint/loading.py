# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import argparse
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmscfs.hub import PREFIX, find_weights

REMEDY = 'copy or save it again, or name another'
# Files that were checked before, with their states then.
_whole: dict[Path, tuple[int, int]] = {}


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Read a checkpoint's tensors and plain values onto the CPU.

    A ``.safetensors`` file becomes ``dict(state_dict=..., meta=...)``, its
    metadata's strings as they are. ``argparse.Namespace``, which holds the
    settings in the DINO and SCFS releases, is a plain value too.

    Args:
        path (str | Path): A file, or the name of weights in the package,
            ``mmscfs::...`` (:func:`mmscfs.hub.find_weights`).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds what only running code from it
            could restore, or would take more memory than the file has.
    """
    if str(path).startswith(PREFIX):
        path = find_weights(str(path))
    path = Path(path).expanduser()
    check_is_file(path)
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    if _whole.get(path.resolve()) != file_state(path):
        check_archive(path)
    check_pickle(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(
                path, map_location='cpu', weights_only=True
            )
    except pickle.UnpicklingError as error:
        # torch's advice is to read it all the same, which runs its code.
        named = re.search(r'GLOBAL ([\w.]+)', str(error))
        raise ValueError(
            f'refused checkpoint {str(path)!r}: it is damaged, or holds more '
            'than tensors and plain values'
            f'{f" ({named[1]})" if named else ""}: save only the state_dict() '
            'of its model, as torch tensors'
        ) from error
    except Exception as error:
        # What a damaged file makes the unpickler raise depends on its bytes.
        raise ValueError(
            f'checkpoint {str(path)!r} is damaged or not a checkpoint '
            f'({type(error).__name__}): {REMEDY}'
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f'checkpoint {str(path)!r} holds a {type(checkpoint).__name__}, '
            'not tensors by name: save the state_dict() of a model'
        )
    _check_sizes(path, checkpoint)
    return checkpoint


def check_is_file(path: str | Path) -> None:
    """Check that a checkpoint is a file: opening a pipe may last for ever.

    Raises:
        FileNotFoundError: It is not. The message names those beside it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f'no checkpoint {str(path)!r}: {_what_is_there(Path(path))}'
        )


def _what_is_there(path: Path, number: int = 3) -> str:
    """Name the checkpoints beside a missing one, the newest first."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return f'the folder {str(folder)!r} does not exist'
    files = [
        file
        for suffix in ('pth', 'safetensors')
        for file in folder.glob(f'*.{suffix}')
        if file.is_file()
    ]
    if not files:
        return f'{str(folder)!r} has none'
    files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    names = ', '.join(file.name for file in files[:number])
    more = f' and {len(files) - number} more' * (len(files) > number)
    return f'{str(folder)!r} has {names}{more}'


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name a checkpoint in what is wrong with it.

    Raises:
        ValueError: The same as inside, with the path before it.
    """
    try:
        yield
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f'checkpoint {str(path)!r}: {error}') from error


def read_meta(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata of a checkpoint, empty without usable ones."""
    meta = checkpoint.get('meta')
    return meta if isinstance(meta, Mapping) else {}


def drop_code(checkpoint: Mapping[str, Any]) -> None:
    """Remove the text that mmengine would execute on resuming.

    It takes ``meta['config']``, which nothing has written since mmengine
    0.x, for a config and runs it as Python.
    """
    meta = checkpoint.get('meta')
    if isinstance(meta, MutableMapping):
        meta.pop('config', None)


def is_archive(path: str | Path) -> bool:
    """Whether torch takes a file for one in its format from 1.6 on.

    Raises:
        FileNotFoundError: It is not a file.
    """
    check_is_file(path)
    with open(path, 'rb') as file:
        return file.read(4) == b'PK\x03\x04'


def file_state(path: str | Path) -> tuple[int, int] | None:
    """Return a file's size in bytes and time of change in ns, if it is there.

    It is opened, which on a network's file system asks the server.
    """
    try:
        with open(path, 'rb') as file:
            state = os.fstat(file.fileno())
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def note_whole(path: str | Path) -> None:
    """Have :func:`read_checkpoint` not check a file that has been checked."""
    if state := file_state(path):
        _whole[Path(path).resolve()] = state


def check_archive(path: str | Path) -> None:
    """Check the parts of a checkpoint that torch saved, a zip archive.

    torch compresses none of them, and writes checksums that it does not read.
    Files in its format from before 1.6 pass: they have none.

    Raises:
        ValueError: A part does not have its checksum, or the parts claim
            more bytes than the file has.
    """
    if not is_archive(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if sum(part.file_size for part in parts) > os.path.getsize(path):
                raise ValueError('its parts claim more bytes than it has')
            if (part := archive.testzip()) is not None:
                raise ValueError(f'its part {part!r} has another checksum')
    except Exception as error:
        # What a damaged archive makes zipfile raise depends on its bytes.
        raise ValueError(
            f'checkpoint {str(path)!r} is damaged ({error}): {REMEDY}'
        ) from error


def check_pickle(path: str | Path) -> None:
    """Check that reading a checkpoint's values takes no more than the file.

    Raises:
        ValueError: Its pickle makes a ``bytearray``, which torch allows: of
            any length, from a few bytes.
        OSError: The file cannot be read.
    """
    if is_archive(path):
        with zipfile.ZipFile(path) as archive:
            pickles = [
                archive.read(part)
                for part in archive.infolist()
                if part.filename.endswith('.pkl')
                and part.file_size <= os.path.getsize(path)
            ]
    else:
        pickles = [Path(path).read_bytes()]
    if any(b'\nbytearray\n' in content for content in pickles):
        raise ValueError(
            f'refused checkpoint {str(path)!r}: it holds a bytearray, which '
            'is neither a tensor nor a plain value'
        )


def _check_sizes(path: Path, checkpoint: Mapping) -> None:
    """Check that no tensor is larger than what is stored of it.

    Raises:
        ValueError: One repeats its numbers, has none, or is quantized.
    """
    waiting, seen = [checkpoint], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, Tensor) and (
            value.layout is not torch.strided
            or not value.is_cpu
            or value.is_quantized
            or value.nbytes > value.untyped_storage().nbytes()
        ):
            raise ValueError(
                f'refused checkpoint {str(path)!r}: a tensor of shape '
                f'{tuple(value.shape)} is not stored in full, or quantized: '
                'save plain tensors'
            )


def _read_safetensors(path: Path) -> dict:
    try:
        with safe_open(path, framework='pt') as file:
            names = file.keys()  # it is not a mapping
            state = {name: file.get_tensor(name) for name in names}
            return dict(state_dict=state, meta=file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(
            f'checkpoint {str(path)!r} is damaged or not a safetensors file '
            f'({error}): {REMEDY}'
        ) from error


def check_same_model(
    model_state: Mapping[str, Tensor],
    checkpoint: Mapping,
    name: str,
    remedy: str = 'Resume with the config that wrote it (it lies in the work '
    'directory), or start over without --resume and load_from',
) -> None:
    """Check that a checkpoint holds exactly the tensors of a model.

    Args:
        model_state (Mapping[str, Tensor]): The model's state dict.
        checkpoint (Mapping): A checkpoint, or a bare state dict.
        name (str): The model's name for the error.
        remedy (str): What to do, for the error. Defaults to that of a run.

    Raises:
        ValueError: A tensor is missing, left over, of another shape, or
            its numbers are not those of weights.
    """
    given = checkpoint.get('state_dict')
    state = {
        str(key).removeprefix('module.'): value
        for key, value in (
            given if isinstance(given, Mapping) else checkpoint
        ).items()
        if isinstance(value, Tensor)
    }
    if differences := name_differences(model_state, state):
        held, needed = (
            ', '.join(dict.fromkeys(key.split('.')[0] for key in keys))
            for keys in (state, model_state)
        )
        parts = f' with {needed}, but has {held or "no tensors"}'
        raise ValueError(
            f'the checkpoint is not one of this {name}'
            f'{parts * (held != needed)}: tensors {differences}. {remedy}'
        )
    check_numbers(model_state, state)


def check_numbers(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> None:
    """Check that tensors hold numbers that weights can be.

    torch would copy whatever it gets: of complex numbers the real part.

    Args:
        own (Mapping[str, Tensor]): The model's.
        given (Mapping[str, Tensor]): Those of a checkpoint, which has all.

    Raises:
        ValueError: Some are integers or complex, or NaN or infinite, where
            the model's are not.
    """
    for key, value in own.items():
        if key not in given or not value.is_floating_point():
            continue
        if not given[key].is_floating_point():
            raise ValueError(
                f'its tensor {key} is of {given[key].dtype}, where weights '
                f'are of {value.dtype}: save it as floating-point numbers'
            )
        # float8 has no isfinite.
        if value.isfinite().all() and not given[key].float().isfinite().all():
            raise ValueError(
                f'its tensor {key} is not finite (NaN or infinite): the '
                'training that saved it had diverged. Take an earlier one'
            )


def name_differences(
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    resized: tuple[str, ...] = (),
) -> str:
    """Count the tensors that differ from a model's, with an example of each.

    Args:
        own (Mapping[str, Tensor]): The model's.
        given (Mapping[str, Tensor]): Those of a checkpoint.
        resized (tuple[str, ...]): Ends of names whose shapes may differ.

    Returns:
        str: Those missing, left over and of another shape; empty if none.
    """
    problems = {
        'missing': [key for key in own if key not in given],
        'left over': [key for key in given if key not in own],
        'of another shape': [
            f'{key} {tuple(given[key].shape)} for {tuple(value.shape)}'
            for key, value in own.items()
            if key in given
            and given[key].shape != value.shape
            and not key.endswith(resized)
        ],
    }
    return '; '.join(
        f'{len(keys)} {problem} (e.g. {keys[0]})'
        for problem, keys in problems.items()
        if keys
    )
