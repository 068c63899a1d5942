# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Cross-entropies between a student's views and a teacher's (Eqs. 1-4, 9)."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Numbers in the largest temporary: on a CPU it stays in the cache.
CHUNK_NUMBERS = {'cpu': 1 << 20}
DEFAULT_CHUNK_NUMBERS = 1 << 24


def at_least_fp32(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or unchanged if it is already wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def teacher_probabilities(
    logits: Tensor, temperature: float, center: Tensor | None = None
) -> Tensor:
    """Sharpen, and center on request, the teacher's outputs (Eq. 1).

    Args:
        logits (Tensor): Outputs of shape (..., K).
        temperature (float): The teacher's temperature, > 0.
        center (Tensor, optional): Subtracted before the softmax, broadcast
            to (..., K). Defaults to None: sharpening only.

    Returns:
        Tensor: Probabilities of shape (..., K), at least float32, without
        gradient.
    """
    logits = at_least_fp32(logits.detach())
    if center is not None:
        logits = logits - center
    return F.softmax(logits / temperature, dim=-1)


def student_log_probabilities(logits: Tensor, temperature: float) -> Tensor:
    """Return log P of Eq. 1 for outputs of shape (..., K), in >= float32."""
    return F.log_softmax(at_least_fp32(logits) / temperature, dim=-1)


def entropy(probabilities: Tensor) -> Tensor:
    """Return the mean entropy, in nats, of distributions (..., K)."""
    return torch.special.entr(probabilities).sum(-1).mean()


class LazyCosineLogits(NamedTuple):
    """Cosines of embeddings and prototypes, not yet computed.

    There are V B K of them, hundreds of megabytes for 65536 prototypes and
    more, so a loss computes them for a chunk of prototypes at a time. The
    products are divided by the prototypes' lengths, which saves a normalized
    copy of the largest weight of the model. fp16 lacks the range for that
    and gets a chunk of unit vectors.

    Attributes:
        embeddings (Tensor): Unit vectors of V views of B images, (V, B, C).
        prototypes (Tensor): Vectors of any length, shape (K, C).
        lengths (Tensor): Their lengths, all > 0, shape (K,); the gradient
            needs no graph of them.

    Example:
        >>> embeddings = torch.tensor([[[0.6, 0.8]]])  # one view, one image
        >>> prototypes = torch.tensor([[2.0, 0.0], [0.0, 0.5]])
        >>> lengths = prototypes.norm(dim=1)
        >>> logits = LazyCosineLogits(embeddings, prototypes, lengths)
        >>> logits.shape, logits.compute()
        (torch.Size([1, 1, 2]), tensor([[[0.6000, 0.8000]]]))
    """

    embeddings: Tensor
    prototypes: Tensor
    lengths: Tensor

    @property
    def shape(self) -> torch.Size:
        """The shape (V, B, K) that they would have."""
        return torch.Size([*self.embeddings.shape[:-1], len(self.prototypes)])

    def compute(self) -> Tensor:
        """Return all of them, shape (V, B, K).

        At least float32, under autocast too: the teacher's temperature
        magnifies what half precision rounds off.
        """
        with torch.autocast(self.embeddings.device.type, enabled=False):
            products = (
                at_least_fp32(self.embeddings)
                @ at_least_fp32(self.prototypes).mT
            )
        return products.div_(self.lengths)

    def log_likelihood(self, targets: Tensor, temperature: float) -> Tensor:
        """Return sum_b P'_t . log P_v of each pair of views.

        Args:
            targets (Tensor): Probabilities P', shape (T, B, K), without
                gradient.
            temperature (float): Of the softmax that makes P of the cosines.

        Returns:
            Tensor: Shape (T, V), at least float32.
        """
        return _LogLikelihood.apply(*self, targets, temperature)


class DINOLoss(nn.Module):
    """Cross-entropy between views of one image (SCFS Eqs. 2-4).

    Every teacher view is compared with every student view but itself. The
    paper's sum is taken as the mean over those pairs, as in `DINO
    <https://arxiv.org/abs/2104.14294>`_: 2 (N + 2) - 2 of them for two
    teacher views and N local student views.

    Example:
        >>> student = torch.zeros(3, 4, 8)  # three views of four images
        >>> targets = torch.full((2, 4, 8), 1 / 8)
        >>> DINOLoss()(student, targets, temperature=0.1)  # ln 8
        tensor(2.0794)
    """

    def forward(
        self,
        student_logits: LazyCosineLogits | Tensor,
        targets: Tensor,
        temperature: float,
    ) -> Tensor:
        """Return the mean cross-entropy over all pairs, in nats.

        Args:
            student_logits (LazyCosineLogits | Tensor): Shape (V, B, K); the
                first T views are those that the teacher saw, in the same
                order.
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
        if isinstance(student_logits, LazyCosineLogits):
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

    Example:
        >>> emb, targets = torch.zeros(2, 4, 8), torch.ones(2, 4, 8) / 8
        >>> local_emb, found = torch.zeros(6, 4, 8), torch.ones(2, 6, 4, 8) / 8
        >>> FeatureSearchLoss()(emb, targets, 0.1, local_emb, found)
        {'global': tensor(1.0397), 'search': tensor(1.0397)}
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
        student_global_emb: Tensor,
        global_targets: Tensor,
        temperature: float,
        student_search_emb: Tensor | None = None,
        search_targets: Tensor | None = None,
        pair_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name: "global", and "search" if given.

        Args:
            student_global_emb (Tensor): The student's outputs for the global
                views, shape (2, B, D).
            global_targets (Tensor): Teacher probabilities of the global
                views, shape (2, B, D).
            temperature (float): The student's temperature, > 0.
            student_search_emb (Tensor, optional): The student's outputs for
                the N views that search, shape (N, B, D). Defaults to None:
                no search.
            search_targets (Tensor, optional): Teacher probabilities of what
                each of them found, shape (G, N, B, D) for G searched views.
            pair_weights (Tensor, optional): Weights of the search term's
                pairs, shape (G, N, B); its mean is over all pairs all the
                same. Defaults to None: all 1.

        Raises:
            ValueError: The shapes do not fit together.
        """
        global_term = self.global_loss(
            student_global_emb, global_targets, temperature
        )
        terms = {'global': self.global_weight * global_term}
        if student_search_emb is None:
            return terms
        assert search_targets is not None, 'student_search_emb needs them'
        if search_targets.shape[1:] != student_search_emb.shape:
            raise ValueError(
                'FeatureSearchLoss needs student_search_emb (N, B, D) and '
                'search_targets (G, N, B, D), got '
                f'{tuple(student_search_emb.shape)} and '
                f'{tuple(search_targets.shape)}'
            )
        log_p = student_log_probabilities(student_search_emb, temperature)
        likelihood = torch.einsum('gnbk,nbk->gnb', search_targets, log_p)
        if pair_weights is not None:
            likelihood = likelihood * pair_weights
        terms['search'] = self.search_weight * -likelihood.mean()
        return terms


class _LogLikelihood(Function):
    """``LazyCosineLogits.log_likelihood``, a chunk of prototypes at a time.

    The backward pass computes the cosines again. Products run in autocast's
    precision, everything else in at least float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        prototypes: Tensor,
        lengths: Tensor,
        targets: Tensor,
        temperature: float,
    ) -> Tensor:
        device = embeddings.device.type
        dtype = embeddings.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        rows = embeddings.flatten(0, 1).to(dtype)
        shape = embeddings.shape[:2]
        log_sum = targets.new_full((len(rows),), -torch.inf)
        likelihood = targets.new_zeros(len(targets), shape[0])
        with torch.autocast(device, enabled=False):
            for chunk in _chunks(prototypes, len(rows)):
                typed, divisor = _typed(
                    prototypes[chunk], lengths[chunk], dtype
                )
                logits = at_least_fp32(rows @ typed.mT)
                logits /= divisor * temperature
                log_sum = torch.logaddexp(log_sum, logits.logsumexp(-1))
                likelihood += torch.einsum(
                    'tbk,vbk->tv',
                    targets[..., chunk],
                    logits.unflatten(0, shape),
                )
        # Targets sum to 1, so log P = logits - log_sum is that in the mean.
        likelihood -= log_sum.unflatten(0, shape).sum(1)
        ctx.save_for_backward(
            embeddings, prototypes, lengths, targets, log_sum
        )
        ctx.temperature, ctx.dtype = temperature, dtype
        return likelihood

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        embeddings, prototypes, lengths, targets, log_sum = ctx.saved_tensors
        temperature, dtype = ctx.temperature, ctx.dtype
        shape = embeddings.shape[:2]
        rows = embeddings.flatten(0, 1).to(dtype)
        of_view = grad.sum(0).repeat_interleave(shape[1])[:, None]
        grad_rows = torch.zeros_like(rows, dtype=targets.dtype)
        needed = ctx.needs_input_grad[1]
        grad_prototypes = torch.empty_like(prototypes) if needed else None
        for chunk in _chunks(prototypes, len(rows)):
            part, length = prototypes[chunk], lengths[chunk]
            typed, divisor = _typed(part, length, dtype)
            cosines = at_least_fp32(rows @ typed.mT).div_(divisor)
            # d likelihood / d logits = sum_t grad (P'_t - P_v)
            wanted = torch.einsum('tv,tbk->vbk', grad, targets[..., chunk])
            given = (cosines / temperature).sub_(log_sum[:, None]).exp_()
            slope = wanted.flatten(0, 1).addcmul_(given, of_view, value=-1)
            slope /= divisor * temperature
            grad_rows += slope.to(dtype) @ typed
            if grad_prototypes is not None:
                # Turning a prototype counts, stretching it does not.
                along = torch.einsum('rk,rk->k', slope, cosines)
                along /= length
                piece = grad_prototypes[chunk]
                torch.mul(part, -along[:, None], out=piece)
                piece += slope.to(dtype).mT @ rows
                if divisor is not length:
                    piece *= (divisor / length)[:, None]
        grad_rows = grad_rows.to(embeddings.dtype).unflatten(0, shape)
        return grad_rows, grad_prototypes, None, None, None


def _typed(
    prototypes: Tensor, lengths: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return prototypes for products, and what the products are divided by.

    In fp16 the prototypes are unit vectors and the products are divided by 1:
    short ones would vanish, and their gradients overflow.
    """
    if dtype != torch.float16:
        return prototypes.to(dtype), lengths
    unit = torch.empty_like(prototypes, dtype=dtype)
    torch.div(prototypes, lengths[:, None], out=unit)
    return unit, torch.ones_like(lengths)


def _chunks(prototypes: Tensor, rows: int) -> Iterator[slice]:
    """Yield places of prototypes (K, C) whose logits are small enough."""
    numbers = CHUNK_NUMBERS.get(prototypes.device.type, DEFAULT_CHUNK_NUMBERS)
    size = max(1, numbers // max(rows, prototypes.shape[1]))
    for start in range(0, len(prototypes), size):
        yield slice(start, start + size)
