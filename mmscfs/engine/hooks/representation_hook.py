# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Figures of the backbone's features that tell checkpoints apart."""

from collections import defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from mmscfs.datasets.subsets import draw
from mmscfs.evaluation import alpha_req, dse_terms, lidar, rankme
from mmscfs.visualization import spread

from ..loops.features import pool
from ..meeting import on_first_process
from ..resume.checkpoint_hooks import FIGURES, SafeCheckpointHook
from ..runner_access import unwrapped_model
from .recurring_hook import SEED, RecurringHook, view_outputs

LEAST_IMAGES = 8  # a group of DSE
DSE_IMAGES = 64
LEAST_PATCHES, PATCHES = 9, 49  # of an image, for DSE


@HOOKS.register_module()
class RepresentationHook(RecurringHook):
    """Log figures that need no labels, for choosing a checkpoint.

    Global views of some training images, always the same, go through the
    teacher's backbone in eval mode. For each of its outputs the log has, as
    ``representation/<figure>_<layer>``:

    - ``rankme``, ``alpha`` and ``lidar`` of pooled features (see
      :mod:`mmscfs.evaluation`; the first two of all views as samples),
    - ``dse`` and its terms ``dse_inter``, ``dse_intra`` and ``dse_dim`` of
      patches, at most 49 of the first view of at most 64 images. This
      ``dse`` has a weight of 1 and is not normalized, as the run is not over;
      ``tools/score_checkpoints.py`` normalizes it. Outputs of fewer than 9
      patches have none.

    Measured before the first step, every few epochs, and after the last one,
    by the main process. ``save_best`` of the checkpoint hook may name any of
    these figures; the first weights do not count. The training goes on
    as it would without the hook, to the bit.

    Args:
        num_images (int): Training images, drawn with one seed. Defaults to
            256.
        num_views (int): Views of each image. Defaults to 4.
        **kwargs: ``interval`` and ``iter_interval`` of
            :class:`RecurringHook`.

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

    least_images = LEAST_IMAGES

    def __init__(
        self, num_images: int = 256, num_views: int = 4, **kwargs: Any
    ) -> None:
        super().__init__(num_images, **kwargs)
        self.num_views = num_views

    def look(self, runner: Runner, step: int, epoch: int) -> None:
        """Measure and log, and let the checkpoint hook keep the best."""
        found = on_first_process(
            measure,
            unwrapped_model(runner),
            runner.train_dataloader.dataset,
            self.num_images,
            self.num_views,
        )
        figures = {
            f'{FIGURES}{name}_{layer}': value
            for layer, values in found.items()
            for name, value in values.items()
        }
        if is_main_process():
            self.log(runner, figures, step, epoch)
            words = [
                f'{layer} '
                + ', '.join(f'{name} {v:.4g}' for name, v in values.items())
                for layer, values in found.items()
            ]
            runner.logger.info(f'Representation: {"; ".join(words)}')
        for hook in runner.hooks:
            if isinstance(hook, SafeCheckpointHook):
                hook.after_figures(runner, figures, step > 0)


def measure(*args: Any, **kwargs: Any) -> dict[str, dict[str, float]]:
    """Return the figures of a model by layer and name.

    The arguments are those of :func:`view_outputs`.

    Raises:
        ValueError: There are too few images, the pipeline has no MultiCrop,
            or a feature is not finite.
    """
    found: dict[str, dict[str, float]] = {}
    for layer, (pooled, patches) in collect(*args, **kwargs).items():
        samples = pooled.flatten(0, 1)
        try:
            found[layer] = dict(
                rankme=rankme(samples),
                alpha=alpha_req(samples),
                lidar=lidar(pooled),
            )
            if patches.shape[1] >= LEAST_PATCHES:
                terms = dse_terms(patches)
                found[layer]['dse'] = terms.dse
                for name, value in terms._asdict().items():
                    found[layer][f'dse_{name}'] = value
        except ValueError as error:
            raise ValueError(f'{layer}: {error}') from error
    return found


def collect(
    model: BaseModel,
    dataset: BaseDataset,
    num_images: int,
    num_views: int,
    network: str | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return pooled features (M, num_views, C) and patches, by layer.

    Those are (B, P, C) of the first view of B images, L2-normalized. Both
    are float32 on the CPU.

    Raises:
        ValueError: There are too few images, or no MultiCrop.
    """
    parts = defaultdict(list)
    for outputs in view_outputs(
        model, dataset, num_images, num_views, network
    ):
        for layer, output in outputs.items():
            pooled = pool(output).unflatten(0, (-1, num_views))
            patches = patches_of(output[::num_views])
            parts[layer].append((pooled.float().cpu(), patches.float().cpu()))
    found = {}
    for layer, own in parts.items():
        pooled, patches = map(torch.cat, zip(*own, strict=True))
        patches = patches[draw(range(len(patches)), DSE_IMAGES, SEED)]
        found[layer] = pooled, F.normalize(patches, dim=-1)
    images = len(pooled) if found else 0
    if images < LEAST_IMAGES:
        raise ValueError(
            f'figures without labels need at least {LEAST_IMAGES} images that '
            f'can be read, got {images} of {len(dataset)} in the data set'
        )
    return found


def patches_of(output: Tensor) -> Tensor:
    """Return patches (B, P, C) of maps, tokens or a vector, evenly spread."""
    if output.ndim == 4:
        output = output.flatten(2).mT
    elif output.ndim == 2:
        output = output[:, None]
    return output[:, spread(output.shape[1], PATCHES)]
