# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Figures of the backbone's features that tell checkpoints apart."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dataset import BaseDataset
from mmengine.dist import (
    all_reduce,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from mmscfs.datasets.samplers import SampleKey
from mmscfs.evaluation import alpha_req, dse_terms, lidar, rankme
from mmscfs.visualization import evaluating, spread
from mmscfs.visualization.views import find_multi_crop, load_readable

from ..loops.features import (
    choose_backbone,
    gather_rows,
    named_outputs,
    normalize,
    pool,
)
from ..resume.checkpoint_hooks import FIGURES, SafeCheckpointHook
from ..resume.random_states import kept_random_states
from ..runner_access import unwrapped_model

SEED = 2023  # of views and k-means: the same at every measurement
BATCH = 32  # views
LEAST_IMAGES = 8  # a group of DSE
DSE_IMAGES = 64
SIDE = 7  # patches of an image that DSE takes: at most SIDE x SIDE
LEAST_PATCHES = 9  # of an image, for DSE
Figures = dict[str, dict[str, float]]  # by layer and name


@HOOKS.register_module()
class RepresentationHook(Hook):
    """Log figures that need no labels, for choosing a checkpoint.

    Global views of some training images, always the same, go through the
    teacher's backbone in eval mode. For each of its outputs the log has, as
    ``representation/<figure>_<layer>``:

    - ``rankme``, ``alpha`` and ``lidar`` of pooled features (see
      :mod:`mmscfs.evaluation`; the first two of all views as samples),
    - ``dse`` and its terms ``dse_inter``, ``dse_intra`` and ``dse_dim`` of
      patches, at most 7 x 7 of the first view of at most 64 images. This
      ``dse`` has a weight of 1 and is not normalized, as the run is not over;
      ``tools/score_checkpoints.py`` normalizes it. Outputs of less than 3 x 3
      patches have none.

    Measured before the first step, every few epochs, and after the last one,
    by all processes. ``save_best`` of the checkpoint hook may name any of
    these figures; the first weights are no candidate. The training goes on
    as it would without the hook, to the bit.

    The views are kept in memory as uint8: 0.15 MB each at 224 px.

    Args:
        interval (int): Epochs between measurements. Defaults to 10.
        iter_interval (int): Iterations between them in a run that has no
            epochs. Defaults to 5000.
        num_images (int): Images, evenly spread over the data set. Defaults
            to 256.
        num_views (int): Views of each image. Defaults to 4.

    Raises:
        ValueError: A setting is outside its range, the data set has too few
            images, the pipeline has no MultiCrop, a feature is not finite,
            or ``save_best`` names no figure of this hook.

    Example:
        >>> default_hooks = dict(
        ...     representation=dict(type='RepresentationHook'),
        ...     checkpoint=dict(
        ...         save_best='representation/lidar_layer4', rule='greater'
        ...     ),
        ... )
    """

    # A best checkpoint is the state between two epochs: nothing of the next
    # one may have changed it.
    priority = 'HIGHEST'

    def __init__(
        self,
        interval: int = 10,
        iter_interval: int = 5000,
        num_images: int = 256,
        num_views: int = 4,
    ) -> None:
        for name, value, least in (
            ('interval', interval, 1),
            ('iter_interval', iter_interval, 1),
            ('num_images', num_images, LEAST_IMAGES),
            ('num_views', num_views, 2),
        ):
            if type(value) is not int or value < least:
                raise ValueError(
                    f'RepresentationHook: {name}={value!r} must be a whole '
                    f'number >= {least}'
                )
        self.interval = interval
        self.iter_interval = iter_interval
        self.num_images = num_images
        self.num_views = num_views
        self._views: Tensor | None = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Measure if it is due, by epochs."""
        # A run that resumes within an epoch is past that moment.
        begun = getattr(runner.train_loop, 'position', 0)
        if has_epochs(runner) and not begun:
            self.measure_if_due(runner, runner.epoch, self.interval)

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Measure if it is due, by iterations."""
        if not has_epochs(runner):
            self.measure_if_due(runner, runner.iter, self.iter_interval)

    def after_train(self, runner: Runner) -> None:
        """Measure the last weights."""
        step = runner.epoch if has_epochs(runner) else runner.iter
        self.measure_if_due(runner, step, 1)

    def measure_if_due(self, runner: Runner, step: int, interval: int) -> None:
        """Measure and log, and let the checkpoint hook keep the best."""
        if step % interval:
            return
        model = unwrapped_model(runner)
        with kept_random_states():
            if self._views is None:
                dataset = runner.train_dataloader.dataset
                self._views = sample_views(
                    dataset, self.num_images, self.num_views
                )
            found = measure(model, self._views)
        figures = {
            f'{FIGURES}{name}_{layer}': value
            for layer, values in found.items()
            for name, value in values.items()
        }
        if is_main_process():
            runner.visualizer.add_scalars(figures, step=step)
            words = [
                f'{layer} '
                + ', '.join(f'{name} {v:.4g}' for name, v in values.items())
                for layer, values in found.items()
            ]
            runner.logger.info(f'Representation: {"; ".join(words)}')
        if runner.iter:
            offer(runner, figures)


def has_epochs(runner: Runner) -> bool:
    """Whether a run counts epochs."""
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def offer(runner: Runner, figures: dict[str, float]) -> None:
    """Let a checkpoint hook whose ``save_best`` names figures judge them.

    Raises:
        ValueError: It names one that was not measured.
    """
    for hook in runner.hooks:
        if isinstance(hook, SafeCheckpointHook) and hook.wants_figures:
            if unknown := {*hook.key_indicators} - figures.keys():
                raise ValueError(
                    f'default_hooks.checkpoint.save_best={hook.save_best!r}: '
                    f'{", ".join(sorted(unknown))} is not measured; choose '
                    f'from {", ".join(figures)}'
                )
            hook.after_val_epoch(runner, figures)


def sample_views(
    dataset: BaseDataset,
    num_images: int,
    num_views: int,
    seed: int = SEED,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Tensor:
    """Make global views of a sample of images: this process's part.

    An image that cannot be read is replaced as in the training.

    Args:
        dataset (BaseDataset): With a MultiCrop in its pipeline.
        num_images (int): Images of all processes, at most those there are.
        num_views (int): Views q of each image.
        seed (int): Of the views. Defaults to 2023.
        progress (Callable): Wraps the loop over images. Defaults to none.

    Returns:
        Tensor: uint8 (M, q, C, S, S).

    Raises:
        ValueError: The pipeline has no MultiCrop, there are too few images,
            or one cannot be read.
    """
    found = find_multi_crop(dataset)
    if found is None:
        raise ValueError(
            'figures of the representation need a MultiCrop in '
            'train_dataloader.dataset.pipeline: name the config of a '
            'pre-training by several views, and remove RepresentationHook '
            'from others'
        )
    places = spread(len(dataset), num_images)
    least = max(LEAST_IMAGES, get_world_size())
    if len(places) < least:
        raise ValueError(
            f'figures of the representation need at least {least} images '
            f'(8, and one for each process), got {len(places)}: the data set '
            f'has {len(dataset)}, num_images is {num_images}'
        )
    load, crop = found
    crop.num_local = 0
    images = []
    for place in progress(places[get_rank() :: get_world_size()]):
        place, results = load_readable(dataset, load, place)
        views: list[Tensor] = []
        while len(views) < num_views:  # a draw has two
            key = SampleKey(place, seed, len(views))
            views += crop(dict(results, sample_idx=key))['img']
        images.append(torch.stack(views[:num_views]))
    return torch.stack(images)


def measure(
    model: BaseModel,
    views: Tensor,
    network: str | None = None,
    seed: int = SEED,
) -> Figures:
    """Measure a model's representation; every process must call.

    Args:
        model (BaseModel): Has a ``backbone`` and a ``data_preprocessor``.
        views (Tensor): This process's, of :func:`sample_views`.
        network (str, optional): "teacher", "student", or None: the teacher
            where there is one. Defaults to None.
        seed (int): Of k-means. Defaults to 2023.

    Returns:
        Figures: By layer, figures by name.

    Raises:
        ValueError: A feature is not finite, or the figures need more images.
    """
    total = torch.tensor(len(views))
    all_reduce(total)
    layers = {
        name: (
            gather_rows(pooled, int(total)),
            gather_rows(patches, int(total)),
        )
        for name, (pooled, patches) in layer_features(
            model, views, network
        ).items()
    }
    # All processes must end alike.
    answer: list = [None]
    if is_main_process():
        try:
            answer[0] = {
                name: layer_figures(name, pooled, patches, seed)
                for name, (pooled, patches) in layers.items()
            }
        except ValueError as error:
            answer[0] = str(error)
    broadcast_object_list(answer)
    if isinstance(answer[0], str):
        raise ValueError(answer[0])
    return answer[0]


@torch.no_grad()
def layer_features(
    model: BaseModel, views: Tensor, network: str | None = None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what the backbone makes of views, by layer.

    Returns:
        dict[str, tuple[Tensor, Tensor]]: Pooled features (M, q, C), and
        patches of each first view (M, P, C), both float32 on the CPU.
    """
    backbone = choose_backbone(model, network)
    pooled: dict[str, list[Tensor]] = {}
    patches: dict[str, list[Tensor]] = {}
    with evaluating(backbone):
        for part in views.split(max(1, BATCH // views.shape[1])):
            images = normalize(model, part.flatten(0, 1))
            for name, output in named_outputs(backbone, images).items():
                by_image = pool(output).unflatten(0, part.shape[:2])
                pooled.setdefault(name, []).append(by_image.float().cpu())
                first = output[:: part.shape[1]]
                patches.setdefault(name, []).append(
                    spread_patches(first).float().cpu()
                )
    return {
        name: (torch.cat(pooled[name]), torch.cat(patches[name]))
        for name in pooled
    }


def spread_patches(output: Tensor) -> Tensor:
    """Return patches (B, P, C) of maps or tokens, evenly spread.

    P is 0 for vectors (B, C), such as a class token.
    """
    if output.ndim == 2:
        return output[:, None][:, :0]
    if output.ndim == 3:
        return output[:, spread(output.shape[1], SIDE**2)]
    rows, columns = (spread(side, SIDE) for side in output.shape[2:])
    return output[:, :, rows][..., columns].flatten(2).mT


def layer_figures(
    layer: str, features: Tensor, patches: Tensor, seed: int
) -> dict[str, float]:
    """Return the figures of a layer, from pooled features and patches.

    Raises:
        ValueError: A feature is not finite, or there are too few.
    """
    try:
        samples = features.flatten(0, 1)
        figures = dict(
            rankme=rankme(samples),
            alpha=alpha_req(samples),
            lidar=lidar(features),
        )
        if patches.shape[1] >= LEAST_PATCHES:
            chosen = patches[spread(len(patches), DSE_IMAGES)]
            terms = dse_terms(F.normalize(chosen, dim=-1), seed=seed)
            figures['dse'] = terms.dse
            for name, value in terms._asdict().items():
                figures[f'dse_{name}'] = value
    except ValueError as error:
        raise ValueError(f'{layer}: {error}') from error
    return figures
