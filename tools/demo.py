#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""See SCFS learn, and what it is worth to a detector with few annotations.

Makes scenes of handwritten digits over photographs, without any download.
Pre-trains a small SCFS on them for two minutes, without labels: how often does
it find the other view of an image (view recall) before and after? The package
holds weights of DINO and SCFS that were trained longer, on cards with one
digit each. Mask R-CNN then starts from random weights and from these, learns
from 48 annotated scenes, and is evaluated on 200 unseen ones. A table,
pictures and a report show what came of it.

Every step is a command that you can type yourself; the demo prints each.
If it is stopped, the same command resumes it.
"""

import argparse
import json
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from command_line import at_least, make_parser, setting
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
PRETRAIN = 'configs/scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
DETECT = 'configs/detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py'
SHIPPED = 'mmscfs::{}_resnet18-w16_digit-cards'
STARTS = dict(
    random='random',
    DINO=f'DINO={SHIPPED.format("dino")}',
    SCFS=f'SCFS={SHIPPED.format("scfs")}',
)
EPOCHS = 5  # of the pre-training
# A detector's training: scenes, steps, and images a step.
ANNOTATED, STEPS, BATCH = 48, 400, 4
SCORES = {'box AP': 'AP^b', 'mask AP': 'AP^s'}
EXAMPLES = """
examples:
  python tools/demo.py
  # mean and standard error of five seeds; the pre-training is not repeated
  python tools/demo.py --seeds 0 1 2 3 4
  # the same in an environment that is made if missing
  make demo ARGS="--seeds 0 1 2 3 4"
  # see it learn for longer, in another folder
  python tools/demo.py --work-dir work_dirs/demo-long \\
      --cfg-options train_cfg.max_epochs=14
