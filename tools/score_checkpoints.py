#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Compare the checkpoints of a pre-training without labels.

Sends the same views of some training images through the backbone of every
checkpoint in a run's folder and writes a table for each layer: RankMe and
LiDAR (higher is better), alpha-ReQ (nearest to 1 is better), and the terms of
DSE with DSE itself, normalized over the run's checkpoints, if there are three
(higher is better, within this run only). The best of each column has a mark,
and a sentence says which checkpoint each figure picks. The figures are those
that RepresentationHook logs. What they can tell: docs/en/evaluation.md.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from command_line import (
    add_cfg_options,
    add_network_option,
    at_least,
    make_parser,
    read_config,
)

EXAMPLES = """
examples:
  # all checkpoints of a run, by 256 of its training images
  python tools/score_checkpoints.py work_dirs/scfs_r50
  # by images of another folder, and more of them
  python tools/score_checkpoints.py work_dirs/scfs_r50 \\
      --images my/images --number 1000
"""


def most(value: float) -> float:
    """Return a key that is least for the highest value."""
    return -value


# Columns: what RepresentationHook calls a figure, and a key that is least for
# the best value. DSE is normalized here.
COLUMNS = {
    'RankMe': ('rankme', most),
    'alpha-ReQ': ('alpha', lambda value: abs(value - 1)),
    'LiDAR': ('lidar', most),
    'M_inter': ('dse_inter', most),
    'M_intra': ('dse_intra', float),
    'M_dim': ('dse_dim', most),
    'DSE': ('dse', most),
}
TERMS = ('M_inter', 'M_intra', 'M_dim')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a wrong option exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'run', type=Path, metavar='RUN', help='work directory of the run'
    )
    parser.add_argument(
        '--images',
        metavar='FOLDER',
        help='images at any depth below a folder (default: those that the '
        'run trains on)',
    )
    parser.add_argument(
        '--number',
        type=at_least(8),
        default=256,
        help='images at most, evenly spread (default: %(default)s)',
    )
    parser.add_argument(
        '--views',
        type=at_least(2),
        default=4,
        help='global views of each image (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=at_least(0),
        default=2023,
        help='of the views and of k-means (default: %(default)s)',
    )
    add_network_option(parser)
    parser.add_argument(
        '--device', help='e.g. cpu or cuda:1 (default: the first accelerator)'
    )
    parser.add_argument(
        '--config',
        help='config of the run, a file or mmscfs::NAME (default: the one in '
        'its work directory)',
    )
    add_cfg_options(parser, 'train_dataloader.dataset.data_root=my/images')
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FOLDER',
        help='where to write checkpoint_scores.md and .csv (default: RUN)',
    )
    return parser.parse_args(argv)


def load(args: argparse.Namespace):
    """Return the run's config, its model and its data set.

    Raises:
        OSError, ValueError: One cannot be read or built.
    """
    from mmengine.config import Config
    from mmengine.device import get_device
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import DATASETS, MODELS

    import mmscfs  # noqa: F401
    from mmscfs.datasets.checks.common import leaf_datasets
    from mmscfs.results import read_log

    if args.config:
        cfg = read_config(args.config, args.cfg_options)
    else:
        cfg = Config(read_log(args.run).cfg)
        cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope('mmpretrain')
    settings = cfg.train_dataloader.dataset
    if args.images:
        _, own = next(leaf_datasets(settings))
        settings = dict(
            type='ImageFiles', data_root=args.images, pipeline=own['pipeline']
        )
    model = dict(cfg.model)
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    if model.get('compile'):
        model['compile'] = False  # takes longer than it saves
    try:
        built = MODELS.build(model)
    except KeyError as error:
        raise ValueError(
            f'the model of {args.run} cannot be built ({error}): name its '
            'config by --config, so that its own modules are imported'
        ) from error
    device = args.device or get_device()
    try:
        built = built.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'--device {device}: {error}') from error
    return cfg, built, DATASETS.build(settings)


