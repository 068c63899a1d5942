#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Evaluate a trained model: any config of ours, mmdet or mmpretrain."""

import argparse
import sys

from command_line import (
    add_common_options,
    build_runner,
    merge_common,
    parse,
)
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

EXAMPLES = """
examples:
  python tools/test.py configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py \\
      work_dirs/mask-rcnn_r50-fpn_1x_coco/epoch_12.pth
  # on 8 GPUs, with pictures of the detections
  tools/dist_test.sh CONFIG CHECKPOINT 8 --show-dir detections
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
        'checkpoint', help='checkpoint of the whole model, as train.py saves'
    )
    parser.add_argument(
        '--show-dir',
        help='draw predictions beside the annotations into this folder '
        '(below the run in the work directory)',
    )
    add_common_options(parser, 'test_dataloader.batch_size=4')
    return parse(parser)


def merge_args(cfg: Config, args: argparse.Namespace) -> None:
    """Put the command line's settings into the config.

    Raises:
        ValueError: The config has no test, or nothing that draws.
    """
    merge_common(cfg, args)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if not cfg.get('test_dataloader'):
        raise ValueError(
            f'{args.config} has no test_dataloader: name a config that '
            'evaluates, e.g. one below configs/detection'
        )
    if args.show_dir:
        hook = cfg.default_hooks.get('visualization')
        if hook is None:
            raise ValueError(
                '--show-dir: the config has no default_hooks.visualization '
                "that draws, e.g. mmdet's DetVisualizationHook"
            )
        hook.update(draw=True, test_out_dir=args.show_dir)


def check_weights(cfg: Config) -> None:
    """Check that the checkpoint is the model's, which mmengine only logs.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It is damaged, unsafe, or another model's.
    """
    from mmscfs.checkpoint import check_same_model, read_checkpoint

    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = MODELS.build(cfg.model)
    checkpoint = read_checkpoint(cfg.load_from)
    check_same_model(model.state_dict(), checkpoint, type(model).__name__)


def main() -> None:
    """Test."""
    args = parse_args()
    cfg = Config.fromfile(args.config)

    # After parsing, so that --help and a wrong option answer at once.
    from mmscfs.datasets.detection_check import check_detection_data
    from mmscfs.engine import prepare_config

    try:  # before the runner touches the work directory
        merge_args(cfg, args)
        prepare_config(cfg)
        check_weights(cfg)
        check_detection_data(cfg, ('test',))
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    build_runner(cfg).test()


if __name__ == '__main__':
    main()
