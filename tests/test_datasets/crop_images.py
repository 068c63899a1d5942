# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Images whose crops tell what was done, and a MultiCrop that does little."""

import cv2
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from mmscfs.datasets import MultiCrop
from mmscfs.datasets.samplers import SampleKey

IMAGES = 1000
SIDE = 16
NO_COLOR = dict(
    jitter_prob=0,
    grey_prob=0,
    blur_prob=(0, 0, 0),
    solarize_prob=(0, 0, 0),
)
# The whole image, unchanged.
OFF = dict(
    global_size=SIDE,
    local_size=SIDE,
    num_local=2,
    global_scale=(1, 1),
    local_scale=(1, 1),
    ratio=(1, 1),
    flip_prob=0,
    **NO_COLOR,
)
NO_JITTER = dict(brightness=0, contrast=0, saturation=0, hue=0)


def only(*names, **settings):
    """Return a MultiCrop that does nothing but ``names``, by default."""
    kept = {k: v for k, v in OFF.items() if k not in names}
    return MultiCrop(**(kept | settings))


def plain(blue, green, red):
    """Return an image of one color."""
    return np.full((SIDE, SIDE, 3), (blue, green, red), np.uint8)


def halves(left, right):
    """Return an image of two colors, side by side."""
    image = plain(*left)
    image[:, SIDE // 2 :] = right
    return image


def noise(height=SIDE, width=SIDE):
    generator = np.random.default_rng(5)
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(height, width):
    """Return a BGR photograph."""
    image = load_sample_image('china.jpg')[..., ::-1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def columns_first(image, width, height):
    """Resize by Pillow's bicubic, which by itself does rows first."""
    tall = image.resize((image.width, height), Image.BICUBIC)
    return tall.resize((width, height), Image.BICUBIC)


def make_views(transform, image, seed=0, images=IMAGES):
    """Return the views (images, views, 3, S, S) of many images."""
    made = [
        torch.stack(
            transform(dict(img=image, sample_idx=SampleKey(i, seed)))['img']
        )
        for i in range(images)
    ]
    return torch.stack(made).numpy().astype(int)
