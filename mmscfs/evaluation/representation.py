# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Figures of features that need no labels, for choosing a checkpoint.

All are computed in float64.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7  # added to each share, as in RankMe's Eq. 1
FIT_RANKS = (6, 100)  # of the eigenvalues that alpha_req fits
# Eigenvalues below this share of the largest are float32's rounding.
ROUNDING = 1e-12
ITERATIONS = 50  # of k-means at most


class DSETerms(NamedTuple):
    """The terms of DSE, each without a unit.

    Attributes:
        inter (float): Distance between pseudo-classes; higher is better.
        intra (float): Radius of pseudo-classes; lower is better.
        dim (float): Effective dimensionality, in [0, 1]; higher is better.
    """

    inter: float
    intra: float
    dim: float

    @property
    def dse(self) -> float:
        """DSE with a weight of 1, not normalized over a run."""
        return self.inter - self.intra + self.dim


def effective_rank(values: Tensor) -> float:
    """Return exp of the entropy of values' shares (RankMe's Eqs. 1 and 2).

    k equal values among zeros give k, up to the constant 1e-7 of Eq. 1.

    Args:
        values (Tensor): Singular values or eigenvalues, not negative, (K,).

    Returns:
        float: In [1, K], NaN if all values are 0.

    Example:
        >>> round(effective_rank(torch.tensor([2.0, 2, 2, 0])), 3)
        3.0
    """
    total = values.sum()
    if not total > 0:
        return math.nan
    shares = values / total + EPSILON
    return math.exp(-(shares * shares.log()).sum().item())


def rankme(features: Tensor) -> float:
    """RankMe: the effective rank of features (arXiv 2210.02885).

    Args:
        features (Tensor): Features of N images, (N, C). They are not
            centered.

    Returns:
        float: In [1, min(N, C)], higher is better; NaN of zeros.

    Raises:
        ValueError: There are fewer than two images, the shape is another, or
            a feature is not finite.
    """
    features = _checked('rankme', features, '(N, C)', 2)
    return effective_rank(torch.linalg.svdvals(features))


def alpha_req(features: Tensor, ranks: tuple[int, int] = FIT_RANKS) -> float:
    """Decay of the eigenspectrum, alpha of alpha-ReQ (arXiv 2202.05808).

    Minus the slope of the line that fits the logarithms of the covariance's
    eigenvalues over those of their ranks, by least squares. Eigenvalues
    below 1e-12 of the largest, which are rounding, are left out.

    Args:
        features (Tensor): Features of N images, (N, C).
        ranks (tuple[int, int]): First and last rank of the fit, counted from
            1; the last one at most min(N - 1, C). Defaults to (6, 100).

    Returns:
        float: Near 1 is best: a smaller one is noise in many directions, a
        larger one is few directions. NaN if fewer than two eigenvalues are
        left to fit.

    Raises:
        ValueError: There are fewer than two ranks to fit, the shape is
            another, or a feature is not finite.
    """
    features = _checked('alpha_req', features, '(N, C)', 2)
    first, last = ranks[0], min(ranks[1], len(features) - 1, features.shape[1])
    if not 1 <= first < last:
        raise ValueError(
            f'alpha_req: ranks={ranks} and features of {len(features)} images '
            f'and {features.shape[1]} channels leave no line to fit: give '
            f'more than {first + 1} images and more than {first} channels'
        )
    values = torch.linalg.svdvals(features - features.mean(0)).square()
    fitted = values[first - 1 : last]
    fitted = fitted[fitted > ROUNDING * values[0]]
    if len(fitted) < 2:
        return math.nan
    rank = torch.arange(first, first + len(fitted), dtype=torch.float64)
    x, y = rank.log(), fitted.cpu().log()
    x, y = x - x.mean(), y - y.mean()
    return -((x @ y) / (x @ x)).item()


