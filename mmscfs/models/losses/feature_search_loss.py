# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
from torch import Tensor, nn

from .dino_loss import DINOLoss
from .functional import student_log_probabilities


class FeatureSearchLoss(nn.Module):
    """One search layer's loss (SCFS Eq. 9, and the release's global term).

    ``global_weight`` times the crossed global pairs plus ``search_weight``
    times the cross-entropy between each local view and the features that it
    found in the teacher's global views. The paper's sums are taken as means
    over their terms, and the two weights are those of the authors' release.

    Args:
        global_weight (float): Defaults to 0.5.
        search_weight (float): Defaults to 0.5.

    Raises:
        ValueError: A weight is negative.
    """

    def __init__(
        self, global_weight: float = 0.5, search_weight: float = 0.5
    ) -> None:
        super().__init__()
        for name, weight in (
            ('global_weight', global_weight),
            ('search_weight', search_weight),
        ):
            if weight < 0:
                raise ValueError(
                    f'FeatureSearchLoss: {name}={weight} must be >= 0'
                )
        self.global_weight = global_weight
        self.search_weight = search_weight
        self.global_loss = DINOLoss()

    def forward(
        self,
        student_global: Tensor,
        student_local: Tensor,
        global_targets: Tensor,
        search_targets: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted global term and the weighted search term.

        Args:
            student_global (Tensor): Student logits, shape (2, B, K).
            student_local (Tensor): Student logits, shape (N, B, K).
            global_targets (Tensor): Teacher probabilities of the global
                views, shape (2, B, K).
            search_targets (Tensor): Teacher probabilities of what each local
                view found, shape (G, N, B, K) for G searched global views.
            temperature (float): The student's temperature, > 0.

        Raises:
            ValueError: The shapes do not fit together.
        """
        if search_targets.shape[1:] != student_local.shape:
            raise ValueError(
                'FeatureSearchLoss needs student_local (N, B, K) and '
                'search_targets (G, N, B, K), got '
                f'{tuple(student_local.shape)} and '
                f'{tuple(search_targets.shape)}'
            )
        global_term = self.global_loss(
            student_global, global_targets, temperature
        )
        log_p = student_log_probabilities(student_local, temperature)
        likelihood = torch.einsum('gnbk,nbk->', search_targets, log_p)
        search_term = -likelihood / search_targets[..., 0].numel()
        return (
            self.global_weight * global_term,
            self.search_weight * search_term,
        )
