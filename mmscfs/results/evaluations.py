# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What result files say, as tables need it."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from .origin import ABLATED, Origin
from .paper import IMAGES, Entry
from .result_files import PROTOCOLS, Result

# What SimCLR and BYOL measure by the mean over classes.
PER_CLASS = ('aircraft', 'pets')


def read_entry(
    path: Path, r: Result, variant: str = '', seed: int | None = None
) -> Entry:
    """Return what a result file says; in a sweep, of a variant and seed.

    Example:
        >>> read_entry(path, read_result(path)).scores['score']
        65.5
    """
    known = dict(r.pretraining)
    method = known.pop('method', None)
    origin = Origin(
        method,
        known.pop('epochs', None),
        known.pop('batch_size', None),
        known.pop('dataset', None) or '',
        r.network,
        known,
        '' if method else r.checkpoint or '',
    )
    scores = {k: v for k, v in r.metrics.items() if v is not None}
    name = PROTOCOLS[r.protocol]
    if name == 'accuracy/top1' and r.dataset in PER_CLASS:
        name = 'single-label/recall'
    problem = _unfinished(r)
    if name in scores:
        scores['score'] = scores[name]
    else:
        problem = problem or (
            f'its metrics lack a number for the score of {r.protocol}'
        )
    part = _part(r)
    facts = _recipe(origin) | dict(
        protocol=r.protocol,
        dataset=r.dataset,
        part=part,
        data=f'{r.dataset}, {part}' if part else r.dataset,
        backbone=r.backbone,
    )
    source = str(path.parent / r.checkpoint if r.checkpoint else path)
    if variant:  # the sweep's table lies beside its runs
        source = path.parent.name
    start: Hashable = str(r.pretraining), r.backbone
    if r.checkpoint:
        start = path.parent, r.checkpoint, r.network, r.backbone
    return Entry(
        *(origin, facts, scores, source, str(path), start),
        *(problem, variant, seed),
    )


def _recipe(origin: Origin) -> dict[str, Any]:
    """Return what the paper's ablations vary, as its tables name it."""
    recipe = origin.recipe if origin.method in ABLATED else {}
    names = ('num_local', 'search', 'search_views')
    facts = {name: recipe.get(name) for name in names}
    if scale := recipe.get('local_scale'):
        facts['local_scale'] = '-'.join(f'{value:g}' for value in scale)
    if layers := recipe.get('search_layers'):
        facts['search layers'] = ', '.join(f'Res{i + 1}' for i in layers)
    return facts


def _part(r: Result) -> str:
    """Say which part of the data set it is of, "" if all or unknown."""
    totals = IMAGES.get(f'{r.dataset} {r.protocol}', IMAGES.get(r.dataset))
    words = ('training', 'validation')
    counts = (r.settings.get(name) for name in ('train_images', 'val_images'))
    return ', '.join(
        f'{count} of {total} {word} images'
        for count, total, word in zip(
            counts, totals or (None, None), words, strict=True
        )
        if count and total and count != total
    )


def _unfinished(r: Result) -> str:
    """Say how far an evaluation's training is, "" if it is at its end."""
    for name, unit in (('max_epochs', 'epochs'), ('max_iters', 'iterations')):
        total = r.settings.get(name)
        trained = r.epoch is not None and r.protocol != 'knn'
        if trained and total and r.epoch < total:
            return f'unfinished: {r.epoch} of {total} {unit}'
    return ''
