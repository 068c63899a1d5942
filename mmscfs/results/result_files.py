# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Results of evaluations: one JSON file each, beside the checkpoint."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mmscfs.checkpoint import write_atomically

FORMAT = 'mmscfs-result-1'


# Evaluation -> the score that it is known by.
PROTOCOLS = {
    'knn': 'knn/top1',
    'linear': 'accuracy/top1',
    'linear-sweep': 'linear/top1',
    'semi-1%': 'accuracy/top1',
    'semi-10%': 'accuracy/top1',
    'finetune': 'accuracy/top1',
    'svm': 'svm/mAP',
    'boxes': 'boxes/top1',
}


class Result(NamedTuple):
    """What an evaluation reached; None where unknown, or not applicable."""

    protocol: str  #: A key of ``PROTOCOLS``.
    dataset: str  #: Name of the data set, e.g. "in1k".
    config: str  #: Name of the evaluation's config, without its suffix.
    checkpoint: str | None  #: File name of the pre-training checkpoint.
    network: str | None  #: "teacher" or "student", where it holds both.
    #: ``method``, ``epochs``, ``batch_size`` and ``dataset``, and what else of
    #: the recipe is known.
    pretraining: dict
    backbone: str  #: E.g. "ResNet-50".
    #: As logged, in percent; None where the number was not finite.
    metrics: dict
    settings: dict  #: What the evaluation was set to.
    work_dir: str  #: Its folder.
    #: How many epochs (or iterations, if it counts those) the evaluated
    #: network was trained for.
    epoch: int | None


# What tables read of these.
KINDS: dict[str, dict[str, Any]] = dict(
    pretraining=dict(
        method=str | None,
        epochs=int | None,
        batch_size=int | None,
        dataset=str | None,
        local_scale=list | None,
        search_layers=list | None,
    ),
    settings=dict.fromkeys(
        ('max_epochs', 'max_iters', 'train_images', 'val_images'), int | None
    ),
)


def result_path(
    checkpoint: str | Path, config: str, network: str | None = None
) -> Path:
    """Return where an evaluation's result lies: beside the checkpoint.

    Named after its config, without a suffix; a student's has another name.

    Example:
        >>> result_path('scfs/epoch_200.pth', 'knn_in1k', 'student').name
        'epoch_200.student.knn_in1k.json'
    """
    checkpoint = Path(checkpoint)
    student = '.student' if network == 'student' else ''
    return checkpoint.with_name(f'{checkpoint.stem}{student}.{config}.json')


def write_result(path: str | Path, result: Result) -> None:
    """Write a result; it replaces that of an earlier run of the same.

    A number that is not finite becomes null.

    Raises:
        OSError: The file cannot be written.
    """
    text = json.dumps(dict(format=FORMAT) | result._asdict())
    finite = json.loads(text, parse_constant=lambda _: None)
    text = json.dumps(finite, indent=2, allow_nan=False)
    write_atomically(path, f'{text}\n'.encode())


def read_result(path: str | Path) -> Result:
    """Read a result.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a result, or damaged; names the file and what
            is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'result {str(path)!r} does not exist: name the JSON file that '
            'an evaluation wrote, or a folder of results'
        )
    try:
        return _check(json.loads(path.read_text(encoding='utf-8')))
    except (ValueError, RecursionError) as error:  # of json, too
        raise ValueError(f'result {str(path)!r}: {error}') from error


def find_results(paths: Iterable[str | Path]) -> dict[Path, Result]:
    """Read results from files and, at any depth, from folders.

    Other files in the folders are left out.

    Returns:
        dict[Path, Result]: The results by file, in the order of ``paths``.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        ValueError: A result is damaged, or a path has none.
    """
    found: dict[Path, Result] = {}
    for path in map(Path, paths):
        files = [path]
        if path.is_dir():
            files = sorted(f for f in path.rglob('*.json') if is_result(f))
            if not files:
                raise ValueError(
                    f'no results in {str(path)!r}: evaluations write them '
                    'beside the checkpoint that --pretrained names, or else '
                    'into their work directory'
                )
        found |= {file: read_result(file) for file in files}
    return found


def is_result(path: Path) -> bool:
    """Tell a result by its beginning: annotation files may be large.

    Raises:
        OSError: The file cannot be read.
    """
    if not path.is_file():
        return False
    with open(path, 'rb') as file:
        return b'"format": "mmscfs-result-' in file.read(100)


def _check(content: Any) -> Result:
    """Return a result from what a file has.

    Raises:
        ValueError: It is not a result of this version.
    """
    if not isinstance(content, dict) or content.pop('format', None) != FORMAT:
        raise ValueError(
            f'it lacks "format": {FORMAT!r}, so this version of mmscfs did '
            'not write it'
        )
    if content.keys() != {*Result._fields}:
        odd = content.keys() ^ {*Result._fields}
        raise ValueError(f'missing or unknown: {", ".join(sorted(odd))}')
    for part, kinds in (('', Result.__annotations__), *KINDS.items()):
        for name, kind in kinds.items():
            value = (content[part] if part else content).get(name)
            if not isinstance(value, kind):
                raise ValueError(
                    f'"{name}" is {str(value)[:80]!r}, which must be '
                    f'{getattr(kind, "__name__", kind)}'
                )
    for name, value in content['metrics'].items():
        if not isinstance(value, int | float | None):
            raise ValueError(f'metric "{name}" is {str(value)[:80]!r}')
    result = Result(**content)
    if result.protocol not in PROTOCOLS:
        raise ValueError(
            f'"protocol" is {result.protocol!r}, not one of '
            f'{", ".join(PROTOCOLS)}'
        )
    return result
