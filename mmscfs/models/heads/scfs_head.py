# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence

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
        **kwargs,
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

    def loss(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        student_global: Sequence[Tensor],
        student_local: Sequence[Tensor],
        teacher_global: Sequence[Tensor],
        teacher_search: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Return every term of the total by name, and the health figures.

        The last four arguments have one tensor a search layer.

        Args:
            student_logits (Tensor): Shape (V, B, K), global views first.
            teacher_logits (Tensor): Shape (2, B, K).
            student_global (Sequence[Tensor]): Shape (2, B, D).
            student_local (Sequence[Tensor]): Shape (N, B, D).
            teacher_global (Sequence[Tensor]): Shape (2, B, D).
            teacher_search (Sequence[Tensor]): Projections of what the local
                views found in G global views, shape (G, N, B, D).

        Returns:
            dict[str, Tensor]: DINO's, and for each layer
            ``loss_<layer>_global``, ``loss_<layer>_search`` and
            ``<layer>_teacher_entropy``.
        """
        losses = super().loss(student_logits, teacher_logits)
        layers = zip(
            self.layer_names,
            self.search_centers,
            student_global,
            student_local,
            teacher_global,
            teacher_search,
            strict=True,
        )
        for name, center, s_global, s_local, t_global, t_search in layers:
            global_targets = teacher_probabilities(
                t_global, self.teacher_temp, center.value
            )
            search_targets = teacher_probabilities(t_search, self.teacher_temp)
            global_term, search_term = self.search_loss(
                s_global,
                s_local,
                global_targets,
                search_targets,
                self.student_temp,
            )
            if self.training:
                center.collect(t_global)
            losses[f'loss_{name}_global'] = global_term
            losses[f'loss_{name}_search'] = search_term
            losses[f'{name}_teacher_entropy'] = entropy(global_targets)
        return losses
