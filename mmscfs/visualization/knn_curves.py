# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Draw k-NN accuracies that ``KNNLoop`` logged."""

import re
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
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
    figure, axes = _new_figure()
    for k in accuracies[layers[0]]:
        values = [accuracies[layer][k] for layer in layers]
        axes.plot(layers, values, marker='o', label=f'k = {k}')
    axes.set_xlabel('features of')
    _finish(figure, axes, path)


def draw_knn_by_epoch(
    history: Mapping[int, Mapping[str, float]], path: Path
) -> None:
    """Draw top-1 over the epochs, a line for each layer.

    Args:
        history (Mapping[int, Mapping[str, float]]): The metrics by epoch.
        path (Path): File to write.
    """
    figure, axes = _new_figure()
    epochs = sorted(history)
    latest = history[epochs[-1]]
    for layer in top1_by_layer(latest):
        name = f'knn/{layer}_k{latest["knn/k"]:.0f}_top1'
        values = [history[epoch].get(name, float('nan')) for epoch in epochs]
        label = f'{layer}, k = {latest["knn/k"]:.0f}'
        axes.plot(epochs, values, marker='o', label=label)
    axes.set_xlabel('epoch')
    axes.xaxis.get_major_locator().set_params(integer=True)
    _finish(figure, axes, path)


def _new_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 4), layout='constrained')
    return figure, figure.add_subplot()


def _finish(figure: Figure, axes: Axes, path: Path) -> None:
    axes.set_ylabel('k-NN top-1 accuracy (%)')
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
