# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The pipelines that loader.py times, and the images that they read."""

import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as tv

from mmscfs.datasets.samplers import SampleKey
from mmscfs.engine import settle_views

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
QUALITY = 90  # of made JPEG files
Pipeline = Callable[[str, int], object]


def make_images(folder: Path, count: int, size: tuple, seed: int) -> list[str]:
    """Write JPEG files: parts of photographs under smooth random colors."""
    generator = np.random.default_rng(seed)
    photos = []
    for name in ('china.jpg', 'flower.jpg'):
        data = (resources.files('sklearn.datasets.images') / name).read_bytes()
        photos.append(cv2.imdecode(np.frombuffer(data, np.uint8), 1))
    paths = []
    for i in range(count):
        photo = photos[i % len(photos)]
        share = generator.uniform(0.5, 1)
        height, width = (round(share * side) for side in photo.shape[:2])
        top = generator.integers(photo.shape[0] - height + 1)
        left = generator.integers(photo.shape[1] - width + 1)
        part = photo[top : top + height, left : left + width]
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        coarse = generator.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        image = cv2.addWeighted(part, 0.75, smooth, 0.25, 0)
        paths.append(str(folder / f'{i:05d}.jpg'))
        cv2.imwrite(paths[-1], image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return paths


def our_pipeline(num_local: int, seed: int, **settings: Any) -> Pipeline:
    """Return a function of a path and an index: our views.

    As in a training whose config has these settings of MultiCrop.
    """
    crops = dict(type='MultiCrop', num_local=num_local, **settings)
    pipeline = [dict(type='LoadImage'), crops, dict(type='PackInputs')]
    loader = dict(dataset=dict(pipeline=pipeline))
    cfg = Config(dict(train_dataloader=loader))
    settle_views(cfg)
    steps = Compose(cfg.train_dataloader.dataset.pipeline)
    return lambda path, index: steps(
        dict(img_path=path, sample_idx=SampleKey(index, seed))
    )


def usual_pipeline(num_local: int) -> Pipeline:
    """Return a function of a path: DINO's views by Pillow and torchvision."""

    def blur(image):
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2)))

    solarize = partial(ImageOps.solarize, threshold=128)

    def view(size, scale, blur_prob, solarize_prob):
        crop = tv.RandomResizedCrop(
            size, scale, interpolation=tv.InterpolationMode.BICUBIC
        )
        jitter = tv.ColorJitter(0.4, 0.4, 0.2, 0.1)
        return tv.Compose(
            [
                crop,
                tv.RandomHorizontalFlip(0.5),
                tv.RandomApply([jitter], 0.8),
                tv.RandomGrayscale(0.2),
                tv.RandomApply([tv.Lambda(blur)], blur_prob),
                tv.RandomApply([tv.Lambda(solarize)], solarize_prob),
                tv.ToTensor(),
                tv.Normalize(MEAN, STD),
            ]
        )

    steps = [
        view(224, (0.25, 1), 1.0, 0.0),
        view(224, (0.25, 1), 0.1, 0.2),
        *[view(96, (0.05, 0.25), 0.5, 0.0)] * num_local,
    ]

    def run(path, _):
        image = Image.open(path).convert('RGB')
        return [step(image) for step in steps]

    return run


def measure(pipeline: Pipeline, paths: Sequence[str]) -> float:
    """Return the images per second of CPU time in one pass."""
    start = time.process_time()
    for index, path in enumerate(paths):
        pipeline(path, index)
    return len(paths) / (time.process_time() - start)
