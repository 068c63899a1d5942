#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Compare the checkpoints of a pre-training without labels.

Sends the same views of some training images through the backbone of every
checkpoint in a run's folder and writes a table for each layer: RankMe and
LiDAR (higher is better), alpha-ReQ (nearest to 1 is better), and the terms of
DSE with DSE itself, normalized over the run's checkpoints, if there are three
(higher is better, within this run only). The best of each column has a mark.
The figures are those that RepresentationHook logs. What they can tell:
docs/en/evaluation.md.
"""

import argparse
import math
import re
from pathlib import Path

from command_end import commanded
from command_line import (
    add_cfg_options,
    add_counts,
    add_network_option,
    add_out_folder,
    gather,
    make_parser,
    read_config,
)
from command_paths import folder

EXAMPLES = """
examples:
  # all checkpoints of a run, by 256 of its training images
  python tools/score_checkpoints.py work_dirs/scfs_r50
  # by images of another folder, and more of them
  python tools/score_checkpoints.py work_dirs/scfs_r50 --number 1000 \\
      --cfg-options train_dataloader.dataset.data_root=my/images
"""
# Columns, and what RepresentationHook calls them. DSE is normalized here.
COLUMNS = {
    'RankMe': 'rankme',
    'alpha-ReQ': 'alpha',
    'LiDAR': 'lidar',
    'M_inter': 'dse_inter',
    'M_intra': 'dse_intra',
    'M_dim': 'dse_dim',
    'DSE': 'dse',
}
CHECKPOINT = re.compile(r'(?:best_.+_)?(epoch|iter)_(\d+)\.pth')
NOTE = '* the best of a column (of alpha-ReQ, the nearest to 1)'


def parse_args() -> argparse.Namespace:
    """Parse the command line; a wrong option exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'run', type=folder, metavar='RUN', help='work directory of the run'
    )
    add_counts(
        parser,
        number=('images at most, drawn with one seed', 256, 8),
        views=('global views of each image', 4, 2),
    )
    add_network_option(parser)
    parser.add_argument(
        '--config',
        help='config of the run, a file or mmscfs::NAME (default: the one in '
        'its work directory)',
    )
    add_cfg_options(parser, 'train_dataloader.dataset.data_root=my/images')
    add_out_folder(parser, 'checkpoint_scores')
    return parser.parse_args()


def load(args: argparse.Namespace):
    """Return the run's checkpoints, its model and its data set.

    Raises:
        OSError, ValueError, KeyError: One cannot be read or built.
    """
    from mmengine.config import Config
    from mmengine.device import get_device
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import DATASETS, MODELS

    import mmscfs  # noqa: F401
    from mmscfs.results import read_log

    if args.config:
        cfg = read_config(args.config, args.cfg_options)
    else:
        cfg = Config(read_log(args.run).cfg)
        cfg.merge_from_dict(args.cfg_options or {})
    data = (cfg.get('train_dataloader') or {}).get('dataset')
    if not data or not cfg.get('model'):
        raise ValueError(
            f'the config of {args.run} has no model or no '
            'train_dataloader.dataset: name the work directory of a '
            'pre-training, or its config by --config'
        )
    paths = find_checkpoints(args.run, cfg)
    init_default_scope('mmpretrain')
    model = dict(cfg.model)
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    if model.get('compile'):
        model['compile'] = False  # takes longer than it saves
    return paths, MODELS.build(model).to(get_device()), DATASETS.build(data)


def find_checkpoints(run: Path, cfg) -> list[Path]:
    """Return a run's checkpoints, a best one only if it is the only copy.

    Raises:
        ValueError: The folder has no checkpoint.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    folders = [run]
    if hook.get('out_dir'):
        folders.append(Path(hook['out_dir'], run.resolve().name))
    paths = [path for folder in folders for path in folder.glob('*.pth')]
    found: dict[tuple[str, int], Path] = {}
    for path in sorted(paths, key=lambda path: path.name[:5] == 'best_'):
        if place := CHECKPOINT.fullmatch(path.name):
            found.setdefault((place[1], int(place[2])), path)
    if not found:
        raise ValueError(
            f'{folders[-1]} has no checkpoint epoch_*.pth, iter_*.pth or '
            'best_*.pth: name the work directory of a pre-training'
        )
    return [found[place] for place in sorted(found)]


def make_table(layer: str, found: dict[Path, dict]):
    """Return the table of a layer, from its figures by checkpoint."""
    from mmscfs.evaluation import DSETerms, normalized_dse
    from mmscfs.results.tables import Row, Table

    columns = {
        column: [figures[name] for figures in found.values()]
        for column, name in COLUMNS.items()
        if name in next(iter(found.values()))
    }
    if 'DSE' in columns:
        terms = (columns[name] for name in ('M_inter', 'M_intra', 'M_dim'))
        columns['DSE'] = normalized_dse(
            [DSETerms(*own) for own in zip(*terms, strict=True)]
        )
    rows = [
        Row((path.stem,), {}, str(path), False, digits=3, best=set())
        for path in found
    ]
    for column, values in columns.items():
        # NaN: the layer has collapsed, or too few checkpoints have a DSE.
        ranked = {i: v for i, v in enumerate(values) if math.isfinite(v)}
        for i, value in ranked.items():
            rows[i].scores[column] = value
            if column == 'alpha-ReQ':
                ranked[i] = -abs(value - 1)
            elif column == 'M_intra':
                ranked[i] = -value
        if ranked:
            rows[max(ranked, key=ranked.__getitem__)].best.add(column)
    return Table(layer, NOTE, ('checkpoint',), tuple(COLUMNS), rows)


@commanded('nothing is written')
def main() -> int:
    """Run the tool, return its exit code.

    0: written, 1: writing failed, or a checkpoint has no figures, 2: there
    is nothing to compare.
    """
    args = parse_args()

    from rich.progress import track

    from mmscfs.checkpoint import find_backbone, load_found, read_checkpoint
    from mmscfs.engine.hooks.representation_hook import measure
    from mmscfs.engine.loops.features import choose_backbone
    from mmscfs.results.tables import Summary

    paths, model, dataset = load(args)
    backbone = choose_backbone(model, args.network)

    def score(path: Path) -> dict:
        load_found(
            backbone, find_backbone(read_checkpoint(path), args.network)
        )
        return measure(model, dataset, args.number, args.views, args.network)

    bar = track(paths, 'checkpoints', transient=True)
    found, problems = gather(bar, score)
    if not found:
        raise ValueError(f'no checkpoint can be scored: {problems[0]}')
    tables = [
        make_table(layer, {path: own[layer] for path, own in found.items()})
        for layer in next(iter(found.values()))
    ]
    footer = (
        f'Of {args.views} views of at most {args.number} images. Compare them '
        'within this run.'
    )
    heading = f'Checkpoints of {args.run.name}'
    summary = Summary(heading, footer, tables, problems)
    path = (args.out or args.run) / 'checkpoint_scores.md'
    return summary.publish(path) or int(bool(problems))


if __name__ == '__main__':
    raise SystemExit(main())
