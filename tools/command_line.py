# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What train.py and test.py have in common."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner


def add_common_options(
    parser: argparse.ArgumentParser, cfg_example: str
) -> None:
    """Add the options that every run of a config has."""
    parser.add_argument(
        '--work-dir',
        help='folder for logs and results (default: work_dirs/<config>)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help=f'override settings of the config, e.g. {cfg_example}',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='set by the dist_*.sh and slurm_*.sh scripts',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS
    )


def add_pretrained_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a pre-training checkpoint."""
    parser.add_argument(
        '--pretrained',
        metavar='CHECKPOINT',
        help="take the model's backbone (and the last stage of a C4 "
        'detector) from a pre-training checkpoint: of mmscfs, mmpretrain, '
        'torchvision, or the releases of SCFS, DINO and MoCo; all of it is '
        'loaded, or the command stops',
    )
    parser.add_argument(
        '--network',
        choices=['teacher', 'student'],
        help='which network of --pretrained (default: the teacher where '
        'there is one)',
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if there is no config."""
    args = parser.parse_args()
    if not Path(args.config).is_file():
        parser.error(f'no config file {args.config!r}')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank or 0))
    return args


def merge_common(cfg: Config, args: argparse.Namespace) -> None:
    """Put the common options into the config."""
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)


def build_runner(cfg: Config) -> Runner:
    """Build the runner, of a type of its own if the config names one."""
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)
