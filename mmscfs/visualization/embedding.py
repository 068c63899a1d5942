# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Features of images as points on a plane."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmscfs.checkpoint import write_atomically

from .sheet import (
    BODY,
    DPI,
    PALETTE,
    color_of,
    points_of,
    render,
    shorten,
)

# With the palette, each of 100 classes has another mark, and each of ten
# another shape and another color.
MARKERS = 'os^Dv*PX<>'
MOST_NAMES = 100  # in the legend
NAMES_A_COLUMN = 25
NAME = 160  # px, the longest name of a class
COMPONENTS = 50  # of PCA before t-SNE
PERPLEXITY = 30
ALIKE = 1e-6  # in units of the features' length


def embed(
    features: np.ndarray, method: str = 'tsne', seed: int = 0
) -> np.ndarray:
    """Put features on a plane, by their directions.

    They are L2-normalized, as k-NN compares them. t-SNE starts from their
    first 50 principal components. Features that are all alike, as those of a
    network that has collapsed, become one point: what rounding leaves between
    them has no structure.

    Args:
        features (np.ndarray): Finite, of shape (N, C), N >= 3.
        method (str): "tsne" or "pca". Defaults to "tsne".
        seed (int): Of t-SNE. Defaults to 0.

    Returns:
        np.ndarray: float64 of shape (N, 2).

    Raises:
        ValueError: There are fewer than three features.

    Example:
        >>> embed(np.random.rand(9, 4), 'pca').shape
        (9, 2)
    """
    count, channels = features.shape
    if count < 3 or channels < 2:
        raise ValueError(
            f'{count} features of {channels} numbers: a plane needs at least '
            '3 of 2; take more images'
        )
    # Slow, and the other pictures do without.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    points = np.asarray(features, np.float64) / np.maximum(lengths, 1e-12)
    components = 2 if method == 'pca' else min(COMPONENTS, count, channels)
    points = PCA(components, random_state=seed).fit_transform(points)
    deviation = points[:, 0].std()
    # scikit-learn's t-SNE ends the process on them, too.
    if deviation < ALIKE:
        return np.zeros((count, 2))
    if method == 'pca':
        return points
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init='pca', random_state=seed)
    return tsne.fit_transform(points / deviation).astype(np.float64)


def draw_embedding(
    points: np.ndarray,
    labels: np.ndarray | None = None,
    classes: Sequence[str] = (),
    title: str = '',
    subtitle: str = '',
) -> np.ndarray:
    """Draw points in the colors of their classes.

    Up to 100 classes each have another mark, by color and shape, and their
    place in the legend. Both directions have one scale. Of points that are
    all the same one is drawn, and what that means.

    Args:
        points (np.ndarray): Shape (N, 2).
        labels (np.ndarray | None): Classes, int (N,); None draws all points
            alike. Defaults to None.
        classes (Sequence[str]): Names of the classes; numbers stand for
            those without. Defaults to none.
        title (str): Defaults to none.
        subtitle (str): Defaults to none.

    Returns:
        np.ndarray: RGB uint8 picture.
    """
    alike = len(points) > 1 and not np.ptp(points, axis=0).any()
    if alike:
        points, labels = points[:1], None
    found = [] if labels is None else np.unique(labels).tolist()
    names = [
        shorten(str(classes[k] if 0 <= k < len(classes) else k), NAME)
        for k in found[:MOST_NAMES]
    ]
    columns = -(-len(names) // NAMES_A_COLUMN)
    figure = Figure((6 + 1.5 * columns, 6.5), DPI, layout='constrained')
    axes = figure.add_subplot(xticks=[], yticks=[])
    plain = dict(loc='left', parse_math=False, wrap=True)
    axes.set_title(title, weight='bold', **plain)
    axes.set_xlabel(subtitle, **plain)
    axes.spines[:].set_color('#cccccc')
    marks = [
        dict(color=color_of(i), marker=marker_of(i)) for i in range(len(found))
    ]
    parts = [points[labels == k] for k in found]
    if labels is None:
        parts, marks = [points], [dict(color=color_of(0))]
    area = float(np.clip(77000 / len(points), 19, 87))  # px
    for part, mark in zip(parts, marks, strict=True):
        axes.scatter(
            *part.T,
            s=area * points_of(1) ** 2,
            alpha=0.75,
            linewidths=points_of(0.4),
            edgecolors='white',
            **mark,
        )
    axes.margins(0.04)
    axes.set_aspect('equal', adjustable='datalim')
    if alike:
        axes.annotate(
            'all features are alike: the network has collapsed',
            points[0],
            (0, -points_of(28)),
            textcoords='offset points',
            ha='center',
            va='top',
        )
    if names:
        rest = len(found) - len(names)
        style = dict(linestyle='', markersize=points_of(10))
        legend = figure.legend(
            handles=[
                Line2D([], [], label=name, **style, **mark)
                for name, mark in zip(names, marks, strict=False)
            ],
            loc='outside right upper',
            ncols=columns,
            frameon=False,
            fontsize=points_of(BODY),
            title=f'and {rest} more classes' if rest else None,
            columnspacing=0.8,
            handletextpad=0.2,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return render(figure)


def marker_of(index: int) -> str:
    """Return the shape of a class."""
    return MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]


def write_points(
    path: str | Path,
    points: np.ndarray,
    paths: Sequence[str],
    labels: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Write a table of points as CSV: image, label, class, x, y.

    Raises:
        OSError: It cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['image', 'label', 'class', 'x', 'y'])
    for i, (image, (x, y)) in enumerate(zip(paths, points, strict=True)):
        label, name = None if labels is None else int(labels[i]), ''
        if label is not None and 0 <= label < len(classes):
            name = classes[label]
        writer.writerow([image, label, name, f'{x:.6g}', f'{y:.6g}'])
    # Names of files have the bytes that they have.
    write_atomically(path, text.getvalue().encode(errors='surrogateescape'))
