#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""See a data set's images on a plane, as a pre-trained network orders them.

Takes the features of a config's test (or else validation) images, normalizes
them to length 1, and puts them on a plane by t-SNE or by their two principal
components. Each class has a color and a shape, and images without labels share
one. Writes a PNG, and beside it the points as CSV: image, label, class, x, y.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from picture_command import (
    IMAGES,
    add_counts,
    add_pretrained_options,
    picture_parser,
    read_config,
    write_pictures,
)

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
      test_dataloader.dataset.data_prefix='' \\
      test_dataloader.dataset.with_label=False
  # an earlier layer, by principal components, in seconds
  python tools/visualization/vis_tsne.py \\
      configs/classification/knn/knn_resnet50_in100.py \\
      --pretrained work_dirs/scfs_r50/epoch_200.pth \\
      --layer layer3 --method pca
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; a wrong option exits with code 2."""
    parser = picture_parser(
        __doc__,
        EXAMPLES,
        'embedding.png',  # the CSV has its name
        'config with images to test on, e.g. one below '
        'configs/classification/knn',
        'test_dataloader.dataset.data_root=my/images',
    )
    add_pretrained_options(parser)
    parser.add_argument(
        '--layer',
        default='last',
        help='layer of the features, e.g. layer3 (default: %(default)s)',
    )
    parser.add_argument(
        '--method',
        choices=['tsne', 'pca'],
        default='tsne',
        help='how features become points (default: %(default)s)',
    )
    # t-SNE takes half a minute for these.
    add_counts(parser, number=(IMAGES, 2000, 3))
    args = parser.parse_args(argv)
    if not args.pretrained:
        parser.error('--pretrained is missing: name a checkpoint')
    return args


def label_or_none(image: Mapping, what: str) -> int:
    """Return the class of an image, -1 if it has none."""
    from mmscfs.engine.loops.features import read_label

    return -1 if image.get('gt_label') is None else read_label(image, what)


def load(args: argparse.Namespace):
    """Return the config, its model from the checkpoint, and a loader.

    The model is on the device; the loader has some of the test images.

    Raises:
        OSError, ValueError: The config or the checkpoint cannot be read, or
            they do not fit.
    """
    from mmengine.device import get_device
    from mmengine.logging import MMLogger
    from mmengine.runner import Runner
    from mmpretrain.registry import DATASETS, MODELS

    from mmscfs.checkpoint import naming
    from mmscfs.engine import prepare_config, start_from
    from mmscfs.visualization import spread

    cfg = read_config(args.config, args.cfg_options)
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        raise ValueError(
            f'{args.config} has no test_dataloader: name a config that '
            'evaluates, e.g. one below configs/classification/knn'
        )
    cfg.test_dataloader = loader
    prepare_config(cfg)
    with naming(args.pretrained):
        start_from(cfg, args.pretrained, args.network)
    settings = dict(cfg.test_dataloader, persistent_workers=False)
    dataset = DATASETS.build(settings.pop('dataset'))
    dataset.get_subset_(spread(len(dataset), args.number))
    loader = Runner.build_dataloader(dict(settings, dataset=dataset), seed=0)
    # Else the log has a paragraph for each parameter.
    MMLogger.get_current_instance().setLevel('WARNING')
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    model = MODELS.build(cfg.model)
    with naming(args.pretrained):
        model.init_weights()
    return cfg, model.to(get_device()), loader


def draw(args: argparse.Namespace) -> list:
    """Make the points, return the picture and what writes their table.

    Raises:
        OSError, ValueError: The config, the checkpoint or the data are not
            usable.
    """
    from types import SimpleNamespace

    import numpy as np
    from rich.console import Console

    from mmscfs.checkpoint import naming
    from mmscfs.engine.loops import extract_features
    from mmscfs.visualization import draw_embedding, embed, write_points

    cfg, model, loader = load(args)
    layers = args.layer if args.layer == 'last' else [args.layer]
    with naming(args.pretrained):
        found = extract_features(
            # All that it asks of a runner.
            SimpleNamespace(model=model),
            loader,
            'images',
            layers,
            read=label_or_none,
        )
    ((layer, features),) = found.layers.items()
    with Console().status(f'{args.method} of {len(features)} features'):
        points = embed(features.numpy(), args.method, seed=0)
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
        f'{len(points)} images, {Path(cfg.filename).stem}',
    )
    table = (points, paths, labels, classes)
    return [picture, lambda path: write_points(path, *table)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code."""
    args = parse_args(argv)
    return write_pictures(args, draw, args.out.with_suffix('.csv'))


if __name__ == '__main__':
    raise SystemExit(main())
