# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
from torch import Tensor, nn

from .dino_loss import DINOLoss
from .functional import student_log_probabilities


class FeatureSearchLoss(nn.Module):
    """One search layer's loss (SCFS Eq. 9, and the release's global term).

    ``global_weight`` times the crossed global pairs plus ``search_weight``
    times the cross-entropy between each searching view and the features that
    it found in the teacher's global views. The paper's sums are taken as means
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
        global_targets: Tensor,
        temperature: float,
        student_search: Tensor | None = None,
        search_targets: Tensor | None = None,
        pair_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name: "global", and "search" if given.

        Args:
            student_global (Tensor): Student logits, shape (2, B, K).
            global_targets (Tensor): Teacher probabilities of the global
                views, shape (2, B, K).
            temperature (float): The student's temperature, > 0.
            student_search (Tensor, optional): Student logits of the N views
                that search, shape (N, B, K). Defaults to None: no search.
            search_targets (Tensor, optional): Teacher probabilities of what
                each of them found, shape (G, N, B, K) for G searched views.
            pair_weights (Tensor, optional): Weights of the search term's
                pairs, shape (G, N, B); its mean is over all pairs all the
                same. Defaults to None: all 1.

        Raises:
            ValueError: The shapes do not fit together.
        """
        global_term = self.global_loss(
            student_global, global_targets, temperature
        )
        terms = {'global': self.global_weight * global_term}
        if student_search is None:
            return terms
        assert search_targets is not None, 'student_search needs them'
        if search_targets.shape[1:] != student_search.shape:
            raise ValueError(
                'FeatureSearchLoss needs student_search (N, B, K) and '
                'search_targets (G, N, B, K), got '
                f'{tuple(student_search.shape)} and '
                f'{tuple(search_targets.shape)}'
            )
        log_p = student_log_probabilities(student_search, temperature)
        likelihood = torch.einsum('gnbk,nbk->gnb', search_targets, log_p)
        if pair_weights is not None:
            likelihood = likelihood * pair_weights
        terms['search'] = self.search_weight * -likelihood.mean()
        return terms
