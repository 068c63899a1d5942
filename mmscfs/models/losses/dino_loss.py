# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import torch
from torch import Tensor, nn

from .cosine_logits import CosineLogits
from .functional import student_log_probabilities


class DINOLoss(nn.Module):
    """Cross-entropy between views of one image (SCFS Eqs. 2-4).

    Every teacher view is compared with every student view but itself. The
    paper's sum is taken as the mean over those pairs, as in `DINO
    <https://arxiv.org/abs/2104.14294>`_: 2 (N + 2) - 2 of them for two
    teacher views and N local student views.
    """

    def forward(
        self,
        student_logits: Tensor | CosineLogits,
        targets: Tensor,
        temperature: float,
    ) -> Tensor:
        """Return the mean cross-entropy over all pairs, in nats.

        Args:
            student_logits (Tensor | CosineLogits): Shape (V, B, K); the first
                T views are those that the teacher saw, in the same order.
            targets (Tensor): The teacher's probabilities, shape (T, B, K)
                with 2 <= T <= V, without gradient.
            temperature (float): The student's temperature, > 0.

        Raises:
            ValueError: The shapes do not fit together.
        """
        num_teacher, num_student = len(targets), student_logits.shape[0]
        if (
            not 2 <= num_teacher <= num_student
            or targets.shape[1:] != student_logits.shape[1:]
        ):
            raise ValueError(
                'DINOLoss needs student_logits (V, B, K) and targets '
                '(T, B, K) with 2 <= T <= V, got '
                f'{tuple(student_logits.shape)} and {tuple(targets.shape)}'
            )
        # One product for all pairs: likelihood[t, v] = sum_b P'_t . log P_v
        if isinstance(student_logits, CosineLogits):
            likelihood = student_logits.log_likelihood(targets, temperature)
        else:
            log_p = student_log_probabilities(student_logits, temperature)
            likelihood = torch.einsum('tbk,vbk->tv', targets, log_p)
        others = 1 - torch.eye(
            num_teacher,
            num_student,
            dtype=likelihood.dtype,
            device=likelihood.device,
        )
        pairs = num_teacher * (num_student - 1)
        batch = student_logits.shape[1]
        return -(likelihood * others).sum() / (pairs * batch)
