#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Compare checkpoints by annotated boxes, in minutes and without training.

Takes the data sets of a detector's config. Boxes are cut out of each
backbone's frozen maps; boxes of the training images tell the class of those
of the validation images by k-NN (top1), and whether a box holds an object or
background (object_top1). If the config has masks, patches of the training
images predict those of the validation images (mIoU). All in percent, by all
layers joined and by each.
"""

import argparse
import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line import (
    add_cfg_options,
    add_network_option,
    at_least,
    errors_in_one_line,
    make_parser,
    parse,
    read_config,
)

if TYPE_CHECKING:  # else --help would wait for torch
    from mmengine.config import Config

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
  # the search layers of the student, on more images of another size
  python tools/box_probe.py configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py \\
      --pretrained work_dirs/scfs_r50/epoch_200.pth --network student \\
      --layers layer2 layer3 layer4 --images 2000 --size 672 400
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
    for name, default, least, text in (
        ('images', 500, 2, 'images of each data set at most, evenly spread'),
        ('k', 20, 1, 'boxes that vote'),
        ('grid', 3, 1, 'cells of a box in each direction'),
        ('memory', 10000, 1, 'patches of a layer that are kept for masks'),
    ):
        parser.add_argument(
            f'--{name}',
            type=at_least(least),
            default=default,
            metavar='N',
            help=f'{text} (default: %(default)s)',
        )
    parser.add_argument(
        '--size',
        nargs=2,
        type=at_least(32),
        metavar=('LONG', 'SHORT'),
        help='sides that images fit into, px (default: as in the config)',
    )
    parser.add_argument(
        '--no-masks', action='store_true', help='leave out the masks'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/box_probe'),
        metavar='FOLDER',
        help='where to write boxes.md and .csv (default: %(default)s)',
    )
    add_cfg_options(parser, 'val_dataloader.batch_size=4')
    return parse(parser)


def read_data(cfg: 'Config', args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the probe.

    Raises:
        ValueError: The config has no training or validation images, or
            nothing that resizes them.
    """
    from mmscfs.datasets.checks.common import leaf_datasets

    for split in ('train', 'val'):
        if not (cfg.get(f'{split}_dataloader') or {}).get('dataset'):
            raise ValueError(
                f'{args.config} has no {split}_dataloader: take a config of '
                'a detector, e.g. one below configs/detection'
            )
    _, images = next(leaf_datasets(cfg.val_dataloader.dataset))
    steps = images.get('pipeline') or []
    kinds = {str(step.type).split('.')[-1]: step for step in steps}
    if args.size and 'Resize' not in kinds:
        raise ValueError(
            f'--size: the pipeline of val_dataloader has no Resize, only '
            f'{", ".join(kinds)}'
        )
    if args.size:
        kinds['Resize'].scale = tuple(args.size)
    masks = kinds.get('LoadAnnotations', {}).get('with_mask', False)
    return dict(
        queries=cfg.val_dataloader,
        bank=cfg.train_dataloader,
        num_images=args.images,
        k=args.k,
        grid=args.grid,
        segmentation=masks and not args.no_masks,
        memory=args.memory,
    )


class Subject:
    """The model of a config, whose backbone is what is measured.

    Args:
        cfg (Config): The detector's; its ``init_cfg`` are removed.

    Raises:
        ValueError: It has no backbone.
    """

    def __init__(self, cfg: 'Config') -> None:
        import torch
        from mmengine.device import get_device
        from mmengine.model import revert_sync_batchnorm
        from mmengine.registry import MODELS

        from mmscfs.engine.pretrained import pretrained_places

        for _, part in pretrained_places(cfg.model):
            part.pop('pretrained', None)
            part.init_cfg = None
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        if not hasattr(model, 'backbone'):
            raise ValueError(f'model={cfg.model.type} has no backbone')
        model.backbone.init_weights()
        self.cfg = cfg
        self.model = revert_sync_batchnorm(model).to(get_device())
        self.first = copy.deepcopy(model.backbone.state_dict())

    def load(self, path: str, network: str | None) -> str:
        """Load a checkpoint's backbone, or the first, random weights.

        Returns:
            str: Which network it is, "" if not known.

        Raises:
            OSError, ValueError: It cannot be read, or does not fit.
        """
        from mmscfs.checkpoint import (
            find_backbone,
            load_found,
            read_checkpoint,
        )
        from mmscfs.engine.pretrained import check_input, pretraining_input

        if path == RANDOM:
            self.model.backbone.load_state_dict(self.first)
            return ''
        content = read_checkpoint(path)
        try:
            check_input(self.cfg, pretraining_input(content))
            found = find_backbone(content, network)
            load_found(self.model.backbone, found)
        except ValueError as error:
            raise ValueError(f'checkpoint {path}: {error}') from error
        return found.network or ''