def lidar(features: Tensor, delta: float = 1e-4) -> float:
    """LiDAR: the rank of a linear discriminant analysis (arXiv 2312.04000).

    Each image is a class of its own, and its views are the samples: the
    effective rank of the eigenvalues of W^(-1/2) B W^(-1/2), where B is the
    covariance of the images' means and W the mean covariance of an image's
    views, plus delta on the diagonal.

    Args:
        features (Tensor): Features of q views of each of n images,
            (n, q, C).
        delta (float): Defaults to 1e-4, as in the paper.

    Returns:
        float: In [1, min(n - 1, C)], higher is better; NaN if all images
        have the same mean.

    Raises:
        ValueError: There are fewer than two images or two views, the shape
            is another, a feature is not finite, or delta is not positive.
    """
    features = _checked('lidar', features, '(n, q, C)', 2)
    images, views, channels = features.shape
    if views < 2 or not delta > 0:
        raise ValueError(
            f'lidar: needs at least two views of an image, got {views}, and '
            f'delta={delta} > 0'
        )
    means = features.mean(1)
    within = (features - means[:, None]).flatten(0, 1)
    within = within.T @ within / len(within)
    within.diagonal().add_(delta)
    between = (means - means.mean(0)) / math.sqrt(images)
    # With W = L L^T, L^-1 B L^-T has the same eigenvalues.
    root = torch.linalg.cholesky(within)
    whitened = torch.linalg.solve_triangular(root, between.T, upper=False)
    values = torch.linalg.svdvals(whitened).square()
    # The other eigenvalues are zeros; each has its share of Eq. 1.
    return effective_rank(F.pad(values, (0, channels - len(values))))


