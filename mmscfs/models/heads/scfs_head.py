# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence
from typing import Any

from mmengine.model import ModuleList
from mmpretrain.registry import MODELS
from torch import Tensor

from ..losses.functional import entropy, teacher_probabilities
from ..utils import TeacherCenter
from .dino_head import DINOHead


@MODELS.register_module()
class SCFSHead(DINOHead):
    """DINO's loss on the last layer and a search loss on each search layer.

    The total is their plain sum (SCFS Eqs. 10 and 11). Each search layer has
    a centre of its own, which follows its global teacher outputs; targets of
    the search term are sharpened but not centred, as in the release.

    Args:
        layer_names (Sequence[str]): Names of the search layers in the log,
            shallow to deep. Defaults to ('layer2', 'layer3', 'layer4').
        search_channels (int): Width D of the search projectors' outputs.
            Defaults to 256.
        search_loss (dict): Config of the loss of one layer. Defaults to
            ``FeatureSearchLoss``.
        **kwargs: Those of :class:`DINOHead`.
    """

    def __init__(
        self,
        layer_names: Sequence[str] = ('layer2', 'layer3', 'layer4'),
        search_channels: int = 256,
        search_loss: dict | None = None,
        center_momentum: float = 0.9,
        **kwargs: Any,
    ) -> None:
        super().__init__(center_momentum=center_momentum, **kwargs)
        self.layer_names = tuple(layer_names)
        self.search_loss = MODELS.build(
            search_loss or dict(type='FeatureSearchLoss')
        )
        self.search_centers = ModuleList(
            TeacherCenter(search_channels, center_momentum)
            for _ in self.layer_names
        )

    def loss(  # type: ignore[override]  # of more inputs
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        student_global: Sequence[Tensor],
        teacher_global: Sequence[Tensor],
        student_search: Sequence[Tensor] | None = None,
        teacher_search: Sequence[Tensor] | None = None,
        pair_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return every term of the total by name, and the health figures.

        The sequences have one tensor a search layer.

        Args:
            student_logits (Tensor): Shape (V, B, K), global views first.
            teacher_logits (Tensor): Shape (2, B, K).
            student_global (Sequence[Tensor]): Shape (2, B, D).
            teacher_global (Sequence[Tensor]): Shape (2, B, D).
            student_search (Sequence[Tensor], optional): Projections of the N
                views that search, shape (N, B, D). Defaults to None: no
                search, the global terms alone.
            teacher_search (Sequence[Tensor], optional): Projections of what
                they found in G global views, shape (G, N, B, D).
            pair_weights (Tensor, optional): Weights (G, N, B) of the pairs
                of the search terms. Defaults to None: all 1.

        Returns:
            dict[str, Tensor]: DINO's, and for each layer
            ``loss_<layer>_global``, ``<layer>_teacher_entropy`` and, with
            the search, ``loss_<layer>_search``. With weights also
            ``search_pairs``, their mean.
        """
        losses = super().loss(student_logits, teacher_logits)
        for i, (name, center) in enumerate(
            zip(self.layer_names, self.search_centers, strict=True)
        ):
            global_targets = teacher_probabilities(
                teacher_global[i], self.teacher_temp, center.value
            )
            searched = {}
            if teacher_search is not None:
                assert student_search is not None  # the views that search
                searched = dict(
                    student_search=student_search[i],
                    search_targets=teacher_probabilities(
                        teacher_search[i], self.teacher_temp
                    ),
                    pair_weights=pair_weights,
                )
            terms = self.search_loss(
                student_global[i],
                global_targets,
                self.student_temp,
                **searched,
            )
            if self.training:
                center.collect(teacher_global[i])
            for term, value in terms.items():
                losses[f'loss_{name}_{term}'] = value
            losses[f'{name}_teacher_entropy'] = entropy(global_targets)
        if pair_weights is not None:
            losses['search_pairs'] = pair_weights.mean()
        return losses