def make_rows(path: str, network: str, metrics: Mapping) -> list:
    """Return the rows of a checkpoint: all layers together, then each."""
    from mmscfs.results.tables import Row

    place = Path(path)
    name = '/'.join([*place.parent.parts[-1:], place.stem])
    by_layer: dict[str, dict] = {'all': {}}
    for metric, value in metrics.items():
        layer, _, column = metric.removeprefix('boxes/').rpartition('_')
        if layer.endswith('object'):
            layer = layer.removesuffix('object').rstrip('_')
            column = f'object_{column}'
        by_layer.setdefault(layer or 'all', {})[column] = value
    return [
        Row((name, network, layer), scores, path, True)
        for layer, scores in by_layer.items()
    ]


def main() -> int:
    """Measure; return 1 if writing failed, or nothing could be measured."""
    args = parse_args()
    with errors_in_one_line():
        cfg = read_config(args.config, args.cfg_options)

    # Now, so that --help and a wrong option or setting answer at once.
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    from mmscfs.datasets.checks import check_data
    from mmscfs.engine import prepare_config
    from mmscfs.engine.loops import BoxProbe, check_layers
    from mmscfs.results.tables import Summary, Table

    # mmengine would print a paragraph for each parameter.
    MMLogger.get_current_instance().setLevel('WARNING')
    with errors_in_one_line():  # before the long work
        prepare_config(cfg)
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        settings = read_data(cfg, args)
        check_data(cfg)
        subject = Subject(cfg)
        layers = args.layers
        if layers in (['all'], ['last']):
            (layers,) = layers
        check_layers(subject.model, layers)
        networks = {p: subject.load(p, args.network) for p in args.pretrained}
        probe = BoxProbe(**settings)
    measured, problems = {}, []
    start = time.monotonic()
    for path in networks:
        subject.load(path, args.network)
        try:
            measured[path] = probe.measure(subject.model, layers)
        except ValueError as error:
            problems.append(f'{path}: {error}')
    seconds = (time.monotonic() - start) / len(networks)
    images = [len(data.loader.dataset) for data in (probe.queries, probe.bank)]
    judged, known = (
        f'{data.boxes} boxes in {count} images'
        for data, count in zip(
            (probe.queries, probe.bank), images, strict=True
        )
    )
    footer = (
        f'{judged} judged by {known}. The standard error of an accuracy is '
        f'up to {50 / probe.queries.boxes**0.5:.1f} points, more where the '
        f'boxes of an image are alike. It took {seconds / sum(images):.2f} s '
        'an image.'
    )
    rows = [
        row
        for path, metrics in measured.items()
        for row in make_rows(path, networks[path], metrics)
    ]
    labels = ('checkpoint', 'network', 'layers')
    tables = [Table('Box probe', NOTE, labels, COLUMNS, rows)] if rows else []
    summary = Summary('Box probe', footer, tables, problems)
    return summary.publish(args.out / 'boxes.md') or int(not measured)


if __name__ == '__main__':
    raise SystemExit(main())
elif __name__ == '__mp_main__':  # in a data loader's worker that is spawned
    import mmscfs  # noqa: F401  (mmdet needs its operators)
