#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Train any config: pre-training here, or one of mmpretrain's or mmdet's."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from command_end import errors_in_one_line
from command_line import (
    add_common_options,
    add_pretrained_options,
    make_parser,
    merge_common,
    parse,
    read_config,
)
from command_paths import config, existing

if TYPE_CHECKING:
    from mmengine.config import Config

EXAMPLES = """
examples:
  # the paper's SCFS on 8 GPUs
  tools/dist_train.sh configs/scfs_r50.py 8
  # your own folder of images, on one device
  python tools/train.py configs/scfs_r50.py --auto-scale-lr --cfg-options \\
      train_dataloader.dataset.data_root=my/images \\
      train_dataloader.dataset.data_prefix=''
  # a detector that starts from the teacher's backbone
  python tools/train.py \\
      configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py \\
      --pretrained work_dirs/scfs_r50/epoch_200.pth
  # linear probing of the same
  python tools/train.py \\
      configs/classification/linear/resnet50_8xb32-linear-coslr-100e_in1k.py \\
      --pretrained work_dirs/scfs_r50/epoch_200.pth
  # a step in bf16 instead of the config's precision, for GPUs from Ampere on
  python tools/train.py configs/scfs_r50.py --precision bf16
  # resume exactly from the newest whole checkpoint of the work directory
  python tools/train.py configs/scfs_r50.py --resume

Ctrl-C saves the run after the next iteration and ends it: start it again with
--resume. SIGTERM and SIGUSR1 do so too, with exit code 75
(docs/en/clusters.md).
"""
# What --precision sets.
PRECISIONS = tuple(
    f'optim_wrapper.{n}' for n in ('type', 'dtype', 'precision')
)
# How often torchrun or Slurm has started the run again.
RESTARTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')


def is_restart() -> bool:
    """Whether a launcher started the same command before."""
    return any(int(os.environ.get(name) or 0) > 0 for name in RESTARTS)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'config',
        type=config,
        help='config file, or mmscfs:: and a name below configs',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint, or without a name from the newest '
        'whole one in the work directory (from the start if it has none). '
        'After an automatic restart the newest checkpoint wins',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help="replace another run's checkpoints in the work directory; "
        'without it training does not start there',
    )
    add_pretrained_options(parser)
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        '--precision',
        choices=['auto', 'fp32', 'fp16', 'bf16'],
        help='what a step computes in, whatever the config sets: fp32 (on a '
        'GPU with TF32, unless env_cfg.tf32=False), fp16 with loss scaling, '
        'bf16, for GPUs from Ampere on, or auto: fp16 on a GPU, on a CPU the '
        "faster of bf16 and fp32 (default: the config's)",
    )
    precision.add_argument(
        '--amp',
        action='store_const',
        const='auto',
        dest='precision',
        help='the same as --precision auto',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate with this run's batch size",
    )
    parser.add_argument(
        '--seed', type=int, help="seed of the run (default: the config's)"
    )
    add_common_options(
        parser,
        'train_dataloader.batch_size=64 multi_crop.num_local=6',
    )
    args = parse(parser)
    is_named = args.resume not in (None, 'auto')
    # A restarted run may have removed an outdated checkpoint.
    if is_named and not is_restart():
        try:
            existing(args.resume, 'checkpoint')
        except argparse.ArgumentTypeError as error:
            parser.error(f'--resume: {error}')
    if args.overwrite and args.resume:
        parser.error('--overwrite and --resume are mutually exclusive')
    if args.network and not args.pretrained:
        parser.error('--network requires --pretrained')
    for name in PRECISIONS if args.precision else ():
        if name in (args.cfg_options or {}):
            parser.error(
                f'--precision {args.precision} sets {name}, and --cfg-options '
                f'{name}={args.cfg_options[name]} does so, too: leave one out'
            )
    return args


def merge_args(cfg: 'Config', args: argparse.Namespace) -> None:
    """Put the command line's settings into the config."""
    if args.precision:
        from mmscfs.engine.precision import set_precision

        set_precision(cfg, args.precision)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            sys.exit(
                'error: --auto-scale-lr needs auto_scale_lr.base_batch_size, '
                'the batch size that the learning rate is for: set it in '
                f'{args.config}'
            )
        cfg.auto_scale_lr.enable = True
    if args.seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=args.seed)
    merge_common(cfg, args)  # last: --cfg-options win


def main() -> None:
    """Train."""
    args = parse_args()
    changes: list[str] = []
    with errors_in_one_line():
        cfg = read_config(
            args.config, args.cfg_options, for_training=True, changes=changes
        )
        merge_args(cfg, args)

    from mmscfs.engine import prepare_run
    from mmscfs.engine.screen import build_runner

    with errors_in_one_line():  # before the runner touches the work directory
        finished = prepare_run(
            cfg,
            args.pretrained,
            args.network,
            overwrite=args.overwrite,
            is_restart=is_restart(),
        )
        if finished is None:
            build_runner(cfg, changes).train()


if __name__ == '__main__':
    main()
elif __name__ == '__mp_main__':  # in a data loader's worker that is spawned
    from mmscfs.engine.resume import stand_apart  # with mmdet's operators

    stand_apart()
