# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tiny data sets in the layouts of COCO and VOC, and configs cut to them."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from mmscfs.datasets.wrappers import leaf_datasets

HEIGHT, WIDTH = 64, 96
XML = (
    '<annotation><size><width>{width}</width><height>{height}</height>'
    '<depth>3</depth></size>{objects}</annotation>'
)
XML_OBJECT = (
    '<object><name>{name}</name><difficult>0</difficult><bndbox>'
    '<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>'
    '</bndbox></object>'
)


def draw_image(path: Path, seed: int) -> list[tuple[int, int, int, int]]:
    """Write an image of two rectangles; return their (x, y, w, h)."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    boxes = []
    for left in (2, WIDTH // 2):
        x, y = left + int(rng.integers(10)), int(rng.integers(2, 20))
        w, h = rng.integers(20, 34, 2).tolist()
        image[y : y + h, x : x + w] = rng.integers(120, 255, 3)
        boxes.append((x, y, w, h))
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return boxes


def make_coco(
    images: Path, annotations: Path, classes: Sequence[str], count: int = 2
) -> None:
    """Write ``count`` images and their COCO annotations, masks included."""
    coco = dict(images=[], annotations=[], categories=[])
    for i, name in enumerate(classes, 1):
        coco['categories'].append(dict(id=i, name=name))
    for i in range(1, count + 1):
        boxes = draw_image(images / f'{i:06d}.jpg', i)
        coco['images'].append(
            dict(id=i, file_name=f'{i:06d}.jpg', width=WIDTH, height=HEIGHT)
        )
        for number, (x, y, w, h) in enumerate(boxes):
            ring = [x, y, x + w, y, x + w, y + h, x, y + h]
            coco['annotations'].append(
                dict(
                    id=len(coco['annotations']) + 1,
                    image_id=i,
                    category_id=(i + number) % len(classes) + 1,
                    bbox=[x, y, w, h],
                    area=w * h,
                    segmentation=[ring],
                    iscrowd=0,
                )
            )
    annotations.parent.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(coco))


def make_voc(
    folder: Path, split: str, classes: Sequence[str], count: int = 2
) -> None:
    """Write one split of a VOC year into its folder, e.g. VOC2007."""
    stems = [f'{split}_{i}' for i in range(count)]
    for i, stem in enumerate(stems):
        boxes = draw_image(folder / 'JPEGImages' / f'{stem}.jpg', i)
        objects = ''.join(
            XML_OBJECT.format(
                name=classes[(i + number) % len(classes)],
                x1=x + 1,
                y1=y + 1,
                x2=x + w,
                y2=y + h,
            )
            for number, (x, y, w, h) in enumerate(boxes)
        )
        xml = folder / 'Annotations' / f'{stem}.xml'
        xml.parent.mkdir(exist_ok=True)
        xml.write_text(XML.format(width=WIDTH, height=HEIGHT, objects=objects))
    listing = folder / 'ImageSets' / 'Main' / f'{split}.txt'
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text(''.join(f'{stem}\n' for stem in stems))


def make_data(cfg: Config, root: Path, classes: Sequence[str]) -> None:
    """Make the files that a config names, below ``root``; point it there."""
    for split in ('train', 'val', 'test'):
        for _, dataset in leaf_datasets(
            cfg[f'{split}_dataloader'].dataset, ''
        ):
            dataset.data_root = str(root)
            ann_file = root / dataset.ann_file
            if ann_file.suffix == '.json':
                make_coco(root / dataset.data_prefix.img, ann_file, classes)
            else:
                folder = root / dataset.data_prefix.sub_data_root
                make_voc(folder, ann_file.stem, classes)
    for split in ('val', 'test'):
        dataset, evaluator = (
            cfg[f'{split}_dataloader'].dataset,
            cfg[f'{split}_evaluator'],
        )
        if 'ann_file' in evaluator:
            evaluator.ann_file = str(root / dataset.ann_file)


def shrink(cfg: Config) -> None:
    """Cut a run to one iteration of two small images, and few proposals."""
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        for _, dataset in leaf_datasets(loader.dataset, ''):
            for transform in dataset.pipeline:
                if 'scale' in transform:
                    transform.scale = (WIDTH, HEIGHT)
                if 'scales' in transform:
                    transform.scales = [(WIDTH, HEIGHT)]
    proposals = dict(nms_pre=40, max_per_img=8)
    cfg.model.train_cfg.rpn_proposal.update(proposals)
    cfg.model.train_cfg.rcnn.sampler.num = 8
    cfg.model.test_cfg.rpn.update(proposals)
    # An untrained model is sure of nothing: judge what it finds all the same.
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=1, val_interval=1)
    else:
        cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.logger.interval = 1
    cfg.log_level = 'WARNING'
