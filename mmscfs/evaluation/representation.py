# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Figures of features that need no labels, for choosing a checkpoint.

All are computed in float64 on the CPU.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7  # added to each share, as in RankMe's Eq. 1
FIRST, LAST = 4, 100  # ranks that alpha_req fits, as in the authors' code
# Eigenvalues below this share of the largest are float32's rounding.
ROUNDING = 1e-12
GROUP, GROUP_CLASSES, IMAGE_CLASSES = 8, 24, 3  # of DSE's authors' code


class DSETerms(NamedTuple):
    """The terms of DSE, each without a unit."""

    inter: float  #: Distance between pseudo-classes; higher is better.
    intra: float  #: Radius of pseudo-classes; lower is better.
    dim: float  #: Effective dimensionality, in [0, 1]; higher is better.

    @property
    def dse(self) -> float:
        """DSE with a weight of 1, not normalized over a run."""
        return self.inter - self.intra + self.dim


def rankme(features: Tensor) -> float:
    """RankMe: the effective rank of features (arXiv 2210.02885, Eqs. 1, 2).

    That is exp of the entropy of the singular values' shares. The features
    are not centered.

    Args:
        features (Tensor): Features of N images, (N, C).

    Returns:
        float: In [1, min(N, C)], higher is better; NaN of zeros.

    Raises:
        ValueError: There are fewer than two images, the shape is another, or
            a feature is not finite.

    Example:
        >>> round(rankme(torch.eye(5)), 3)
        5.0
    """
    features = _checked('rankme', features, '(N, C)', 2)
    return _effective_rank(torch.linalg.svdvals(features))


def alpha_req(features: Tensor) -> float:
    """Decay of the eigenspectrum, alpha of alpha-ReQ (arXiv 2202.05808).

    Minus the slope of a line through the logarithms of the covariance's
    eigenvalues over those of their ranks, from rank 4 to rank 100 or the last
    one. The squares of its errors are weighted by 1 / rank, as in the
    authors' code. Eigenvalues below 1e-12 of the largest are rounding and
    left out.

    Args:
        features (Tensor): Features of N images, (N, C).

    Returns:
        float: Best near 1: less is noise in many directions, more is few
        directions. NaN if fewer than two eigenvalues are left to fit, as
        for N < 6 or C < 5.

    Raises:
        ValueError: There are fewer than two images, the shape is another, or
            a feature is not finite.
    """
    features = _checked('alpha_req', features, '(N, C)', 2)
    values = torch.linalg.svdvals(features - features.mean(0)).square()
    # Centered, N images have N - 1 directions.
    fitted = values[FIRST - 1 : min(LAST, len(features) - 1)]
    fitted = fitted[fitted > ROUNDING * values[0]]
    if len(fitted) < 2:
        return math.nan
    rank = torch.arange(FIRST, FIRST + len(fitted), dtype=torch.float64)
    weight, x = 1 / rank, rank.log()
    x = x - weight @ x / weight.sum()
    return -(((weight * x) @ fitted.log()) / ((weight * x) @ x)).item()


