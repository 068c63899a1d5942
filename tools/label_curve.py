#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Measure what a pre-training is worth, by the number of annotated images.

Trains a detector from each start, on each number of annotated images, with
each seed, in folders below the work directory. Shows box AP of the validation
at the end with confidence intervals: a table (label_curve.md, .csv and .json),
a plot (label_curve.png), and in words how much AP each start gains on the
first one, and how many annotated images it saves. Run the same command again
to resume: what is done is not repeated, what was interrupted is resumed. A
training that fails is named with its log, and the others continue. More
starts, numbers and seeds may be added later.

A seed draws the images and the weights, the same for all starts: differences
between starts are taken seed by seed. The images of a smaller number are among
those of a larger one, and each has an object to learn. All trainings take the
same number of steps, the config's own or --iterations.

The start "random" has random weights, whatever checkpoint the config names.
Others are NAME=CHECKPOINT, any that --pretrained of tools/train.py takes. With
"{seed}" in its path each seed has another checkpoint: then the intervals
include the chance of the pre-training.
"""

import argparse
import copy
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_end import commanded
from command_line import at_least, make_parser, read_config, read_settings
from command_paths import checkpoint
from jobs import add_run_options, parse_run

if TYPE_CHECKING:
    from mmengine.config import Config
    from plan import Step

    from mmscfs.datasets.subsets import Place
    from mmscfs.results.tables import Summary

EXAMPLES = """
examples:
  # on a CPU: the demo's scenes, random weights against a checkpoint; first only
  # the commands
  python tools/label_curve.py \\
      configs/detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py \\
      --starts random scfs=mmscfs::scfs_resnet18-w16_digit-cards \\
      --images 48 96 200 --seeds 0 1 2 --jobs 2 --dry-run
  # 1, 2, 5 and 10 percent of COCO, on four GPUs, a training on each. This
  # config counts epochs, so its length in steps must be said
  python tools/label_curve.py \\
      configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py \\
      --starts random supervised=resnet50.pth scfs=work_dirs/scfs_r50/epoch_200.pth \\
      --images 1% 2% 5% 10% --iterations 20000 --seeds 0 1 2 3 4 \\
      --devices 0 1 2 3 --cfg-options train_dataloader.batch_size=16
  # a pre-training for each seed, those of tools/sweep.py --seeds 1 2 3
  ... --starts random scfs=work_dirs/sweep_mine/scfs_seed-{seed}/epoch_50.pth \\
      --seeds 1 2 3