def find_checkpoints(run: Path, cfg) -> list[Path]:
    """Return a run's checkpoints, a best one only if it is the only copy.

    Raises:
        ValueError: There are none.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    folders = [run]
    if hook.get('out_dir'):
        folders.append(Path(hook['out_dir'], run.resolve().name))
    found: dict[tuple[str, int], Path] = {}
    for pattern in ('epoch_*.pth', 'iter_*.pth', 'best_*.pth'):
        for path in (p for folder in folders for p in folder.glob(pattern)):
            *_, unit, number = f'_{path.stem}'.split('_')
            if number.isdecimal():
                found.setdefault((unit, int(number)), path)
    if not found:
        raise ValueError(
            f'{folders[-1]} has no checkpoint epoch_*.pth, iter_*.pth or '
            'best_*.pth: name the work directory of a pre-training'
        )
    return [found[place] for place in sorted(found)]


def score(args: argparse.Namespace) -> tuple[dict[Path, dict], list[str]]:
    """Return the figures of every checkpoint by layer, and what failed.

    Raises:
        OSError, ValueError: The run, its images or a setting is not usable.
    """
    from functools import partial

    from rich.progress import track

    from mmscfs.checkpoint import find_backbone, load_found, read_checkpoint
    from mmscfs.engine.hooks.representation_hook import measure, sample_views
    from mmscfs.engine.loops.features import choose_backbone

    cfg, model, dataset = load(args)
    paths = find_checkpoints(args.run, cfg)
    backbone = choose_backbone(model, args.network)
    views = sample_views(
        dataset,
        args.number,
        args.views,
        args.seed,
        partial(track, description='views', transient=True),
    )
    found, problems = {}, []
    for path in track(paths, 'checkpoints', transient=True):
        try:
            weights = find_backbone(read_checkpoint(path), args.network)
            load_found(backbone, weights)
            found[path] = measure(model, views, args.network, args.seed)
        except (ValueError, OSError) as error:
            problems.append(f'{path}: {error}')
    if not found:
        raise ValueError(f'no checkpoint can be scored: {problems[0]}')
    return found, problems


def make_tables(found: dict[Path, dict]) -> tuple[list, list[str]]:
    """Return a table for each layer, and what each figure picks."""
    from mmscfs.evaluation import DSETerms, normalized_dse
    from mmscfs.results.tables import Row, Table

    tables, picks = [], {}  # of a figure, the last layer that has it
    for layer in next(iter(found.values())):
        scores = [
            {
                column: figures[layer][name]
                for column, (name, _) in COLUMNS.items()
                if name in figures[layer]
            }
            for figures in found.values()
        ]
        if 'DSE' in scores[0]:
            terms = [
                DSETerms(*(row[name] for name in TERMS)) for row in scores
            ]
            # Of fewer than three, nothing can be normalized.
            normalized = normalized_dse(terms) if len(terms) > 2 else None
            for i, row in enumerate(scores):
                del row['DSE']
                if normalized:
                    row['DSE'] = normalized[i]
        best: dict[Path, set[str]] = {path: set() for path in found}
        for name in scores[0]:
            values = {
                path: COLUMNS[name][1](row[name])
                for path, row in zip(found, scores, strict=True)
                if len(found) > 1 and math.isfinite(row[name])
            }
            if values:
                pick = min(values, key=values.__getitem__)
                best[pick].add(name)
                if name not in TERMS:
                    picks[name] = f'{pick.stem} by {name} ({layer})'
        rows = [
            Row((path.stem,), row, str(path), False, digits=3, best=marks)
            for (path, marks), row in zip(best.items(), scores, strict=True)
        ]
        note = '* the best of a column (of alpha-ReQ, the nearest to 1)'
        tables.append(
            Table(layer, note, ('checkpoint',), tuple(COLUMNS), rows)
        )
    return tables, [*picks.values()]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: written, 1: writing failed, 2: there is nothing to compare.
    """
    args = parse_args(argv)

    # After parsing, so that --help and a wrong option answer at once.
    from mmscfs.results.tables import Summary

    try:
        found, problems = score(args)
        tables, picks = make_tables(found)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    footer = 'There are no two checkpoints to choose from.'
    if picks:
        footer = f'The figures pick: {"; ".join(picks)}.'
    heading = f'Checkpoints of {args.run.name}'
    summary = Summary(heading, footer, tables, problems)
    return summary.publish((args.out or args.run) / 'checkpoint_scores.md')


if __name__ == '__main__':
    raise SystemExit(main())
