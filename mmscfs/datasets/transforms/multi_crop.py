# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import itertools
import math

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dist import get_rank
from mmpretrain.registry import TRANSFORMS

from ..samplers import SampleKey
from .checks import (
    check_choice,
    check_flag,
    check_whole,
    check_within,
    interval,
    probabilities,
)
from .color import (
    BRIGHTNESS,
    HUE,
    NO_SOLARIZE,
    SATURATION,
    PendingColor,
    pack_colors,
    solarize,
)
from .filters import FILTERS
from .loading import Box, EncodedImage, greatest_reduction, reduced_box
from .values import with_channels

ORDERS = tuple(itertools.permutations(range(BRIGHTNESS, HUE + 1)))
CROP_TRIES = 10  # as torchvision's RandomResizedCrop

# One uniform number for each decision about a crop. Every crop has a row of
# its own, so no decision depends on another's outcome.
AREA = slice(0, CROP_TRIES)
RATIO = slice(CROP_TRIES, 2 * CROP_TRIES)
(
    TOP,
    LEFT,
    FLIP,
    JITTER,
    ORDER,
    FACTORS,  # four of them
    _,
    _,
    _,
    GREY,
    BLUR,
    SIGMA,
    SOLARIZE,
    NUM_DRAWS,
) = range(2 * CROP_TRIES, 2 * CROP_TRIES + 14)