"""  # noqa: E501
NOTE = (
    'Box AP in percent, of the validation at the end; 0 of a detector that '
    'finds nothing. Plot: label_curve.png.'
)
RANDOM = 'random'
NAME = re.compile(r'\w[\w.+-]*')  # of a folder
AMOUNT = re.compile(r'[1-9]\d*|\d+(\.\d+)?%')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument('config', help='config file of a detector')
    parser.add_argument(
        '--starts',
        nargs='+',
        type=start,
        required=True,
        metavar='START',
        help='"random", or NAME=CHECKPOINT. The others are compared with the '
        'first',
    )
    parser.add_argument(
        '--images',
        nargs='+',
        type=amount,
        required=True,
        metavar='N',
        help='numbers of annotated images, ascending: 48, or 1%% of all',
    )
    parser.add_argument(
        '--seeds',
        type=at_least(0),
        nargs='+',
        default=[0, 1, 2],
        metavar='N',
        help='train with each of these seeds (default: 0 1 2)',
    )
    parser.add_argument(
        '--iterations',
        type=at_least(1),
        metavar='N',
        help="length of every training in steps (default: the config's; "
        'required if that counts epochs). Schedules follow it',
    )
    add_run_options(parser, 'label_curve_<config>')
    args = parse_run(parser, argv, 'label_curve')
    names = [name for name, _ in args.starts]
    for option, values in (('--starts', names), ('--seeds', args.seeds)):
        for value in values:
            if values.count(value) > 1:
                parser.error(f'{option} {value} is there twice')
    args.starts = dict(args.starts)
    try:
        for seed, path in product(args.seeds, args.starts.values()):
            if path:
                checkpoint(of_seed(path, seed))
    except argparse.ArgumentTypeError as error:
        parser.error(f'argument --starts: {error}')
    return args


def of_seed(path: str, seed: int) -> str:
    """Return the checkpoint that a start has for a seed."""
    return path.replace('{seed}', str(seed))


def start(text: str) -> tuple[str, str | None]:
    """Return the name of a start and its checkpoint; a type of argparse."""
    name, _, path = text.partition('=')
    if not NAME.fullmatch(name) or (name == RANDOM) == bool(path):
        raise argparse.ArgumentTypeError(
            f'{text}: name "random", or NAME=CHECKPOINT with letters, digits '
            'and . + - _ in the name'
        )
    return name, path or None


def amount(text: str) -> str:
    """Check a number or a percentage of images; a type of argparse."""
    if not AMOUNT.fullmatch(text) or float(text.strip('%')) == 0:
        raise argparse.ArgumentTypeError(
            f'{text} must be a whole number >= 1, or a percentage such as 1%'
        )
    return text


def read_detector(args: argparse.Namespace) -> 'Config':
    """Return the config that all trainings share, in steps.

    Raises:
        ValueError: It does not train and validate a detector, or not in
            steps.
    """
    from mmscfs.results import schedule
    from mmscfs.settings.lengths import count_iterations

    settings = read_settings(args.cfg_options)
    length, unit = schedule(read_config(args.config, settings, check=False))
    if unit == 'iterations' and args.iterations:
        length = args.iterations
        settings['train_cfg.max_iters'] = length
    cfg = read_config(args.config, settings, for_training=True)
    needed = ('train_cfg', 'train_dataloader', 'val_evaluator')
    if lacking := [name for name in needed if not cfg.get(name)]:
        raise ValueError(
            f'{args.config} does not train and validate: it lacks '
            f'{", ".join(lacking)}. Name a config of a detector, e.g. one '
            'below configs/detection'
        )
    if cfg.get('load_from'):
        raise ValueError(
            f'load_from={cfg.load_from!r} of {args.config} would replace '
            'every start: set load_from=None by --cfg-options'
        )
    if unit == 'epochs':
        if not args.iterations:
            raise ValueError(
                f'{args.config} trains for {length} epochs, which are fewer '
                'steps with fewer images, so that starts and amounts could '
                'not be told apart from lengths: name a length in steps for '
                'all, e.g. --iterations 20000'
            )
        count_iterations(cfg, args.iterations)
    else:
        cfg.train_cfg.val_interval = length
    return cfg


def check_starts(
    cfg: 'Config', starts: dict[str, str | None], seeds: Sequence[int]
) -> None:
    """Check data and checkpoints as a training does, before the first.

    Raises:
        ValueError: They do not fit the config.
        OSError: A file is missing.
    """
    from mmscfs.checkpoint.pretrained import KEPT
    from mmscfs.datasets.checks import check_data
    from mmscfs.engine import prepare_config, start_from

    cfg = copy.deepcopy(cfg)
    prepare_config(cfg)
    check_data(cfg)
    for name, path in starts.items():
        for own in dict.fromkeys(of_seed(path, s) for s in seeds if path):
            try:
                start_from(copy.deepcopy(cfg), own)
            except ValueError as error:
                raise ValueError(f'--starts {name}: {error}') from error
    KEPT.clear()  # what a training in this process would load


def say(text: str) -> None:
    """Print beside the commands of a dry run."""
    print(text, file=sys.stderr)


def unpretrained(cfg: 'Config') -> list[str]:
    """Return the settings, KEY=VALUE each, that leave no checkpoint in it."""
    from mmscfs.engine.pretrained import pretrained_places

    places = dict(pretrained_places(cfg.model))
    for path, part in places.items():
        if part.get('frozen_stages', -1) >= 0:
            say(
                f'warning: {path}.frozen_stages={part.frozen_stages} keeps '
                'random weights as they are. To train all of every start: '
                f'--cfg-options {path}.frozen_stages=-1 '
                f'{path}.norm_eval=False'
            )
    return [
        f'{path}.{key}=None'
        for path, part in places.items()
        for key in ('init_cfg', 'pretrained')
        if part.get(key)
    ]


def make_steps(
    args: argparse.Namespace, cfg: 'Config', images: Sequence['Place']
) -> tuple[list['Step'], dict[Path, 'Config']]:
    """Return the trainings, and the configs that they need.

    By seeds: the first comparison of all starts comes early.

    Raises:
        ValueError: There are not as many images.
    """
    from plan import Step

    from mmscfs.datasets.subsets import count_images, draw, restrict

    counts = count_images(args.images, len(images))
    say(
        f'{len(images):,} annotated images, of which '
        f'{", ".join(f"{n:,}" for n in counts)}: '
        f'{len(args.starts) * len(counts) * len(args.seeds)} trainings of '
        f'{cfg.train_cfg.max_iters:,} steps'
    )
    if len(args.seeds) == 1:
        say('warning: a single seed has no confidence interval')
    no_checkpoint = unpretrained(cfg) if RANDOM in args.starts else []
    steps, configs = [], {}
    for seed, count in product(args.seeds, counts):
        path = args.work_dir / f'configs/{count}-images_seed-{seed}.py'
        configs[path] = restrict(cfg, draw(images, count, seed))
        for name, weights in args.starts.items():
            more = [] if weights else no_checkpoint
            step = Step(
                name=f'{name}/{path.stem}',
                config=str(path),
                settings=[f'randomness.seed={seed}', *more],
                goal='validation',
                length=cfg.train_cfg.max_iters,
                unit='iterations',
                start=of_seed(weights, seed) if weights else None,
                facts=dict(start=name, images=count, seed=seed),
            )
            steps.append(step)
    return steps, configs


def arrange(
    steps: Sequence['Step'],
    starts: Sequence[str],
    cfg: 'Config',
    title: str,
    plot: Path,
) -> tuple['Summary', dict[str, Any]]:
    """Return the tables, and figures and sentences for the record; plot."""
    from mmscfs.results.detection import read_scores
    from mmscfs.results.label_curves import describe, intervals, make_tables
    from mmscfs.results.tables import Summary

    done = {
        step.name: read_scores(step.metrics, cfg.val_evaluator)
        for step in steps
        if not step.problem
    }
    # VOC's at a single threshold has no other.
    score = 'AP^b'
    if not any(score in found for found in done.values()):
        score = next((k for v in done.values() for k in v), score)
    label = f'box {score.removesuffix("^b")}'
    names = [*starts, *(step.facts['start'] for step in steps)]
    curves: dict[str, dict] = {name: {} for name in names}
    runs = []
    for step in steps:
        if step.name in done:
            name, count, seed = step.facts.values()
            ap = done[step.name].get(score, 0.0)
            curves[name].setdefault(count, {})[seed] = ap
            runs.append(step.facts | dict(checkpoint=step.start, AP=ap))
    first, *others = curves
    sentences = [
        describe(name, curves[name], first, curves[first]) for name in others
    ]
    found = {name: intervals(curve) for name, curve in curves.items()}
    tables = []
    if done:
        from mmscfs.visualization import draw_label_curves

        tables = make_tables(curves, f'{label} of {title}')
        drawn = {
            name: {n: (part.mean, part.half or 0) for n, part in own.items()}
            for name, own in found.items()
            if own
        }
        draw_label_curves(drawn, label, plot)
    summary = Summary(
        f'Label curve: {title}', '\n\n'.join([*sentences, NOTE]), tables, []
    )
    facts = {
        name: {n: part._asdict() for n, part in own.items()}
        for name, own in found.items()
    }
    return summary, dict(
        score=score, curves=facts, sentences=sentences, runs=runs
    )


@commanded('the same command resumes')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: every training is done, 1: some failed, 2: it cannot start, 130:
    stopped.
    """
    args = parse_args(argv)
    cfg = read_detector(args)
    from mmengine.logging import MMLogger
    from plan import Plan

    from mmscfs.checkpoint import write_atomically
    from mmscfs.datasets.subsets import find_annotated

    MMLogger.get_current_instance().setLevel('WARNING')
    check_starts(cfg, args.starts, args.seeds)
    with redirect_stdout(sys.stderr):  # of pycocotools
        images = find_annotated(cfg)
    settings = dict(
        config=args.config,
        cfg_options=args.cfg_options,
        iterations=cfg.train_cfg.max_iters,
        annotated=len(images),
        gpus=args.gpus or 1,
    )
    settings |= {f'--starts {k}': v for k, v in args.starts.items() if v}
    steps, configs = make_steps(args, cfg, images)
    plan = Plan(
        args.work_dir / 'label_curve.json',
        settings,
        steps,
        partial(
            arrange,
            starts=[*args.starts],
            cfg=cfg,
            title=Path(args.config).stem,
            plot=args.work_dir / 'label_curve.png',
        ),
    )
    # Not before the plan has taken the settings: others may be at work there.
    for path, own in configs.items():
        values = own.to_dict().items()
        text = ''.join(f'{key} = {value!r}\n' for key, value in values)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode())
    return plan.carry_out(args)


if __name__ == '__main__':
    raise SystemExit(main())
