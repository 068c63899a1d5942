# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Compare what student and teacher projected; own centers, temperatures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.dist import get_world_size
from mmengine.model import BaseModule, ModuleList
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .losses import (
    LazyCosineLogits,
    at_least_fp32,
    entropy,
    teacher_probabilities,
)


@dataclass
class ProjectedViews:
    """What the projectors made of a batch, for the head to compare.

    B images have V views, the two global ones first. Of these, G are
    searched by N views. A list has one tensor for each search layer.

    Attributes:
        student_logits (LazyCosineLogits | Tensor): Cosines to the K
            prototypes, (V, B, K). DINONeck's are not computed yet.
        teacher_logits (Tensor): Of the global views, (2, B, K).
        student_global_emb (list[Tensor], optional): Projected global maps,
            unit vectors (2, B, D). Defaults to None: there are no search
            layers.
        teacher_global_emb (list[Tensor], optional): The teacher's.
        student_search_emb (list[Tensor], optional): Projected maps of the
            views that search, (N, B, D). Defaults to None: none does.
        teacher_search_emb (list[Tensor], optional): Projections of what
            they found in the teacher's maps, (G, N, B, D).
        pair_weights (Tensor, optional): Weights (G, N, B) of the pairs in
            the search terms. Defaults to None: all 1.

    Example:
        >>> views = ProjectedViews(torch.zeros(6, 4, 8), torch.zeros(2, 4, 8))
        >>> views.student_search_emb is None  # DINO's
        True
    """

    student_logits: LazyCosineLogits | Tensor
    teacher_logits: Tensor
    student_global_emb: list[Tensor] | None = None
    teacher_global_emb: list[Tensor] | None = None
    student_search_emb: list[Tensor] | None = None
    teacher_search_emb: list[Tensor] | None = None
    pair_weights: Tensor | None = None


class TeacherCenter(nn.Module):
    """Moving average of the teacher's outputs, DINO's guard against collapse.

    Outputs are only collected while the loss is computed; the center follows
    them in :func:`update_centers`, when the teacher moves. So accumulated
    batches count as one.

    Args:
        channels (int): Width K of the outputs.
        momentum (float): Share of itself that the center keeps in an update.
            Defaults to 0.9.

    Raises:
        ValueError: ``momentum`` is outside [0, 1].

    Example:
        >>> center = TeacherCenter(channels=2)
        >>> center.collect(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> update_centers([CenterReduction([center])])
        >>> center.value  # 0.9 * 0 + 0.1 * mean
        tensor([0.2000, 0.3000])
    """

    value: Tensor

    def __init__(self, channels: int, momentum: float = 0.9) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f'center_momentum={momentum} must lie in [0, 1]')
        self.momentum = momentum
        self.register_buffer('value', torch.zeros(channels))
        self._collected: Tensor | None = None

    @torch.no_grad()
    def collect(self, logits: Tensor) -> None:
        """Remember the outputs of a batch, shape (..., K)."""
        logits = at_least_fp32(logits).flatten(0, -2)
        self._collected = F.pad(logits.sum(0), (0, 1), value=len(logits))

    def take(self) -> Tensor:
        """Return the sum of the batch's outputs and their number, (K + 1).

        And forget them.
        """
        assert self._collected is not None, 'nothing was collected'
        taken, self._collected = self._collected, None
        return taken


class CenterReduction:
    """What the centers collected of a batch, summed over all processes.

    Takes it from the centers and sums it in the background, with one
    all-reduce for all of them: started before the backward pass, it is done
    after it.

    Args:
        centers (Sequence[TeacherCenter]): The centers; each has collected.

    Example:
        >>> center = TeacherCenter(channels=2)
        >>> center.collect(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> CenterReduction([center]).wait()  # the sums and their number
        tensor([4., 6., 2.])
    """

    @torch.no_grad()
    def __init__(self, centers: Sequence[TeacherCenter]) -> None:
        self.centers = centers
        self._sums = torch.cat([center.take() for center in centers])
        self._work = None
        if get_world_size() > 1:
            self._work = dist.all_reduce(self._sums, async_op=True)

    def wait(self) -> Tensor:
        """Return the sums and numbers of all centers, one after the other."""
        if self._work is not None:
            self._work.wait()
        return self._sums


