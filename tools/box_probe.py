#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Compare checkpoints by annotated boxes, in minutes and without training.

Takes the data sets of a detector's config. Boxes are cut out of each
backbone's frozen maps; boxes of the training images tell the class of those
of the validation images by k-NN (top1), and whether a box holds an object or
background (object_top1). If the config has masks, patches of the training
images predict those of the validation images (mIoU). All are in percent, for
all layers joined and for each layer.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from command_paths import checkpoint

if TYPE_CHECKING:  # else --help would wait for torch
    from mmengine.config import Config
    from mmengine.model import BaseModel

RANDOM = 'random'  # weights, in place of a checkpoint
COLUMNS = ('top1', 'object_top1', 'mIoU')
NOTE = (
    'Percent. top1: class of boxes by k-NN; object_top1: object or '
    'background; mIoU: masks by dense nearest neighbors'
)
EXAMPLES = """
examples:
  # which checkpoint of a run, and is it better than random weights?
  python tools/box_probe.py configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py \\
      --pretrained random work_dirs/scfs_r50/epoch_*.pth
  # the search layers of the student, on more and smaller images
  python tools/box_probe.py configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py \\
      --pretrained work_dirs/scfs_r50/epoch_200.pth --network student \\
      --layers layer2 layer3 layer4 --images 2000 \\
      --cfg-options val_dataloader.dataset.pipeline.1.scale="(672,400)"
"""  # noqa: E501


def parse_args() -> argparse.Namespace:
    """Parse the command line; a wrong option exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'config',
        help='config of a detector, a file or mmscfs::NAME: its backbone, '
        "training and validation images; both go through the validation's "
        'pipeline',
    )
    parser.add_argument(
        '--pretrained',
        nargs='+',
        type=start,
        required=True,
        metavar='CHECKPOINT',
        help=f'checkpoints of any layout that tools/train.py takes; '
        f'"{RANDOM}" stands for random weights',
    )
    add_network_option(parser)
    parser.add_argument(
        '--layers',
        nargs='+',
        default=['all'],
        metavar='NAME',
        help='"last", "all", or names such as layer2 (default: all)',
    )
    add_counts(
        parser,
        images=(
            'images of each data set at most, drawn with one seed',
            500,
            1,
        ),
        k=('nearest boxes that vote', 20, 1),
    )
    parser.add_argument(
        '--no-masks', action='store_true', help='leave out the masks'
    )
    add_out_folder(parser, 'boxes', 'work_dirs/box_probe')
    add_cfg_options(
        parser, 'val_dataloader.dataset.pipeline.1.scale="(672,400)"'
    )
    return parser.parse_args()


def start(text: str) -> str:
    """Return "random", or a checkpoint that exists; a type of argparse."""
    return text if text == RANDOM else checkpoint(text)


def probe_settings(cfg: 'Config', args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the probe.

    Raises:
        ValueError: The config has no training or validation images.
    """
    from mmscfs.datasets.wrappers import leaf_datasets

    for split in ('train', 'val'):
        if not (cfg.get(f'{split}_dataloader') or {}).get('dataset'):
            raise ValueError(
                f'{args.config} has no {split}_dataloader: take a config of '
                'a detector, e.g. one below configs/detection'
            )
    _, images = next(leaf_datasets(cfg.val_dataloader.dataset))
    has_masks = any(s.get('with_mask') for s in images.get('pipeline', ()))
    is_word = args.layers in (['all'], ['last'])
    return dict(
        queries=cfg.val_dataloader,
        bank=cfg.train_dataloader,
        layers=args.layers[0] if is_word else args.layers,
        num_images=args.images,
        k=args.k,
        segmentation=has_masks and not args.no_masks,
    )


def build_model(cfg: 'Config') -> 'BaseModel':
    """Build a config's model, its backbone with random weights.

    Raises:
        ValueError: It has no backbone.
    """
    import torch
    from mmengine.device import get_device
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS

    from mmscfs.engine.loops.features import choose_backbone
    from mmscfs.engine.pretrained import pretrained_places

    for _, part in pretrained_places(cfg.model):
        part.pop('pretrained', None)
        part.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    choose_backbone(model, None).init_weights()
    return revert_sync_batchnorm(model).to(get_device())


@commanded('nothing is written')
def main() -> int:
    """Measure; return 1 if writing failed, or a checkpoint has no figures."""
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)

    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    from mmscfs.checkpoint import (
        FoundBackbone,
        find_backbone,
        load_found,
        read_checkpoint,
    )
    from mmscfs.datasets.checks import check_data
    from mmscfs.engine import prepare_config
    from mmscfs.engine.loops import BoxProbe
    from mmscfs.engine.pretrained import check_input, pretraining_input
    from mmscfs.results.tables import Row, Summary, Table

    # mmengine would print a paragraph for each parameter.
    MMLogger.get_current_instance().setLevel('WARNING')
    prepare_config(cfg)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    settings = probe_settings(cfg, args)
    check_data(cfg)
    probe = BoxProbe(build_model(cfg), **settings)
    first = {k: v.clone() for k, v in probe.backbone.state_dict().items()}

    def score(path: str) -> tuple[FoundBackbone, dict]:
        if path == RANDOM:
            found = FoundBackbone(RANDOM, None, first, ())
        else:
            content = read_checkpoint(path)
            check_input(cfg, pretraining_input(content))
            found = find_backbone(content, args.network)
        load_found(probe.backbone, found)
        return found, probe.measure()

    start = time.monotonic()
    scored, problems = gather(dict.fromkeys(args.pretrained), score)
    rows = [
        Row(
            (
                '/'.join(Path(path).with_suffix('').parts[-2:]),
                found.network or '',
                layer,
            ),
            scores,
            path,
            True,
        )
        for path, (found, figures) in scored.items()
        for layer, scores in figures.items()
    ]
    seconds = time.monotonic() - start
    judged, known = probe.queries, probe.bank
    images = len(judged.loader.dataset), len(known.loader.dataset)
    footer = (
        f'{judged.boxes} boxes in {images[0]} images judged by {known.boxes} '
        f'in {images[1]}. The standard error of an accuracy is up to '
        f'{50 / judged.boxes**0.5:.1f} points, more where the boxes of an '
        'image are alike. It took '
        f'{seconds / max(len(scored), 1) / sum(images):.2f} s an image.'
    )
    labels = ('checkpoint', 'network', 'layers')
    tables = [Table('Box probe', NOTE, labels, COLUMNS, rows)] if rows else []
    summary = Summary('Box probe', footer, tables, problems)
    return summary.publish(args.out / 'boxes.md') or int(bool(problems))


if __name__ == '__main__':
    raise SystemExit(main())
elif __name__ == '__mp_main__':  # in a data loader's worker that is spawned
    import mmscfs  # noqa: F401  (mmdet needs its operators)