@TRANSFORMS.register_module()
class MultiCrop(BaseTransform):
    """Turn an image into 2 global and N local views, augmented as in SCFS.

    Each view is a random resized crop, flipped, color-jittered in random
    order, greyed, blurred and solarized, with DINO's distributions. It stays
    uint8 and BGR: the data preprocessor normalizes it on the device.

    Every random value is drawn for each image and view. With
    :class:`KeyedSampler` it depends on the seed, the epoch and the image
    alone, so runs repeat for any number of workers and after resuming;
    without, a fresh draw from NumPy's global generator, and the process's
    rank, seed each image.

    Images may have any number C of channels. One is taken as three equal
    ones. Of any but three, hue, saturation and greying mean nothing: set them
    to 0. Brightness, contrast, blur and solarizing take all channels alike;
    the gray level that contrast starts from is their mean.

    **Required Keys:** img (np.ndarray, uint8, (H, W, C), BGR if C is 3, or
    the EncodedImage of ``LoadImage(reduced=True)``), sample_idx (optional)

    **Modified Keys:** img (list[torch.Tensor]: views (C, S, S), global first)

    **Added Keys:** crops (np.ndarray, float32, (2 + N, 5)): left, top, right
    and bottom of each view's box, px of the image, and 1 if it was flipped;
    colors (np.ndarray, float32, (2 + N, NUM_COLORS)): with color_on_device,
    what is left to do to each view, by ``pack_colors``

    Args:
        global_size (int): Side of global views, px. Defaults to 224.
        local_size (int): Side of local views, px. Defaults to 96.
        num_local (int): Number N of local views, 0 for none. Defaults to 8.
        global_scale (tuple): Share of the image's area in a global crop.
            Defaults to (0.25, 1).
        local_scale (tuple): The same of a local crop. Defaults to
            (0.05, 0.25).
        ratio (tuple): Aspect ratio of crops. Defaults to (3/4, 4/3).
        flip_prob (float): Defaults to 0.5.
        jitter_prob (float): Probability of color jitter. Defaults to 0.8.
        brightness, contrast, saturation (float): A factor is uniform in
            [1 - x, 1 + x]. Defaults to 0.4, 0.4 and 0.2.
        hue (float): A shift is uniform in [-x, x] of a full circle. Defaults
            to 0.1.
        grey_prob (float): Defaults to 0.2.
        blur_prob (tuple): Probability of Gaussian blur in the first global,
            second global and local views. Defaults to (1, 0.1, 0.5).
        blur_sigma (tuple): Range of its standard deviation, px. Defaults to
            (0.1, 2).
        solarize_prob (tuple): As ``blur_prob``. Defaults to (0, 0.2, 0).
        solarize_threshold (int): Values from here on are inverted. Defaults
            to 128.
        filters (str): "antialiased" resizes crops as Pillow's bicubic, which
            is DINO's filter. "opencv" resizes by OpenCV: bicubic, which skips
            pixels where it shrinks, and by area to half or less; so did
            version 0.1. Defaults to "antialiased".
        color_on_device (bool): Leave jitter, grey, blur and solarizing, with
            the same random values, to :class:`MultiCropDataPreprocessor`,
            which does them in batch on the model's device: for machines with
            few cores beside a GPU. PackInputs must hand on ``colors``.
            Defaults to False.

    Raises:
        ValueError: A setting is outside its range.
    """

    def __init__(
        self,
        global_size: int = 224,
        local_size: int = 96,
        num_local: int = 8,
        global_scale: tuple = (0.25, 1.0),
        local_scale: tuple = (0.05, 0.25),
        ratio: tuple = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
        jitter_prob: float = 0.8,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.1,
        grey_prob: float = 0.2,
        blur_prob: tuple = (1.0, 0.1, 0.5),
        blur_sigma: tuple = (0.1, 2.0),
        solarize_prob: tuple = (0.0, 0.2, 0.0),
        solarize_threshold: int = 128,
        filters: str = 'antialiased',
        color_on_device: bool = False,
    ) -> None:
        check_whole('global_size', global_size, 1)
        check_whole('local_size', local_size, 1)
        check_whole('num_local', num_local, 0)
        for name, value in dict(
            flip_prob=flip_prob,
            jitter_prob=jitter_prob,
            grey_prob=grey_prob,
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
        ).items():
            check_within(name, value, 0, 1)
        check_within('hue', hue, 0, 0.5)
        check_within('solarize_threshold', solarize_threshold, 0, 256)
        check_choice('filters', filters, FILTERS)
        check_flag('color_on_device', color_on_device)
        self.global_size = global_size
        self.local_size = local_size
        self.num_local = num_local
        self.global_scale = interval('global_scale', global_scale, 0, 1)
        self.local_scale = interval('local_scale', local_scale, 0, 1)
        self.ratio = interval('ratio', ratio, 0, math.inf)
        self.blur_sigma = interval('blur_sigma', blur_sigma, 0, math.inf)
        self.flip_prob = flip_prob
        self.jitter_prob = jitter_prob
        # In the order of BRIGHTNESS, CONTRAST, SATURATION and HUE.
        self.jitter_range = (
            (1 - brightness, 1 + brightness),
            (1 - contrast, 1 + contrast),
            (1 - saturation, 1 + saturation),
            (-hue, hue),
        )
        self.grey_prob = grey_prob
        self.blur_prob = probabilities('blur_prob', blur_prob)
        self.solarize_prob = probabilities('solarize_prob', solarize_prob)
        self.solarize_threshold = solarize_threshold
        self.filters = filters
        self.color_on_device = color_on_device

    def transform(self, results: dict) -> dict:
        """Replace the image by its views."""
        image = results['img']
        draws = self.draw(results.get('sample_idx'))
        boxes = self.crop_boxes(image.shape, draws)
        filters, reduction = FILTERS[self.filters], 1
        if isinstance(image, EncodedImage):
            sides = [self.global_size] * 2 + [self.local_size] * self.num_local
            reduction = greatest_reduction(boxes, sides, filters.margins)
            encoded, image = image, image.decode(reduction)
            if image is None:  # its header was wrong about the size
                image, reduction = encoded.decode_in_full(), 1
                boxes = self.crop_boxes(image.shape, draws)
        image = filters.restore(self.checked(image), reduction)
        views, crops = [], []
        for i, (row, box) in enumerate(zip(draws, boxes, strict=True)):
            views.append(self.view(image, i, reduced_box(box, reduction), row))
            top, left, height, width = box
            crops.append(
                (left, top, left + width, top + height, self.flips(row))
            )
        results['img'] = views
        results['crops'] = np.array(crops, np.float32)
        if self.color_on_device:
            colors = [self.colors(i, row) for i, row in enumerate(draws)]
            results['colors'] = np.array(colors, np.float32)
        return results

    def checked(self, image: np.ndarray) -> np.ndarray:
        """Return an image as (H, W, C), if it can be cropped.

        Raises:
            ValueError: Its type is another, or a setting is for RGB alone.
        """
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise ValueError(
                f'MultiCrop: the image is {image.dtype} {image.shape}, but '
                'must be uint8 (H, W, C): use LoadImage with value_range, '
                'which maps the values to 8 bits, and without to_float32'
            )
        image = with_channels(image)
        if image.shape[2] != 3 and self.for_rgb:
            raise ValueError(
                f'MultiCrop: images of {image.shape[2]} channels have '
                f'neither hue nor gray: set {", ".join(self.for_rgb)} of '
                'multi_crop to 0, or load three channels (LoadImage without '
                "color_type='unchanged' leaves out a fourth)"
            )
        return image

    @property
    def for_rgb(self) -> list[str]:
        """Settings in use that only images of three channels can have."""
        strengths = dict(
            saturation=self.jitter_range[SATURATION][1] - 1,
            hue=self.jitter_range[HUE][1],
            grey_prob=self.grey_prob,
        )
        return [name for name, strength in strengths.items() if strength > 0]

    def draw(self, sample_idx: int | None = None) -> list[list[float]]:
        """Return the uniform numbers of one image, 2 + N x NUM_DRAWS."""
        if isinstance(sample_idx, SampleKey):
            entropy = sample_idx.key
        else:
            # Processes without workers share the seed of the generator.
            entropy = [*np.random.randint(2**31, size=2).tolist(), get_rank()]
        generator = np.random.default_rng(entropy)
        # A list: Python works on single numbers faster than NumPy.
        return generator.random((2 + self.num_local, NUM_DRAWS)).tolist()

    def flips(self, draws: list[float]) -> bool:
        """Tell whether a view is flipped."""
        return draws[FLIP] < self.flip_prob

    def view(
        self,
        image: np.ndarray,
        index: int,
        box: Box,
        draws: list[float],
    ) -> torch.Tensor:
        """Make a view, uint8 (C, S, S), of an image from :meth:`checked`.

        0 and 1 are the global ones. Each has a :meth:`crop_box`, and
        NUM_DRAWS uniform numbers of its own.
        """
        kind = min(index, 2)
        view = self.crop(image, kind, box)
        if self.flips(draws):
            view = cv2.flip(view, 1)
        if not self.color_on_device:
            view = self.color(view, draws)
            if sigma := self.sigma(kind, draws):
                view = FILTERS[self.filters].blur(view, sigma)
            if self.solarizes(kind, draws):
                view = solarize(view, self.solarize_threshold)
        # A grey view is one channel until here: a third of the work.
        out = np.empty((image.shape[2], *view.shape[:2]), np.uint8)
        if view.ndim == 2:
            out[:] = view
        else:
            cv2.split(view, list(out))
        return torch.from_numpy(out)

    def crop(self, image: np.ndarray, kind: int, box: Box) -> np.ndarray:
        """Cut a box and resize it to the view's side."""
        top, left, height, width = box
        size = self.local_size if kind == 2 else self.global_size
        cut = image[top : top + height, left : left + width]
        return FILTERS[self.filters].resize(cut, (size, size))

    def crop_boxes(
        self, shape: tuple[int, ...], draws: list[list[float]]
    ) -> list[Box]:
        """Return the :meth:`crop_box` of each view in an image (H, W, ...)."""
        height, width = shape[:2]
        return [
            self.crop_box(height, width, min(i, 2), row)
            for i, row in enumerate(draws)
        ]

    def crop_box(
        self, height: int, width: int, kind: int, draws: list[float]
    ) -> Box:
        """Return (top, left, height, width) of a crop, in px.

        The area's share is uniform in the scale range and the aspect ratio
        log-uniform; a box that does not fit is drawn again, up to ten times,
        then the largest central box of a valid ratio is taken.
        """
        low, high = self.local_scale if kind == 2 else self.global_scale
        log_low, log_high = map(math.log, self.ratio)
        for area, ratio in zip(draws[AREA], draws[RATIO], strict=True):
            area = height * width * (low + (high - low) * area)
            ratio = math.exp(log_low + (log_high - log_low) * ratio)
            w = round(math.sqrt(area * ratio))
            h = round(math.sqrt(area / ratio))
            if 1 <= w <= width and 1 <= h <= height:
                top = int(draws[TOP] * (height - h + 1))
                left = int(draws[LEFT] * (width - w + 1))
                return top, left, h, w
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w

    def color(self, view: np.ndarray, draws: list[float]) -> np.ndarray:
        """Jitter and grey a view; a grey one comes back as (S, S)."""
        pending = PendingColor(view)
        for operation, value in self.jitter(draws):
            pending.jitter(operation, value)
        return pending.grey() if self.greys(draws) else pending.flush()

    def colors(self, index: int, draws: list[float]) -> list[float]:
        """Return what :meth:`view` does to a view's colors, as numbers."""
        kind = min(index, 2)
        solarizes = self.solarizes(kind, draws)
        return pack_colors(
            self.jitter(draws),
            self.greys(draws),
            self.sigma(kind, draws),
            self.solarize_threshold if solarizes else NO_SOLARIZE,
        )

    def jitter(self, draws: list[float]) -> list[tuple[int, float]]:
        """Return the jitter's operations and values, in their order."""
        if draws[JITTER] >= self.jitter_prob:
            return []
        steps = []
        for operation in ORDERS[int(draws[ORDER] * len(ORDERS))]:
            low, high = self.jitter_range[operation]
            value = low + (high - low) * draws[FACTORS + operation]
            steps.append((operation, value))
        return steps

    def greys(self, draws: list[float]) -> bool:
        """Tell whether a view is greyed."""
        return draws[GREY] < self.grey_prob

    def sigma(self, kind: int, draws: list[float]) -> float:
        """Return the blur's standard deviation in px, 0 for none."""
        if draws[BLUR] >= self.blur_prob[kind]:
            return 0.0
        low, high = self.blur_sigma
        return low + (high - low) * draws[SIGMA]

    def solarizes(self, kind: int, draws: list[float]) -> bool:
        """Tell whether a view is solarized."""
        return draws[SOLARIZE] < self.solarize_prob[kind]

    def __repr__(self) -> str:
        settings = ', '.join(f'{k}={v}' for k, v in vars(self).items())
        return f'{type(self).__name__}({settings})'
