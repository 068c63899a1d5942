# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Draw scores over layers, epochs or numbers of annotated images."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmscfs.checkpoint import write_atomically


def top1_by_layer(metrics: Mapping[str, float]) -> dict[str, dict[int, float]]:
    """Return top-1 in percent by layer and k, in the order of ``metrics``.

    Names other than "knn/<layer>_k<k>_top1" are left out.
    """
    found: dict[str, dict[int, float]] = {}
    for name, value in metrics.items():
        if match := re.fullmatch(r'knn/(.+)_k(\d+)_top1', name):
            found.setdefault(match[1], {})[int(match[2])] = value
    return found


def draw_knn_by_layer(metrics: Mapping[str, float], path: Path) -> None:
    """Draw top-1 over the layers, a line for each k (the paper's Fig. 4)."""
    accuracies = top1_by_layer(metrics)
    layers = list(accuracies)
    lines = {
        f'k = {k}': [accuracies[layer][k] for layer in layers]
        for k in accuracies[layers[0]]
    }
    _draw_knn(layers, lines, 'features of', path)


def draw_knn_by_epoch(
    history: Mapping[int, Mapping[str, float]], path: Path
) -> None:
    """Draw top-1 over the epochs, a line for each layer."""
    epochs = sorted(history)
    latest = history[epochs[-1]]
    lines = {}
    for layer in top1_by_layer(latest):
        k = f'{latest["knn/k"]:.0f}'
        name = f'knn/{layer}_k{k}_top1'
        lines[f'{layer}, k = {k}'] = [
            history[epoch].get(name, float('nan')) for epoch in epochs
        ]
    _draw_knn(epochs, lines, 'epoch', path)


def draw_label_curves(
    curves: Mapping[str, Mapping[int, tuple[float, float]]],
    score: str,
    path: Path,
) -> None:
    """Draw a score over the number of annotated images, a line a start.

    The curves have by start and number the mean in percent, and half the
    width of its confidence interval.
    """
    axes = _make_axes('annotated images', f'{score} (%)')
    for i, (start, curve) in enumerate(curves.items()):
        counts = sorted(curve)
        means, halves = zip(*(curve[n] for n in counts), strict=True)
        # Beside each other: bars at the same place would hide each other.
        x = [n * 1.02**i for n in counts]
        axes.errorbar(x, means, halves, marker='o', capsize=3, label=start)
    counts = sorted({n for curve in curves.values() for n in curve})
    axes.set_xscale('log')
    axes.set_xticks(counts, [f'{n:,}' for n in counts])
    axes.minorticks_off()
    _save(axes, path)


def _draw_knn(
    x: Sequence, lines: Mapping[str, Sequence], x_label: str, path: Path
) -> None:
    axes = _make_axes(x_label, 'k-NN top-1 accuracy (%)')
    for label, values in lines.items():
        axes.plot(x, values, marker='o', label=label)
    if x_label == 'epoch':
        axes.xaxis.get_major_locator().set_params(integer=True)
    _save(axes, path)


def _make_axes(x_label: str, y_label: str) -> Axes:
    axes = Figure(figsize=(6, 4), layout='constrained').add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    return axes


def _save(axes: Axes, path: Path) -> None:
    axes.legend(frameon=False)
    content = io.BytesIO()
    axes.get_figure().savefig(content, dpi=150, format=path.suffix[1:])
    write_atomically(path, content.getvalue())