@torch.no_grad()
def update_centers(
    reductions: Sequence[CenterReduction], skipped: Tensor | None = None
) -> None:
    """Move centers toward the mean output of all processes.

    center = momentum * center + (1 - momentum) * mean.

    Args:
        reductions (Sequence[CenterReduction]): One for each batch since the
            last update. Without any nothing moves.
        skipped (Tensor, optional): A scalar on the device; with 1 centers
            stand still, even if an output was not finite. Defaults to None.
    """
    if not reductions:
        return
    sums = reduce(torch.add, (reduction.wait() for reduction in reductions))
    centers = reductions[0].centers
    parts = sums.split([len(center.value) + 1 for center in centers])
    for center, part in zip(centers, parts, strict=True):
        mean = part[:-1] / part[-1]
        if skipped is not None:
            mean = torch.where(skipped > 0, center.value, mean)
        center.value.lerp_(mean, 1 - center.momentum)


@MODELS.register_module()
class DINOHead(BaseModule):
    """Compare student and teacher; own the center and the temperatures.

    Args:
        num_prototypes (int): Number K of prototypes. Defaults to 65536.
        student_temp (float): Student's temperature tau. Defaults to 0.1.
        teacher_temp (float): Teacher's temperature tau', which
            :class:`TeacherTemperatureHook` moves. Defaults to 0.04.
        center_momentum (float): Defaults to 0.9.
        loss_weight (float): Weight of the contrast between data
            augmentations, L_d. Defaults to 1.
        loss (dict): Config of the loss. Defaults to ``DINOLoss``.

    Raises:
        ValueError: A temperature is not positive, or a weight is negative.

    Example:
        >>> head = DINOHead(num_prototypes=8)
        >>> student, teacher = torch.zeros(6, 4, 8), torch.zeros(2, 4, 8)
        >>> head.loss(ProjectedViews(student, teacher))['loss_dino']  # ln 8
        tensor(2.0794)
    """

    def __init__(
        self,
        num_prototypes: int = 65536,
        student_temp: float = 0.1,
        teacher_temp: float = 0.04,
        center_momentum: float = 0.9,
        loss_weight: float = 1.0,
        loss: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, temperature in (
            ('student_temp', student_temp),
            ('teacher_temp', teacher_temp),
        ):
            if temperature <= 0:
                raise ValueError(
                    f'{type(self).__name__}: {name}={temperature} must be > 0'
                )
        if loss_weight < 0:
            raise ValueError(
                f'{type(self).__name__}: loss_weight={loss_weight} must be '
                '>= 0'
            )
        self.num_prototypes = num_prototypes
        self.student_temp = student_temp
        self.teacher_temp = teacher_temp
        self.loss_weight = loss_weight
        self.dino_loss = MODELS.build(loss or dict(type='DINOLoss'))
        self.center = TeacherCenter(num_prototypes, center_momentum)

    def loss(self, views: ProjectedViews) -> dict[str, Tensor]:
        """Return L_d and the health figures of the last layer.

        Args:
            views (ProjectedViews): Of a batch.

        Returns:
            dict[str, Tensor]: ``loss_dino``, and unsummed
            ``teacher_entropy`` and ``teacher_student_kl`` (nats, means over
            the pairs of the loss) and ``center_norm``.
        """
        targets = teacher_probabilities(
            views.teacher_logits, self.teacher_temp, self.center.value
        )
        cross_entropy = self.dino_loss(
            views.student_logits, targets, self.student_temp
        )
        if self.training:
            self.center.collect(views.teacher_logits)
        # Each teacher view is in as many pairs, so the mean KL over the
        # pairs is the mean cross-entropy less the mean entropy.
        teacher_entropy = entropy(targets)
        return dict(
            loss_dino=self.loss_weight * cross_entropy,
            teacher_entropy=teacher_entropy,
            teacher_student_kl=cross_entropy.detach() - teacher_entropy,
            center_norm=self.center.value.norm(),
        )


@MODELS.register_module()
class SCFSHead(DINOHead):
    """DINO's loss on the last layer and a search loss on each search layer.

    The total is their plain sum (SCFS Eqs. 10 and 11). Each search layer has
    its own center, which follows its global teacher outputs; targets of the
    search term are sharpened but not centered, as in the release.

    Args:
        layer_names (Sequence[str]): Names of the search layers in the log,
            shallow to deep. Defaults to ('layer2', 'layer3', 'layer4').
        search_channels (int): Width D of the search projectors' outputs.
            Defaults to 256.
        search_loss (dict): Config of the loss of one layer. Defaults to
            ``FeatureSearchLoss``.
        **kwargs: Those of :class:`DINOHead`.

    Example:
        >>> head = SCFSHead(['layer4'], search_channels=8, num_prototypes=8)
        >>> logits = torch.zeros(8, 4, 8), torch.zeros(2, 4, 8)
        >>> emb = [torch.zeros(2, 4, 8)], [torch.zeros(2, 4, 8)]
        >>> found = [torch.zeros(6, 4, 8)], [torch.zeros(2, 6, 4, 8)]
        >>> losses = head.loss(ProjectedViews(*logits, *emb, *found))
        >>> [name for name in losses if name.startswith('loss_')]
        ['loss_dino', 'loss_layer4_global', 'loss_layer4_search']
    """

    def __init__(
        self,
        layer_names: Sequence[str] = ('layer2', 'layer3', 'layer4'),
        search_channels: int = 256,
        search_loss: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layer_names = tuple(layer_names)
        self.search_loss = MODELS.build(
            search_loss or dict(type='FeatureSearchLoss')
        )
        self.search_centers = ModuleList(
            TeacherCenter(search_channels, self.center.momentum)
            for _ in self.layer_names
        )

    def loss(self, views: ProjectedViews) -> dict[str, Tensor]:
        """Return every term of the total by name, and the health figures.

        Args:
            views (ProjectedViews): Of a batch, with search layers.

        Returns:
            dict[str, Tensor]: DINO's, and for each layer
            ``loss_<layer>_global``, ``<layer>_teacher_entropy`` and, with
            the search, ``loss_<layer>_search``. With weights also
            ``search_pairs``, their mean.
        """
        losses = super().loss(views)
        assert views.student_global_emb is not None
        assert views.teacher_global_emb is not None
        for i, (name, center) in enumerate(
            zip(self.layer_names, self.search_centers, strict=True)
        ):
            teacher_global_emb = views.teacher_global_emb[i]
            global_targets = teacher_probabilities(
                teacher_global_emb, self.teacher_temp, center.value
            )
            student_search_emb = search_targets = None
            if views.student_search_emb and views.teacher_search_emb:
                student_search_emb = views.student_search_emb[i]
                search_targets = teacher_probabilities(
                    views.teacher_search_emb[i], self.teacher_temp
                )
            terms = self.search_loss(
                views.student_global_emb[i],
                global_targets,
                self.student_temp,
                student_search_emb,
                search_targets,
                views.pair_weights,
            )
            if self.training:
                center.collect(teacher_global_emb)
            for term, value in terms.items():
                losses[f'loss_{name}_{term}'] = value
            losses[f'{name}_teacher_entropy'] = entropy(global_targets)
        if views.pair_weights is not None:
            losses['search_pairs'] = views.pair_weights.mean()
        return losses