def lidar(features: Tensor, delta: float = 1e-4) -> float:
    """LiDAR: the rank of a linear discriminant analysis (arXiv 2312.04000).

    Each image is a class, and its views are the samples: the effective rank
    of the eigenvalues of W^(-1/2) B W^(-1/2). B is the covariance of the
    images' means, W the mean covariance of an image's views, plus delta on
    the diagonal.

    Args:
        features (Tensor): Features of q views of each of n images,
            (n, q, C).
        delta (float): Defaults to 1e-4, as in the paper.

    Returns:
        float: In [1, min(n - 1, C)], higher is better; NaN if all images
        have the same mean.

    Raises:
        ValueError: There are fewer than two images or two views, the shape
            is another, or a feature is not finite.
    """
    features = _checked('lidar', features, '(n, q, C)', 2)
    images, views, channels = features.shape
    if views < 2:
        raise ValueError(
            f'lidar: needs at least two views of an image, got {views}'
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
    return _effective_rank(F.pad(values, (0, channels - len(values))))


def dse_terms(patches: Tensor) -> DSETerms:
    """Return the terms of DSE for features of patches (arXiv 2510.17299).

    K-means gives the patches pseudo-classes, 24 in each group of 8 images
    and 3 in each image, as in the authors' code.

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
            rule L2-normalized. Images beyond a multiple of 8 are in no group.

    Returns:
        DSETerms: All NaN if all patches are the same.

    Raises:
        ValueError: There are fewer than 8 images, fewer patches than
            classes, or a patch is not finite.
    """
    patches = _checked('dse_terms', patches, '(B, P, C)', GROUP)
    images, count, channels = patches.shape
    unit = (patches - patches.mean((0, 1))).norm(dim=-1).mean().item()
    if not unit > ROUNDING * patches.norm(dim=-1).mean():
        return DSETerms(math.nan, math.nan, math.nan)
    groups = [
        _split(part.flatten(0, 1), GROUP_CLASSES)
        for part in patches.split(GROUP)
        if len(part) == GROUP
    ]
    own = [_split(points, IMAGE_CLASSES) for points in patches]
    distances = torch.cat([_distances(classes) for classes in groups])
    image = torch.arange(images)
    ranks = [
        _effective_rank(torch.linalg.svdvals(patches[image, place]))
        for place in (image + torch.arange(count)[:, None]) % count
    ]
    return DSETerms(
        distances[distances.isfinite()].mean().item() / unit,
        (_radius(groups) + _radius(own)) / 2 / unit,
        math.fsum(ranks) / count / min(images, channels),
    )


def normalized_dse(terms: Sequence[DSETerms]) -> list[float]:
    """Return the DSE of each checkpoint of one run, of one layer.

    Each term is normalized over the checkpoints to mean 0 and deviation 1
    (or 0, if it is the same in all). Then DSE = inter - intra + w dim, where
    w is the deviation of inter - intra, so that separation and
    dimensionality weigh the same.

    Returns:
        list[float]: Higher is better, within this list only. NaN where a
        term is, which does not count for the others; all NaN of fewer than
        three checkpoints, as two leave nothing of a term but their order.
    """
    values = torch.tensor(terms, dtype=torch.float64)
    is_known = values.isfinite().all(1)
    known = values[is_known]
    if len(known) < 3:
        return [math.nan] * len(terms)
    deviation = known.std(0, correction=0)
    varies = deviation > ROUNDING * known.abs().sum(0)
    scores = (values - known.mean(0)) / torch.where(varies, deviation, 1)
    scores[:, ~varies] = 0
    inter, intra, dim = scores.T
    separation = inter - intra
    weight = separation[is_known].std(correction=0)
    return torch.where(is_known, separation + weight * dim, math.nan).tolist()


def _effective_rank(values: Tensor) -> float:
    """Return exp of the entropy of values' shares, NaN of zeros."""
    total = values.sum()
    if not total > 0:
        return math.nan
    shares = values / total + EPSILON
    return math.exp(-(shares * shares.log()).sum().item())


def _split(points: Tensor, count: int) -> list[Tensor]:
    """Split points (P, C) into classes, by k-means of a fixed seed."""
    from sklearn.cluster import KMeans  # slow, and other runs do without

    found = KMeans(count, n_init=1, random_state=0).fit_predict(points.numpy())
    labels = torch.from_numpy(found)
    return [points[labels == label] for label in labels.unique()]


def _distances(classes: Sequence[Tensor]) -> Tensor:
    """Return points' distances to the nearest other class, or infinity."""
    centers = torch.stack([members.mean(0) for members in classes])
    distances = torch.cdist(torch.cat([*classes]), centers)
    sizes = torch.tensor([len(members) for members in classes])
    own = torch.arange(len(classes)).repeat_interleave(sizes)
    return distances.scatter_(1, own[:, None], math.inf).amin(1)


def _radius(sets: Sequence[Sequence[Tensor]]) -> float:
    """Return the mean radius of the classes of all sets."""
    radii = [
        torch.linalg.svdvals(members - members.mean(0)).sum().item()
        / math.sqrt(max(len(members) - 1, members.shape[1]))
        for classes in sets
        for members in classes
        if len(members) > 1
    ]
    return math.fsum(radii) / max(len(radii), 1)


def _checked(name: str, values: Tensor, shape: str, least: int) -> Tensor:
    """Return features in float64 on the CPU.

    Raises:
        ValueError: They have another shape, are too few, or not finite.
    """
    if values.ndim != shape.count(',') + 1 or len(values) < least:
        raise ValueError(
            f'{name}: needs features {shape} of at least {least} images, got '
            f'{tuple(values.shape)}'
        )
    finite = values.isfinite().all(-1)
    if not finite.all():
        raise ValueError(
            f'{name}: {int((~finite).sum())} of {finite.numel()} features are '
            'not finite (NaN or infinite): the network has diverged. Use an '
            'earlier checkpoint'
        )
    return values.cpu().double()
