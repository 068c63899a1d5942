# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Draw k-NN accuracies that ``KNNLoop`` logged."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure


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
    _draw(layers, lines, 'features of', path)


def draw_knn_by_epoch(
    history: Mapping[int, Mapping[str, float]], path: Path
) -> None:
    """Draw top-1 over the epochs, a line for each layer.

    Args:
        history (Mapping[int, Mapping[str, float]]): The metrics by epoch.
        path (Path): File to write.
    """
    epochs = sorted(history)
    latest = history[epochs[-1]]
    lines = {}
    for layer in top1_by_layer(latest):
        k = f'{latest["knn/k"]:.0f}'
        name = f'knn/{layer}_k{k}_top1'
        lines[f'{layer}, k = {k}'] = [
            history[epoch].get(name, float('nan')) for epoch in epochs
        ]
    _draw(epochs, lines, 'epoch', path)


def _draw(
    x: Sequence, lines: Mapping[str, Sequence], x_label: str, path: Path
) -> None:
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.add_subplot()
    for label, values in lines.items():
        axes.plot(x, values, marker='o', label=label)
    if x_label == 'epoch':
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel=x_label, ylabel='k-NN top-1 accuracy (%)')
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
