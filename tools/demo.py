#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""See SCFS learn and start a detector, in minutes on a CPU, no download.

Makes scenes of handwritten digits over photographs, pre-trains a small SCFS
on them, and compares what the trained teacher and a random network know
about scenes that neither has seen. Then trains a small Mask R-CNN twice, from
random weights and from the teacher. One page reports on all three runs. Every
step is a command that you can type yourself; the demo prints each.
"""

import argparse
import json
import time
from pathlib import Path

from command_line import make_parser, setting
from demo_commands import ROOT, Training, console, run, train
from rich.table import Table

PRETRAIN = 'configs/scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
DETECT = 'configs/detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py'
EXAMPLES = """
examples:
  python tools/demo.py
  # other random numbers, in another folder
  python tools/demo.py --seed 1 --work-dir work_dirs/demo-1
  # the same in an environment that is made if missing
  make demo ARGS="--seed 1"
  # fewer epochs, and less to see
  python tools/demo.py --work-dir work_dirs/demo-short \\
      --cfg-options train_cfg.max_epochs=3
"""
RANDOM, TEACHER = 'random', 'SCFS teacher'


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        metavar='N',
        help='seed of everything random (default: %(default)s)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=ROOT / 'work_dirs' / 'demo',
        metavar='FOLDER',
        help='for the runs and pictures (default: work_dirs/demo)',
    )
    parser.add_argument(
        '--data',
        type=Path,
        default=ROOT / 'data' / 'digit-scenes',
        metavar='FOLDER',
        help='folder of the scenes, made if missing (default: '
        'data/digit-scenes)',
    )
    parser.add_argument(
        '--scenes',
        nargs=2,
        type=int,
        default=[3000, 600],
        metavar=('TRAIN', 'UNSEEN'),
        help='number of scenes (default: 3000 600)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=setting,
        default=[],
        metavar='KEY=VALUE',
        help="override settings of the pre-training's config, e.g. "
        'train_cfg.max_epochs=1',
    )
    parser.add_argument(
        '--detector-options',
        nargs='+',
        type=setting,
        default=[],
        metavar='KEY=VALUE',
        help="override settings of the detector's config",
    )
    args = parser.parse_args()
    args.work_dir, args.data = args.work_dir.resolve(), args.data.resolve()
    return args


def compare_views(checkpoint: Path, args: argparse.Namespace) -> dict:
    """Compare a random and the trained network on unseen scenes.

    Returns:
        dict: Figures in percent by network.
    """
    with console.status('comparing the networks on unseen scenes'):
        # After the training, so that --help answers at once.
        import torch
        from demo_views import Scenes, evaluate
        from mmengine.config import Config
        from mmengine.logging import MMLogger
        from mmengine.registry import init_default_scope
        from mmpretrain.registry import MODELS

        from mmscfs.checkpoint import read_checkpoint

        # What the run was, with the settings of --cfg-options.
        cfg = Config.fromfile(args.work_dir / Path(PRETRAIN).name)
        init_default_scope('mmpretrain')
        MMLogger.get_current_instance().setLevel('WARNING')
        cfg.model.data_preprocessor = cfg.data_preprocessor
        scenes = Scenes(args.data, cfg.train_dataloader.dataset.pipeline[1])
        torch.manual_seed(args.seed)
        model = MODELS.build(cfg.model)
        model.init_weights()
        results = {RANDOM: evaluate(model, scenes)}
        model.load_state_dict(read_checkpoint(checkpoint)['state_dict'])
        results[TEACHER] = evaluate(model, scenes)
    run(
        'tools/visualization/vis_search.py',
        *scenes.paths['val'][:304:101],
        *('--checkpoint', checkpoint),
        *('--out', args.work_dir / 'search_maps.png'),
    )
    return results


def compare_detectors(checkpoint: Path, args: argparse.Namespace) -> dict:
    """Train the detector from random weights and from the teacher.

    Returns:
        dict: AP in percent by start.

    Raises:
        SystemExit: A training or its last validation failed.
    """
    options = [
        f'{split}.dataset.data_root={args.data}'
        for split in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    ]
    options += [
        f'{evaluator}.ann_file={args.data}/annotations/instances_val.json'
        for evaluator in ('val_evaluator', 'test_evaluator')
    ]
    options += args.detector_options
    starts = {RANDOM: [], TEACHER: ['--pretrained', str(checkpoint)]}
    trainings = [
        Training(
            f'Mask R-CNN from {name}',
            DETECT,
            args.work_dir / f'mask-rcnn_{name.split()[0].lower()}',
            ['--seed', str(args.seed), *start],
            options,
        )
        for name, start in starts.items()
    ]
    checkpoints = zip(starts, train(*trainings), strict=True)
    run(
        *('tools/visualization/vis_detections.py', DETECT),
        *('--checkpoints', *(f'{name}={path}' for name, path in checkpoints)),
        *('--out', args.work_dir / 'detections.png'),
        *('--cfg-options', *options),
    )
    from mmscfs.results.detection import read_run

    results = {}
    for name, training in zip(starts, trainings, strict=True):
        finished = read_run(training.work_dir)
        if finished.problem:
            raise SystemExit(f'{training.work_dir}: {finished.problem}')
        results[name] = {
            'box AP': finished.scores['AP^b'],
            'box AP50': finished.scores['AP50^b'],
            'mask AP': finished.scores['AP^s'],
        }
    return results


def main() -> None:
    """Run the demo."""
    args = parse_args()
    begin = time.monotonic()
    train_scenes, unseen = args.scenes
    run(
        'tools/dataset_converters/make_digit_scenes.py',
        *('--out', args.data),
        *('--train', train_scenes, '--val', unseen),
    )
    options = [
        f'train_dataloader.dataset.data_root={args.data}',
        *args.cfg_options,
    ]
    (checkpoint,) = train(
        Training(
            'pre-training',
            PRETRAIN,
            args.work_dir,
            ['--seed', str(args.seed)],
            options,
        )
    )
    views = compare_views(checkpoint, args)
    detectors = compare_detectors(checkpoint, args)
    run(
        'tools/analysis_tools/report.py',
        args.work_dir,
        *sorted(args.work_dir.glob('mask-rcnn_*')),
        *('--out', args.work_dir / 'report.html'),
    )
    (args.work_dir / 'demo.json').write_text(
        json.dumps(
            dict(seed=args.seed, views=views, detectors=detectors), indent=2
        )
        + '\n'
    )
    table = Table(
        title=f'{unseen} unseen scenes, seed {args.seed}, '
        f'{time.monotonic() - begin:.0f} s (percent)'
    )
    table.add_column('start')
    for name in (*views[TEACHER], *detectors[TEACHER]):
        table.add_column(name, justify='right')
    for name in (RANDOM, TEACHER):
        figures = (*views[name].values(), *detectors[name].values())
        table.add_row(name, *(f'{value:.1f}' for value in figures))
    console.print(table)
    console.print(
        'recall: how often a random view of a scene finds the other view of '
        'it among all scenes. Minutes of CPU teach that, not yet what a '
        'digit is: see the 20-NN accuracy of classes (chance is 10). AP: of '
        'a small Mask R-CNN after the same short training from either.'
    )
    for name in (
        'report.html',
        'search_maps.png',
        'detections.png',
        checkpoint.name,
    ):
        console.print(args.work_dir / name, highlight=False)


if __name__ == '__main__':
    main()