def kmeans(points: Tensor, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Cluster the points of each of G sets apart, by Lloyd's k-means.

    Starts as k-means++, always the same for a seed. A class that loses its
    last point keeps its center.

    Args:
        points (Tensor): Sets of P points, (G, P, C).
        k (int): Number of classes.
        seed (int): Defaults to 0.

    Returns:
        tuple[Tensor, Tensor]: Centers (G, k, C), and the class of each
        point, int64 (G, P).

    Raises:
        ValueError: k is not in [1, P].
    """
    sets, count, _ = points.shape
    if not 1 <= k <= count:
        raise ValueError(
            f'kmeans: k={k} classes must be at least 1 and at most the number '
            f'of points, {count}'
        )
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(count, (sets, 1), generator=generator)
    centers = points[torch.arange(sets)[:, None], chosen]
    while centers.shape[1] < k:
        nearest = torch.cdist(points, centers).amin(-1).square().cpu()
        # Equal points: any is as good.
        weights = nearest.clamp_min(1e-30)
        chosen = torch.multinomial(weights, 1, generator=generator)
        new = points[torch.arange(sets)[:, None], chosen]
        centers = torch.cat([centers, new], 1)
    for _ in range(ITERATIONS):
        labels = torch.cdist(points, centers).argmin(-1)
        members = F.one_hot(labels, k).to(points.dtype)
        counts = members.sum(1)[..., None]
        means = members.mT @ points / counts.clamp_min(1)
        means = torch.where(counts > 0, means, centers)
        if torch.equal(means, centers):
            break
        centers = means
    return centers, labels


def dse_terms(
    patches: Tensor,
    group: int = 8,
    group_classes: int = 24,
    image_classes: int = 3,
    seed: int = 0,
) -> DSETerms:
    """Return the terms of DSE for features of patches (arXiv 2510.17299).

    K-means gives the patches pseudo-classes, 24 in each group of 8 images
    and 3 in each image, by default as in the authors' code.

    - ``inter``: mean distance of a patch to the nearest center of another
      class of its group.
    - ``intra``: mean radius of a class: the sum of the singular values of
      its n centered patches, over sqrt(max(n - 1, C)); the mean of that of
      groups and of images. Classes of one patch do not count.
    - ``dim``: mean effective rank of one patch an image, over min(B, C):
      from image i the patch (n + i) mod P, for each n.

    The first two are in units of the patches' mean distance from their mean.

    Args:
        patches (Tensor): Features of P patches of B images, (B, P, C), as a
            rule L2-normalized.
        group (int): Images in a group. What is left over is in none.
            Defaults to 8.
        group_classes (int): Classes in a group. Defaults to 24.
        image_classes (int): Classes in an image. Defaults to 3.
        seed (int): Of k-means. Defaults to 0.

    Returns:
        DSETerms: All NaN if all patches are the same.

    Raises:
        ValueError: There are fewer images than a group has, more classes
            than patches, or a patch is not finite.
    """
    patches = _checked('dse_terms', patches, '(B, P, C)', group)
    images, count, channels = patches.shape
    unit = (patches - patches.mean((0, 1))).norm(dim=-1).mean().item()
    groups = patches[: images // group * group]
    groups = groups.reshape(-1, group * count, channels)
    inter, radius = _class_terms(groups, group_classes, seed)
    _, image_radius = _class_terms(patches, image_classes, seed)
    image = torch.arange(images)
    ranks = [
        effective_rank(torch.linalg.svdvals(patches[image, place]))
        for place in (image + torch.arange(count)[:, None]) % count
    ]
    if not unit > 0:
        return DSETerms(math.nan, math.nan, math.nan)
    return DSETerms(
        inter / unit,
        (radius + image_radius) / 2 / unit,
        math.fsum(ranks) / len(ranks) / min(images, channels),
    )


def normalized_dse(terms: Sequence[DSETerms]) -> list[float]:
    """Return the DSE of each checkpoint of one run.

    Each term is normalized over the checkpoints to mean 0 and deviation 1
    (or 0, if it is the same in all). Then DSE = inter - intra + w dim, where
    w is the deviation of inter - intra, so that separation and
    dimensionality weigh the same.

    Args:
        terms (Sequence[DSETerms]): Those of the checkpoints, of one layer.

    Returns:
        list[float]: Higher is better, within this list only. NaN where a
        term is, which does not count for the others.

    Raises:
        ValueError: There are fewer than three. Of two, all that is left of a
            term is which one has more.
    """
    if len(terms) < 3:
        raise ValueError(
            f'normalized_dse: got {len(terms)} checkpoints, but each term is '
            'normalized over those of a run: give at least three'
        )
    values = torch.tensor(terms, dtype=torch.float64)
    is_known = values.isfinite().all(1)
    known = values[is_known]
    deviation = known.std(0, correction=0)
    varies = deviation > ROUNDING * known.abs().sum(0)
    scores = (values - known.mean(0)) / torch.where(varies, deviation, 1)
    scores[:, ~varies] = 0
    inter, intra, dim = scores.T
    separation = inter - intra
    weight = separation[is_known].std(correction=0)
    found = torch.where(is_known, separation + weight * dim, math.nan)
    return found.tolist()


def _class_terms(points: Tensor, k: int, seed: int) -> tuple[float, float]:
    """Return distance between, and radius of, the classes of (G, P, C)."""
    centers, labels = kmeans(points, k, seed)
    others = torch.cdist(points, centers)
    others.scatter_(-1, labels[..., None], math.inf)
    counts = F.one_hot(labels, k).sum(1)
    others.masked_fill_(counts[:, None] == 0, math.inf)
    nearest = others.amin(-1)
    radii = [
        torch.linalg.svdvals(members - members.mean(0)).sum().item()
        / math.sqrt(max(len(members) - 1, points.shape[-1]))
        for of_set, of_labels in zip(points, labels, strict=True)
        for members in (of_set[of_labels == i] for i in range(k))
        if len(members) > 1
    ]
    # A set of equal patches has no other class.
    inter = nearest[nearest.isfinite()].mean().item()
    return inter, math.fsum(radii) / max(len(radii), 1)


def _checked(name: str, values: Tensor, shape: str, least: int) -> Tensor:
    """Return features in float64.

    Raises:
        ValueError: They have another shape, are too few, or not finite.
    """
    if values.ndim != shape.count(',') + 1:
        raise ValueError(
            f'{name}: features must have the shape {shape}, got '
            f'{tuple(values.shape)}'
        )
    if len(values) < least:
        raise ValueError(
            f'{name}: needs features of at least {least} images, got '
            f'{len(values)}'
        )
    finite = values.isfinite().all(-1)
    if not finite.all():
        raise ValueError(
            f'{name}: {int((~finite).sum())} of {finite.numel()} features are '
            'not finite (NaN or infinite): the network has diverged. Use an '
            'earlier checkpoint'
        )
    return values.double()
