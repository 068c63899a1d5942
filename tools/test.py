#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Evaluate a model, or a backbone by its features alone, of any config."""

import argparse
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
from command_paths import checkpoint, config

if TYPE_CHECKING:
    from mmengine.config import Config, ConfigDict

# What can be evaluated of a backbone alone.
FEATURE_LOOPS = (
    *('KNNLoop', 'LinearSVMLoop', 'LinearSweepLoop', 'BoxProbeLoop'),
)
EXAMPLES = """
examples:
  python tools/test.py configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py \\
      work_dirs/mask-rcnn_r50-fpn_1x_coco/epoch_12.pth
  # on 8 GPUs, with pictures of the detections
  tools/dist_test.sh CONFIG CHECKPOINT 8 --show-dir detections
  # k-NN of a pre-trained backbone on ImageNet, with the features of all its
  # layers, which are kept for the next time
  python tools/test.py configs/classification/knn/knn_resnet50_in1k.py \\
      --pretrained work_dirs/scfs_r50/epoch_200.pth --cfg-options \\
      test_cfg.layers=all test_cfg.features=work_dirs/scfs_r50/features
"""


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'config',
        type=config,
        help='config file, or mmscfs:: and a name below configs',
    )
    parser.add_argument(
        'checkpoint',
        nargs='?',
        type=checkpoint,
        help='checkpoint of the whole model, as train.py saves it. If the '
        'model is a backbone alone, as for k-NN: any that --pretrained takes',
    )
    add_pretrained_options(parser)
    parser.add_argument(
        '--show-dir',
        help='draw predictions beside the annotations into this folder '
        '(below the run in the work directory)',
    )
    add_common_options(parser, 'test_dataloader.batch_size=4')
    args = parse(parser)
    if (args.checkpoint is None) == (args.pretrained is None):
        parser.error(
            'give a checkpoint: of the whole model after the config, or of '
            'its backbone by --pretrained'
        )
    return args


def merge_args(cfg: 'Config', args: argparse.Namespace) -> None:
    """Put the command line's settings into the config.

    A config that validates, but has no test, is tested by its validation.

    Raises:
        ValueError: It has neither, or nothing that draws.
    """
    merge_common(cfg, args)
    if args.pretrained is None and is_bare_backbone(cfg.model):
        args.checkpoint, args.pretrained = None, args.checkpoint
    test_cfg = cfg.get('test_cfg') or {}
    if args.pretrained and test_cfg.get('type') not in FEATURE_LOOPS:
        raise ValueError(
            f'--pretrained {args.pretrained} is a backbone, but {args.config} '
            'evaluates a whole model: train it by tools/train.py '
            '--pretrained, then give its own checkpoint'
        )
    if args.network and not args.pretrained:
        raise ValueError(
            '--network requires --pretrained; for a pre-training model set '
            'test_cfg.network'
        )
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if not cfg.get('test_dataloader') and cfg.get('val_dataloader'):
        for part in ('dataloader', 'evaluator', 'cfg'):
            cfg[f'test_{part}'] = cfg[f'val_{part}']
    if not cfg.get('test_dataloader'):
        raise ValueError(
            f'{args.config} has no test_dataloader: use a config that '
            'evaluates, e.g. one below configs/detection or '
            'configs/classification'
        )
    if args.show_dir:
        hook = cfg.default_hooks.get('visualization')
        if hook is None:
            raise ValueError(
                '--show-dir: the config has no default_hooks.visualization '
                "that draws, e.g. mmdet's DetVisualizationHook"
            )
        hook.update(draw=True, test_out_dir=args.show_dir)


def is_bare_backbone(model: 'ConfigDict') -> bool:
    """Whether a model is only the backbone of a classifier."""
    parts = {key for key, value in model.items() if value is not None}
    return parts - {'data_preprocessor'} == {'type', 'backbone'}


def check_weights(cfg: 'Config') -> None:
    """Check that the checkpoint fits the model; mmengine would only log it.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It is damaged, unsafe, or of another model.
    """
    from mmengine.registry import MODELS, init_default_scope

    from mmscfs.checkpoint import check_same_model, naming, read_checkpoint

    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = MODELS.build(cfg.model)
    with naming(cfg.load_from):
        check_same_model(
            model.state_dict(),
            read_checkpoint(cfg.load_from),
            type(model).__name__,
            remedy='Test with the config that trained it (in its work '
            'directory)',
        )


def main() -> None:
    """Test."""
    args = parse_args()
    with errors_in_one_line():
        cfg = read_config(args.config, args.cfg_options)

    from mmscfs.datasets.checks import check_data
    from mmscfs.engine import prepare_config, start_from
    from mmscfs.engine.meeting import on_first_process
    from mmscfs.engine.runner_access import unwrapped_model
    from mmscfs.engine.screen import build_runner

    with errors_in_one_line():  # before the runner touches the work directory
        merge_args(cfg, args)
        prepare_config(cfg)
        if args.pretrained:
            start_from(cfg, args.pretrained, args.network)
        else:
            on_first_process(check_weights, cfg)
        on_first_process(check_data, cfg, ('test',))
        runner = build_runner(cfg)
        # Builds the loop, with its data sets.
        runner.logger.info(f'test: {type(runner.test_loop).__name__}')
        if args.pretrained:
            unwrapped_model(runner).init_weights()  # test() would not
        runner.test()


if __name__ == '__main__':
    main()
elif __name__ == '__mp_main__':  # in a data loader's worker that is spawned
    import mmscfs  # noqa: F401  (mmdet needs its operators)
