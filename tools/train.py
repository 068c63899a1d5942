#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Train any config: pre-training here, or one of mmpretrain's or mmdet's."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

EXAMPLES = """
examples:
  # the paper's SCFS on 8 GPUs
  tools/dist_train.sh configs/scfs_r50.py 8
  # your own folder of images, on one device
  python tools/train.py configs/scfs_r50.py --auto-scale-lr --cfg-options \\
      train_dataloader.dataset.data_root=my/images \\
      train_dataloader.dataset.data_prefix=''
  # go on from the newest checkpoint of the work directory
  python tools/train.py configs/scfs_r50.py --resume
"""


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        help='folder for logs and checkpoints (default: work_dirs/<config>)',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, or without a name from the newest '
        'in the work directory',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision, even if the config sets fp32',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate with this run's batch size",
    )
    parser.add_argument(
        '--seed', type=int, help="seed of the run (default: the config's)"
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. '
        'train_dataloader.batch_size=64 model.search_layers="[2,3]"',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='set by dist_train.sh and slurm_train.sh',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if not Path(args.config).is_file():
        parser.error(f'no config file {args.config!r}')
    if args.resume not in (None, 'auto') and not Path(args.resume).is_file():
        parser.error(f'--resume: no checkpoint {args.resume!r}')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank or 0))
    return args


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    """Put the command line's settings into the config."""
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    if args.amp:
        if cfg.optim_wrapper.type == 'PerParamClipOptimWrapper':
            cfg.optim_wrapper.precision = 'auto'
        else:
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
            cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.auto_scale_lr:
        cfg.auto_scale_lr.enable = True
    if args.seed is not None:
        cfg.setdefault('randomness', {})['seed'] = args.seed
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader and not loader.get('num_workers'):
            loader.persistent_workers = False


def main() -> None:
    """Train."""
    args = parse_args()
    cfg = Config.fromfile(args.config)
    merge_args(cfg, args)

    # After parsing, so that --help and a wrong option answer at once.
    from mmscfs.engine import adapt_to_cpu

    adapt_to_cpu(cfg)
    if 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = Runner.from_cfg(cfg)
    runner.train()


if __name__ == '__main__':
    main()
