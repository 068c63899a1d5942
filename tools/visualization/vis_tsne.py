#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""See a data set's images on a plane, as a pre-trained network orders them.

Takes the features of a config's test (or else validation) images, L2-
normalises them, and puts them on a plane by t-SNE or by their two principal
components. Each class has a colour and a shape. Writes a PNG, and beside it
the points as CSV: image, label, class, x, y. Images without labels are drawn
alike.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

EXAMPLES = """
examples:
  python tools/visualization/vis_tsne.py \\
      configs/classification/knn/knn_resnet50_in100.py \\
      --pretrained work_dirs/scfs_r50/epoch_200.pth
  # your own images in class folders, or without labels
  python tools/visualization/vis_tsne.py \\
      configs/classification/knn/knn_resnet50_in100.py \\
      --pretrained work_dirs/scfs_r50/epoch_200.pth --out my.png \\
      --cfg-options test_dataloader.dataset.type=CustomDataset \\
      test_dataloader.dataset.data_root=my/images \\
      test_dataloader.dataset.split='' \\
      test_dataloader.dataset.with_label=False
  # an earlier layer, by principal components, in seconds
  python tools/visualization/vis_tsne.py \\
      configs/classification/knn/knn_resnet50_in100.py \\
      --pretrained work_dirs/scfs_r50/epoch_200.pth \\
      --layer layer3 --method pca
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a wrong option exits with code 2."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config',
        help='config with images to test on, e.g. one below '
        'configs/classification/knn',
    )
    parser.add_argument(
        '--pretrained',
        required=True,
        metavar='CHECKPOINT',
        help='pre-training checkpoint: of mmscfs, mmpretrain, torchvision, '
        'or the releases of SCFS, DINO and MoCo',
    )
    parser.add_argument(
        '--network',
        choices=['teacher', 'student'],
        help='which network (default: the teacher where there is one)',
    )
    parser.add_argument(
        '--layer',
        default='last',
        help='whose features, e.g. layer3 (default: %(default)s)',
    )
    parser.add_argument(
        '--method',
        choices=['tsne', 'pca'],
        default='tsne',
        help='how features become points (default: %(default)s)',
    )
    parser.add_argument(
        '--number',
        type=int,
        default=2000,
        help='images at most, evenly spread over the data set; t-SNE takes '
        'half a minute for 2000 (default: %(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of t-SNE (default: %(default)s)'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('embedding.png'),
        metavar='FILE',
        help='PNG to write; the CSV has its name (default: %(default)s)',
    )
    args = parser.parse_args(argv)
    if not Path(args.config).is_file():
        parser.error(f'no config file {args.config!r}')
    if args.number < 3:
        parser.error(f'--number {args.number}: must be at least 3')
    if args.out.suffix == '.csv':
        parser.error(f'--out {args.out}: name the PNG, the CSV lies beside it')
    return args


def label_or_none(image: Mapping, what: str) -> int:
    """Return the class of an image, -1 if it has none."""
    from mmscfs.engine.runners.features import read_label

    return -1 if image.get('gt_label') is None else read_label(image, what)


def load_config(args: argparse.Namespace):
    """Read the config and make it start from the checkpoint.

    Raises:
        OSError, ValueError: One of them cannot be read, or they do not fit.
    """
    from mmengine.config import Config

    from mmscfs.engine import prepare_config, start_from

    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    if not cfg.get('test_dataloader'):
        cfg.test_dataloader = cfg.get('val_dataloader')
    if not cfg.test_dataloader:
        raise ValueError(
            f'{args.config} has no test_dataloader: name a config that '
            'evaluates, e.g. one below configs/classification/knn'
        )
    prepare_config(cfg)
    start_from(cfg, args.pretrained, args.network)
    return cfg


def build_model(cfg):
    """Return the config's model, with its weights, on the device."""
    from mmengine.device import get_device
    from mmengine.logging import MMLogger
    from mmpretrain.registry import MODELS

    # Else the log has a paragraph for each parameter.
    MMLogger.get_current_instance().setLevel('WARNING')
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.to(get_device())


def build_loader(cfg, number: int):
    """Return a loader of some of the config's test images."""
    from mmengine.runner import Runner
    from mmpretrain.registry import DATASETS

    from mmscfs.visualization import spread

    settings = cfg.test_dataloader.copy()
    dataset = DATASETS.build(settings.pop('dataset'))
    dataset.get_subset_(spread(len(dataset), number))
    settings.persistent_workers = False
    return Runner.build_dataloader(dict(settings, dataset=dataset), seed=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: written, 1: writing failed, 2: wrong input.
    """
    args = parse_args(argv)

    # After parsing, so that --help and a wrong option answer at once.
    from types import SimpleNamespace

    import numpy as np
    from rich.console import Console

    from mmscfs.checkpoint import check_writable
    from mmscfs.engine.runners import extract_features
    from mmscfs.visualization import (
        draw_embedding,
        embed,
        write_png,
        write_points,
    )

    table = args.out.with_suffix('.csv')
    try:
        check_writable(args.out)
        check_writable(table)
        cfg = load_config(args)
        loader = build_loader(cfg, args.number)
        layers = args.layer if args.layer == 'last' else [args.layer]
        found = extract_features(
            # All that it asks of a runner.
            SimpleNamespace(model=build_model(cfg)),
            loader,
            'images',
            layers,
            read=label_or_none,
        )
        ((layer, features),) = found.layers.items()
        with Console().status(f'{args.method} of {len(features)} features'):
            points = embed(features.numpy(), args.method, args.seed)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    labels = found.labels.numpy()
    if np.all(labels < 0):
        labels = None
    dataset = loader.dataset
    classes = dataset.metainfo.get('classes') or ()
    paths = [
        str(dataset.get_data_info(i).get('img_path', i))
        for i in range(len(dataset))
    ]
    checkpoint = Path(args.pretrained)
    picture = draw_embedding(
        points,
        labels,
        classes,
        f'{checkpoint.parent.name} · {checkpoint.stem} · {layer}',
        f'{dict(tsne="t-SNE", pca="principal components")[args.method]} of '
        f'{len(points)} images, {Path(args.config).stem}',
    )
    try:
        write_png(picture, args.out)
        write_points(table, points, paths, labels, classes)
    except OSError as error:
        print(f'error: cannot write {args.out}: {error}', file=sys.stderr)
        return 1
    print(f'{args.out} and {table.name}: {len(points)} images')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