"""
console = Console()


def place(text: str) -> Path:
    """Return a path as the commands get it, which run in the repository."""
    path = Path(text).resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=at_least(0),
        default=[0],
        metavar='N',
        help='train the detectors with each of these seeds; the first is '
        'that of the pre-training (default: 0)',
    )
    parser.add_argument(
        '--work-dir',
        type=place,
        default=Path('work_dirs', 'demo'),
        metavar='FOLDER',
        help='for the runs and pictures (default: work_dirs/demo)',
    )
    parser.add_argument(
        '--data',
        type=place,
        default=Path('data', 'digit-scenes'),
        metavar='FOLDER',
        help='folder of the scenes, made if missing (default: '
        'data/digit-scenes)',
    )
    parser.add_argument(
        '--scenes',
        nargs=2,
        type=at_least(1),
        default=[3000, 200],
        metavar=('TRAIN', 'UNSEEN'),
        help='number of scenes to make (default: 3000 200); an existing '
        'folder must have as many',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=setting,
        default=[],
        metavar='KEY=VALUE',
        help="override settings of the pre-training's config, e.g. "
        f'train_cfg.max_epochs=14 (default: {EPOCHS})',
    )
    parser.add_argument(
        '--detector-options',
        nargs='+',
        type=setting,
        default=[],
        metavar='KEY=VALUE',
        help="override settings of the detector's config",
    )
    return parser.parse_args()


def detector_folder(args: argparse.Namespace, start: str, seed: int) -> Path:
    """Return where label_curve.py trains a detector."""
    name = f'{ANNOTATED}-images_seed-{seed}'
    return args.work_dir / 'detectors' / start / name


def commands(args: argparse.Namespace) -> Iterator[list[Any]]:
    """Yield the words of each command, after those before it have run."""
    yield [
        'tools/dataset_converters/make_digit_scenes.py',
        *('--out', args.data),
        *('--train', args.scenes[0], '--val', args.scenes[1]),
    ]
    yield [
        *('tools/train.py', PRETRAIN, '--work-dir', args.work_dir),
        *['--resume'] * (ROOT / args.work_dir / 'last_checkpoint').is_file(),
        *('--seed', args.seeds[0], '--cfg-options'),
        f'train_dataloader.dataset.data_root={args.data}',
        *(f'train_cfg.max_epochs={EPOCHS}', *args.cfg_options),
    ]
    annotations = f'{args.data}/annotations/instances_val.json'
    yield [
        *('tools/label_curve.py', DETECT),
        *('--work-dir', args.work_dir / 'detectors'),
        *('--starts', *STARTS.values(), '--images', ANNOTATED),
        # Three on two cores: a training leaves its own idle now and then.
        *('--seeds', *args.seeds, '--jobs', 3, '--cfg-options'),
        f'train_cfg.max_iters={STEPS}',
        f'train_dataloader.batch_size={BATCH}',
        *(
            f'{split}_dataloader.dataset.data_root={args.data}'
            for split in ('train', 'val', 'test')
        ),
        *(f'{s}_evaluator.ann_file={annotations}' for s in ('val', 'test')),
        *args.detector_options,
    ]

    from mmscfs.results import newest_checkpoint  # imports torch

    scenes = sorted((ROOT / args.data / 'val').glob('*/*.jpg'))
    folders = {
        start: detector_folder(args, start, args.seeds[0]) for start in STARTS
    }
    learned, random, scfs = (
        place(str(newest_checkpoint(ROOT / folder)))
        for folder in (args.work_dir, folders['random'], folders['SCFS'])
    )
    yield [
        'tools/visualization/vis_search.py',
        *(place(str(path)) for path in scenes[:: math.ceil(len(scenes) / 4)]),
        *('--checkpoint', learned, '--out', args.work_dir / 'search_maps.png'),
    ]
    config = f'configs/{ANNOTATED}-images_seed-{args.seeds[0]}.py'
    yield [
        'tools/visualization/vis_detections.py',
        args.work_dir / 'detectors' / config,
        *('--checkpoints', f'random={random}', f'SCFS={scfs}'),
        *('--out', args.work_dir / 'detections.png'),
    ]
    yield [
        *('tools/analysis_tools/report.py', args.work_dir, *folders.values()),
        *('--out', args.work_dir / 'report.html'),
    ]


def run(words: list[Any]) -> tuple[str, float]:
    """Show and run a command of ours; return its name and seconds.

    Raises:
        SystemExit: It failed, and has said why.
    """
    tool, *options = map(str, words)
    text = f'$ {shlex.join(["python", tool, *options])}'
    console.print(
        text, style='bold', highlight=False, markup=False, soft_wrap=True
    )
    begin = time.monotonic()
    command = [sys.executable, tool, *options]
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(code)
    return Path(tool).stem, time.monotonic() - begin


def read_figures(args: argparse.Namespace) -> dict:
    """Return what the runs reached, in percent.

    Returns:
        dict: ``view_recall`` before and after the pre-training, and the
        scores of the ``detectors`` by start, one for each seed.
    """
    from mmscfs.results import read_log
    from mmscfs.results.detection import read_run

    lines = read_log(ROOT / args.work_dir).lines
    name = 'view_recall/top1'
    recall = [line[name] for line in lines if name in line]
    detectors = {}
    for start in STARTS:
        found = [
            read_run(ROOT / detector_folder(args, start, seed)).scores
            for seed in args.seeds
        ]
        detectors[start] = {
            name: [scores.get(column, 0.0) for scores in found]
            for name, column in SCORES.items()
        }
    return dict(
        view_recall=dict(before=recall[0], after=recall[-1]),
        detectors=detectors,
    )


def in_words(values: list[float], form: str = '') -> str:
    """Return a mean, with the standard error if there are several values."""
    text = f'{mean(values):{form}.1f}'
    if len(values) > 1:
        text += f' ± {stdev(values) / math.sqrt(len(values)):.1f}'
    return text


def show(args: argparse.Namespace, figures: dict) -> None:
    """Print the figures as a table, and what they do and do not tell."""
    recall, detectors = figures['view_recall'], figures['detectors']
    console.print(
        f'The pre-training of this demo: view recall {recall["before"]:.1f} '
        f'% before, {recall["after"]:.1f} % after.'
    )
    seeds = ', '.join(map(str, args.seeds))
    table = Table(
        title=f'Mask R-CNN, {ANNOTATED} annotated scenes, '
        f'{args.scenes[1]} unseen, seed {seeds} (percent)'
    )
    for name in ('start', *SCORES):
        table.add_column(name)
    for start, scores in detectors.items():
        table.add_row(start, *map(in_words, scores.values()))
    for base in ('random', 'DINO'):
        pairs = (
            zip(values, detectors[base][name], strict=True)
            for name, values in detectors['SCFS'].items()
        )
        gains = ([ap - other for ap, other in pair] for pair in pairs)
        cells = [in_words(values, '+') for values in gains]
        table.add_row(f'SCFS less {base}', *cells)
    console.print(table)
    console.print(
        '±: standard error of the mean, of a difference that of the '
        'differences of equal seeds.'
        if len(args.seeds) > 1
        else 'One seed cannot tell which start is better: other scenes and '
        'other random numbers move AP by points. --seeds 0 1 2 3 4 adds four '
        'seeds, and gives mean and standard error.'
    )


def main() -> None:
    """Run the demo."""
    args = parse_args()
    begin = time.monotonic()
    seconds = dict(map(run, commands(args)))
    figures = read_figures(args)
    show(args, figures)
    seconds['all'] = time.monotonic() - begin
    facts = dict(seeds=args.seeds, annotated=ANNOTATED, unseen=args.scenes[1])
    text = json.dumps(facts | figures | dict(seconds=seconds), indent=2)
    from mmscfs.checkpoint import write_atomically

    path = ROOT / args.work_dir / 'demo.json'
    write_atomically(path, f'{text}\n'.encode())
    for name in ('report', 'search_maps', 'detections', 'demo'):
        suffix = dict(report='html', demo='json').get(name, 'png')
        console.print(args.work_dir / f'{name}.{suffix}', highlight=False)
    console.print(f'{seconds["all"]:.0f} s')


if __name__ == '__main__':
    main()
