# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Features of a labeled data set, layer by layer, in one pass."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from mmengine.dataset import BaseDataset, DefaultSampler
from mmengine.dist import (
    all_gather,
    all_reduce,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.model import BaseModel
from mmengine.runner import Runner
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmscfs.models.search import global_average_pool

from ..resume.random_states import kept_random_states
from ..runner_access import unwrapped_model


class Features(NamedTuple):
    """This process's part of a data set's features."""

    #: Pooled features by layer, each float32 (N, C), shallow to deep.
    layers: dict[str, Tensor]
    labels: Tensor  #: Classes, int64 (N,), or rows of labels (N, K).
    #: Places in the data set, int64 (N,), ascending.
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    outputs: list[str]  #: Names of all the backbone's outputs, taken or not.


def pool(output: Tensor) -> Tensor:
    """Turn a backbone's output into features (B, C).

    Maps (B, C, H, W) and tokens (B, L, C) are averaged; vectors (B, C), such
    as a class token, are taken as they are.
    """
    if output.ndim == 4:
        return global_average_pool(output)
    return output.mean(1) if output.ndim == 3 else output


def layer_names(backbone: nn.Module, count: int) -> list[str]:
    """Name a backbone's outputs "layer1", ...: the stages or blocks.

    Those that follow them, such as a class token, have the names that the
    backbone gives them, ``extra_outputs``.
    """
    indices = getattr(backbone, 'out_indices', None)
    extra = list(getattr(backbone, 'extra_outputs', ()))
    if isinstance(indices, int) or len(indices or ()) + len(extra) != count:
        return [f'output{i + 1}' for i in range(count)]
    depth = len(getattr(backbone, 'layers', ()))  # of a transformer
    # In the order of the network, whatever that of out_indices.
    indices = sorted(i + depth if i < 0 else i for i in indices or ())
    return [f'layer{i + 1}' for i in indices] + extra


def named_outputs(backbone: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return a backbone's outputs of images (B, 3, H, W), by name."""
    outputs = backbone(images)
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    names = layer_names(backbone, len(outputs))
    return dict(zip(names, outputs, strict=True))


def choose_layers(names: Sequence[str], wanted: str | Sequence[str]) -> list:
    """Return which outputs are wanted: "last", "all", or names.

    Raises:
        ValueError: The backbone has no such output.
    """
    if wanted in ('last', 'all'):
        return list(names[-1:] if wanted == 'last' else names)
    if isinstance(wanted, str) or not wanted or not set(wanted) <= set(names):
        raise ValueError(
            f"layers={wanted!r} must be 'last', 'all', or a list of "
            f'{list(names)}: other layers need model.backbone.out_indices'
        )
    return [name for name in names if name in wanted]


def choose_backbone(model: BaseModel, network: str | None) -> nn.Module:
    """Return the teacher's or the student's backbone; None: the teacher's.

    Raises:
        ValueError: The model has no teacher, or no backbone.
    """
    teacher = getattr(model, 'teacher', None)
    if network not in (None, 'teacher', 'student'):
        raise ValueError(
            f"network={network!r} must be 'teacher', 'student' or None"
        )
    if network == 'teacher' and teacher is None:
        raise ValueError(
            f"network='teacher': {type(model).__name__} has no teacher; "
            'leave network out'
        )
    if teacher is not None and network != 'student':
        model = teacher
    if not hasattr(model, 'backbone'):
        raise ValueError(f'{type(model).__name__} has no backbone')
    return model.backbone


def read_label(image: Mapping, what: str) -> int:
    """Return the class of an image, as its data set describes it.

    Raises:
        ValueError: It has none, or several.
    """
    label = image.get('gt_label')
    if label is None or np.size(label) != 1:
        raise ValueError(
            f'an image of the {what} has '
            f'{"no label" if label is None else "several labels"} '
            f'({image.get("img_path", "path unknown")}): this evaluation '
            'needs one class for each image, e.g. a data set of type '
            "'ImageNet' or 'CustomDataset' with class folders"
        )
    return int(np.asarray(label).item())


def read_labels(
    dataset: BaseDataset,
    places: Iterable[int],
    what: str,
    read: Callable[[Mapping, str], int | Sequence[int]] = read_label,
) -> Tensor:
    """Return the labels of N of a data set's images, int64 (N,) or (N, K).

    ``read`` returns the label of an image, or a row of K labels; errors call
    the data set ``what``, e.g. "bank".
    """
    return torch.tensor([read(dataset.get_data_info(i), what) for i in places])


@torch.no_grad()
def extract_features(
    runner: Runner,
    loader: DataLoader,
    what: str,
    layers: str | Sequence[str] = 'last',
    network: str | None = None,
    write: Callable[[str, int, Tensor], None] | None = None,
    read: Callable[[Mapping, str], int | Sequence[int]] = read_label,
) -> Features:
    """Run a data set through the model's backbone, in eval mode.

    Every process takes its part of the data set. The model is left in eval
    mode, and the run's random states as they were.

    Args:
        runner (Runner): Its model has a ``backbone`` and a
            ``data_preprocessor``.
        loader (DataLoader): Batches of ``inputs``, in the order of the data
            set.
        what (str): What to call the data set in errors and in the progress
            bar, e.g. "bank".
        layers, network: As of :class:`FeatureLoop`.
        write (Callable, optional): Takes a layer's name, a place among this
            process's images and the features from there on, float32 (B, C);
            none are kept in memory then. Defaults to None.
        read (Callable): Reads the labels, see ``read_labels``. Defaults
            to ``read_label``.

    Raises:
        ValueError: The loader shuffles, an image has no label, a feature is
            not finite, or ``layers`` or ``network`` is not there.
    """
    model = unwrapped_model(runner)
    backbone = choose_backbone(model, network)
    index = own_places(loader, what)
    labels = read_labels(loader.dataset, index.tolist(), what, read)
    model.eval()
    stored: dict[str, Tensor] = {}
    bad: dict[str, int] = Counter()

    start = 0
    # A loader draws a seed for its workers even where nothing is random.
    with kept_random_states():
        for batch in progress(f'features of the {what}')(loader):
            images = normalize(model, batch['inputs'])
            outputs = named_outputs(backbone, images)
            for name in choose_layers([*outputs], layers):
                pooled = pool(outputs[name]).float().cpu()
                # The sampler repeats images to give every process as many.
                part = pooled[: len(index) - start]
                bad[name] += int((~part.isfinite()).any(-1).sum())
                if write is not None:
                    write(name, start, pooled)
                    continue
                if name not in stored:
                    stored[name] = torch.empty(len(index), pooled.shape[1])
                stored[name][start : start + len(part)] = part
            start += len(batch['inputs'])
    counts = torch.tensor(list(bad.values()))
    all_reduce(counts)  # all processes raise, or none
    for name, count in zip(bad, counts.tolist(), strict=True):
        if count:
            raise ValueError(
                f'{count} features of the {what} ({name}) are not finite '
                '(NaN or infinite): the network has diverged. Use an earlier '
                'checkpoint'
            )
    return Features(stored, labels, index, [*outputs])


def normalize(model: BaseModel, images: Tensor | Sequence[Tensor]) -> Tensor:
    """Send images, (B, 3, H, W) or a list, through the preprocessor.

    They come out with their channels last in memory, as is faster.
    """
    if not isinstance(images, Tensor):
        images = torch.stack(list(images))
    data = dict(inputs=images, data_samples=None)
    images = model.data_preprocessor(data)['inputs']
    return images.contiguous(memory_format=torch.channels_last)


def dataset_of(loader: DataLoader) -> BaseDataset:
    """Return a loader's data set, whose type torch does not know."""
    return loader.dataset


def own_places(loader: DataLoader, what: str) -> Tensor:
    """Return which images of the data set this process's loader yields.

    Raises:
        ValueError: The sampler is not ``DefaultSampler(shuffle=False)``, it
            gives some processes fewer images, or the loader drops images.
    """
    sampler = loader.sampler
    if (
        not isinstance(sampler, DefaultSampler)
        or sampler.shuffle
        or not sampler.round_up
        or loader.drop_last
    ):
        raise ValueError(
            f'the loader of the {what} must keep the order of its images: '
            "set sampler=dict(type='DefaultSampler', shuffle=False), without "
            'round_up=False, and drop_last=False'
        )
    return torch.arange(get_rank(), len(dataset_of(loader)), get_world_size())


def gather_rows(values: Tensor, total: int) -> Tensor:
    """Collect rows (N, ...) of all processes in the data set's order.

    Every process gets all, (total, ...).
    """
    if get_world_size() == 1:
        return values
    # Collectives need one size.
    padded = values.new_zeros(-(-total // get_world_size()), *values.shape[1:])
    padded[: len(values)] = values
    return torch.stack(all_gather(padded), 1).flatten(0, 1)[:total]


def progress(description: str) -> Callable[[Iterable], Iterable]:
    """Return what wraps an iteration in the main process's progress bar."""
    return partial(
        track, description=description, disable=not is_main_process()
    )
