# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of MultiCrop and its colour operations.

Statistics are of 2,000 images and hold within 4 standard deviations, with
fixed seeds.
"""

import colorsys
import math
from itertools import combinations

import cv2
import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tvf
from mmengine.runner import Runner
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import RandomResizedCrop

from mmscfs.datasets import MultiCrop
from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms.color import PendingColor, solarize

IMAGES = 2000
# Kolmogorov-Smirnov distance, times sqrt(n), passed once in 16,000 samples:
# as 4 standard deviations.
KS = math.sqrt(-math.log(6.3e-5 / 2) / 2)
SIDE = 16
# The whole image, unchanged.
OFF = dict(
    global_size=SIDE,
    local_size=SIDE,
    num_local=2,
    global_scale=(1, 1),
    local_scale=(1, 1),
    ratio=(1, 1),
    flip_prob=0,
    jitter_prob=0,
    grey_prob=0,
    blur_prob=(0, 0, 0),
    solarize_prob=(0, 0, 0),
)
NO_JITTER = dict(brightness=0, contrast=0, saturation=0, hue=0)


def only(*names, **settings):
    """Return a MultiCrop that does nothing but ``names``, by default."""
    kept = {k: v for k, v in OFF.items() if k not in names}
    return MultiCrop(**(kept | settings))


def plain(blue, green, red):
    """Return an image of one colour."""
    return np.full((SIDE, SIDE, 3), (blue, green, red), np.uint8)


def halves(left, right):
    """Return an image of two colours, side by side."""
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


def make_views(transform, image, seed=0, images=IMAGES):
    """Return the views (images, views, 3, S, S) of many images."""
    made = [
        torch.stack(
            transform(dict(img=image, sample_idx=SampleKey(i, seed)))['img']
        )
        for i in range(images)
    ]
    return torch.stack(made).numpy().astype(int)


def four_sigma(prob, n):
    return 4 * math.sqrt(prob * (1 - prob) / n)


def assert_uncorrelated(columns):
    """Columns that vary have no correlation over 4 standard deviations."""
    varying = [c for c in np.array(columns, float) if c.std() > 0]
    for a, b in combinations(varying, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(len(a))


def ks_uniform(values, low, high):
    """Return the distance of values to the uniform distribution."""
    ranks = np.sort((np.asarray(values) - low) / (high - low))
    n = len(ranks)
    steps = np.arange(n + 1) / n
    return max((steps[1:] - ranks).max(), (ranks - steps[:-1]).max())


def ks_two(left, right):
    """Return the distance of two samples of one size."""
    points = np.concatenate([left, right])
    ranks = [
        np.searchsorted(np.sort(s), points, side='right') / len(s)
        for s in (left, right)
    ]
    return np.abs(ranks[0] - ranks[1]).max()


# Random decisions


@pytest.mark.parametrize(
    ('setting', 'image', 'happened', 'rates'),
    [
        (
            'flip_prob',
            halves((10, 20, 30), (200, 210, 220)),
            lambda v: v[..., 0, 0, 0] > v[..., 0, 0, -1],
            (0.5, 0.5, 0.5),
        ),
        (
            'grey_prob',
            plain(40, 90, 200),
            lambda v: (v[..., 0, :, :] == v[..., 2, :, :]).all((-1, -2)),
            (0.2, 0.2, 0.2),
        ),
        (  # some factor or other always shows in a saturated colour
            'jitter_prob',
            halves((40, 90, 180), (90, 160, 30)),
            lambda v: (
                v != halves((40, 90, 180), (90, 160, 30)).transpose(2, 0, 1)
            ).any((-1, -2, -3)),
            (0.8, 0.8, 0.8),
        ),
        (
            'blur_prob',
            halves((0, 0, 0), (255, 255, 255)),
            lambda v: v[..., 0, 0, SIDE // 2] < 255,
            (1.0, 0.1, 0.5),
        ),
        (
            'solarize_prob',
            plain(200, 128, 127),
            lambda v: (v[..., 0, 0] == [55, 127, 127]).all(-1),
            (0.0, 0.2, 0.0),
        ),
    ],
    ids=['flip', 'grey', 'jitter', 'blur', 'solarize'],
)
def test_rates_of_each_kind_of_view(setting, image, happened, rates):
    """The defaults give DINO's rates, each view deciding for itself."""
    # A standard deviation below 0.3 px leaves 8-bit values as they are.
    transform = only(setting, blur_sigma=(1, 2))
    seen = happened(make_views(transform, image))
    assert seen.shape == (IMAGES, 4)
    for column, rate in zip(seen.T, (*rates, rates[2]), strict=True):
        assert abs(column.mean() - rate) <= four_sigma(rate, IMAGES)
    assert_uncorrelated(seen.T)


def test_decisions_about_one_view_are_independent():
    image = halves((130, 150, 250), (180, 210, 140))
    transform = only(
        flip_prob=0.5,
        grey_prob=0.5,
        blur_prob=(0.5, 0.5, 0.5),
        blur_sigma=(1, 2),
        solarize_prob=(0.5, 0.5, 0.5),
    )
    views = make_views(transform, image)[:, 0]
    solarized = views.max((1, 2, 3)) < 128
    # Every value was 128 or more: undo the solarisation.
    views[solarized] = 255 - views[solarized]
    edge = views[:, :, 0, :]
    grey = (edge[:, 0] == edge[:, 1]).all(1) & (edge[:, 1] == edge[:, 2]).all(
        1
    )
    flipped = edge[:, 1, 0] > edge[:, 1, -1]
    blurred = edge[:, 1, SIDE // 2] != edge[:, 1, -1]
    decisions = [solarized, grey, flipped, blurred]
    for decision in decisions:
        assert abs(decision.mean() - 0.5) <= four_sigma(0.5, IMAGES)
    assert_uncorrelated(decisions)


def measure_hue(views):
    """Return the hue in [-0.5, 0.5) of the views' first pixel."""
    pixels = views[..., 0, 0].reshape(-1, 3) / 255
    hues = [colorsys.rgb_to_hsv(r, g, b)[0] for b, g, r in pixels]
    return (np.array(hues) + 0.5) % 1 - 0.5


@pytest.mark.parametrize(
    ('name', 'default', 'image', 'measure', 'low', 'high', 'step'),
    [
        (  # 180 * 1.4 = 252 does not clip
            'brightness',
            0.4,
            plain(180, 180, 180),
            lambda v: v[..., 0, 0, 0].ravel() / 180,
            0.6,
            1.4,
            1 / 180,
        ),
        (  # 127.5 +- 87.5 * 1.4 does not clip
            'contrast',
            0.4,
            halves((40, 40, 40), (215, 215, 215)),
            lambda v: (v[..., 0, 0, -1] - v[..., 0, 0, 0]).ravel() / 175,
            0.6,
            1.4,
            1 / 175,
        ),
        (  # luma 146.5; 1.2 times as far from it are 4.3 and 244.3
            'saturation',
            0.2,
            plain(28, 128, 228),
            lambda v: (v[..., 2, 0, 0] - v[..., 0, 0, 0]).ravel() / 200,
            0.8,
            1.2,
            1 / 200,
        ),
        # A red; the shift is rounded to a 256th of the circle.
        (
            'hue',
            0.1,
            plain(80, 80, 200),
            measure_hue,
            -0.1,
            0.1,
            1 / 256,
        ),
    ],
)
def test_jitter_factors_are_uniform(
    name, default, image, measure, low, high, step
):
    transform = only(jitter_prob=1, **(NO_JITTER | {name: default}))
    factors = measure(make_views(transform, image))
    assert len(factors) == 4 * IMAGES
    assert low - step <= factors.min() <= low + 2 * step
    assert high - 2 * step <= factors.max() <= high + step
    limit = KS / math.sqrt(len(factors)) + step / (high - low)
    assert ks_uniform(factors, low, high) < limit
    spread = np.reshape(factors, (IMAGES, 4)).T
    assert_uncorrelated(spread)  # each view draws its own


def test_default_jitter_ranges_and_orders(monkeypatch):
    """All 24 orders are as frequent; factors have the default ranges."""
    calls, jitter = [], PendingColor.jitter

    def spy(self, operation, value):
        calls.append((operation, value))
        return jitter(self, operation, value)

    monkeypatch.setattr(PendingColor, 'jitter', spy)
    make_views(only('jitter_prob'), noise())
    assert len(calls) % 4 == 0
    steps = np.array(calls).reshape(-1, 4, 2)
    n = len(steps)
    assert abs(n / (4 * IMAGES) - 0.8) <= four_sigma(0.8, 4 * IMAGES)
    orders, counts = np.unique(steps[..., 0], axis=0, return_counts=True)
    assert len(orders) == 24
    assert all(set(order) == {0, 1, 2, 3} for order in orders)
    assert (np.abs(counts / n - 1 / 24) <= four_sigma(1 / 24, n)).all()
    by_operation = np.take_along_axis(
        steps[..., 1], steps[..., 0].argsort(1), axis=1
    ).T
    ranges = [(0.6, 1.4), (0.6, 1.4), (0.8, 1.2), (-0.1, 0.1)]
    for values, (low, high) in zip(by_operation, ranges, strict=True):
        assert low <= values.min()
        assert values.max() <= high
        assert ks_uniform(values, low, high) < KS / math.sqrt(n)
    assert_uncorrelated(by_operation)


def test_blur_sigma_is_uniform():
    """The step response tells sigma: a Gaussian's weights worked out here."""
    image = halves((0, 0, 0), (255, 255, 255))
    transform = only(blur_prob=(1, 1, 1))  # sigma 0.1 to 2
    views = make_views(transform, image)
    assert (views[:, :, 0] == views[:, :, 2]).all()
    dark = views[..., 0, 0, SIDE // 2 - 1].ravel()

    def response(sigma):
        # The dark pixel at the edge takes in the weights of one side.
        weights = np.exp(-(np.arange(-30, 31) ** 2) / (2 * sigma**2))
        return 255 * weights[31:].sum() / weights.sum()

    assert dark.min() == 0
    assert abs(dark.max() - response(2)) <= 1
    n = len(dark)
    for sigma in (0.6, 0.8, 1.0, 1.3, 1.6):
        rate = (2 - sigma) / 1.9
        # Half a level of rounding, as a share of the sigma range.
        slope = response(sigma + 0.05) - response(sigma - 0.05)
        slack = 0.5 * (0.1 / slope) / 1.9
        measured = (dark > response(sigma)).mean()
        assert abs(measured - rate) <= four_sigma(rate, n) + slack


# Crops


def draw_boxes(transform, height, width):
    """Return the boxes (views, images, 4) of many images."""
    boxes = [
        [
            transform.crop_box(height, width, min(i, 2), row)
            for i, row in enumerate(transform.draw(SampleKey(index, 1)))
        ]
        for index in range(IMAGES)
    ]
    return np.array(boxes, float).swapaxes(0, 1)


def test_local_crops_are_uniform_in_scale_and_log_uniform_in_ratio():
    """In a square image, no local crop is too large."""
    boxes = draw_boxes(MultiCrop(num_local=1), 1000, 1000)
    top, left, height, width = boxes[2].T
    top /= 1000 - height
    left /= 1000 - width
    limit = KS / math.sqrt(IMAGES)
    # A side is rounded to whole pixels.
    scale = height * width / 1000**2
    assert scale.min() >= 0.05 * (1 - 0.01)
    assert scale.max() <= 0.25 * (1 + 0.01)
    assert ks_uniform(scale, 0.05, 0.25) < limit
    ratio = np.log(width / height)
    largest = math.log(4 / 3) + 0.01
    assert np.abs(ratio).max() <= largest
    assert ks_uniform(ratio, math.log(3 / 4), math.log(4 / 3)) < limit
    assert ks_uniform(top, 0, 1) < limit
    assert ks_uniform(left, 0, 1) < limit
    assert_uncorrelated([scale, ratio, top, left])


@pytest.mark.parametrize('shape', [(375, 500), (500, 375), (300, 1000)])
@pytest.mark.parametrize('kind', [0, 1, 2])
def test_boxes_are_distributed_as_torchvisions(shape, kind):
    scale = (0.05, 0.25) if kind == 2 else (0.25, 1.0)
    image = torch.empty(3, *shape)
    theirs = np.array(
        [
            RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3))
            for _ in range(IMAGES)
        ],
        float,
    )
    ours = draw_boxes(MultiCrop(num_local=1), *shape)[kind]

    def features(boxes):
        top, left, height, width = boxes.T
        return [height * width, width / height, top, left, height, width]

    area, ratio, top, left, height, width = features(ours)
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= shape[0]
    assert (left + width).max() <= shape[1]
    share = area / (shape[0] * shape[1])
    assert share.max() <= scale[1] * 1.03
    assert share.min() >= scale[0] * 0.97
    assert ratio.min() >= 3 / 4 * 0.98
    assert ratio.max() <= 4 / 3 * 1.02
    limit = KS * math.sqrt(2 / IMAGES)
    pairs = zip(features(ours), features(theirs), strict=True)
    for mine, other in pairs:
        assert ks_two(mine, other) < limit


def test_views_of_an_image_have_independent_boxes():
    boxes = draw_boxes(MultiCrop(num_local=2), 400, 400)
    assert boxes.shape == (4, IMAGES, 4)
    for feature in range(4):
        assert_uncorrelated(boxes[..., feature])


@pytest.mark.parametrize(
    ('height', 'width', 'box'),
    [(3, 200, (0, 98, 3, 4)), (200, 3, (98, 0, 4, 3)), (1, 1, (0, 0, 1, 1))],
)
def test_largest_central_box_where_none_fits(height, width, box):
    transform = MultiCrop(global_scale=(1, 1))
    for row in transform.draw(SampleKey(0)):
        assert transform.crop_box(height, width, 0, row) == box


@pytest.mark.parametrize('side', [5, 13, 16, 31])
def test_enlarging_and_slight_shrinking_is_bicubic(side):
    image = cv2.GaussianBlur(noise(side, side), (0, 0), 0.8)
    views = make_views(only(), image, images=1)[0]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    wanted = torch.nn.functional.interpolate(
        pixels, (SIDE, SIDE), mode='bicubic', align_corners=False
    )
    wanted = wanted.round().clamp(0, 255)[0].numpy()
    assert np.abs(views - wanted).max() <= 1


def test_shrinking_to_half_or_less_averages():
    image = noise(4 * SIDE, 4 * SIDE)
    views = make_views(only(), image, images=1)[0]
    blocks = image.reshape(SIDE, 4, SIDE, 4, 3).mean((1, 3))
    assert np.abs(views - blocks.transpose(2, 0, 1)).max() <= 0.5


def test_a_crop_shows_its_box():
    """Where colour encodes place, each view tells the box it shows."""
    rows, columns = np.mgrid[:256, :256].astype(np.uint8)
    image = np.dstack([rows, columns, np.zeros_like(rows)])
    transform = only('local_scale', 'ratio')
    views = make_views(transform, image, seed=1, images=100)[:, 3]
    boxes = draw_boxes(transform, 256, 256)[3, :100]
    top, left, height, width = boxes.T
    for start, length, values in (
        (top, height, views[:, 0].mean(2)),
        (left, width, views[:, 1].mean(1)),
    ):
        # Pixel centres of the first and the last output sample.
        half = length / SIDE / 2
        assert np.abs(values[:, 0] - (start + half - 0.5)).max() < 1.5
        ends = start + length - half - 0.5
        assert np.abs(values[:, -1] - ends).max() < 1.5


def test_crops_tell_what_the_views_show():
    """Box and flip, read off the colours of the image's own places."""
    rows, columns = np.mgrid[:240, :200].astype(np.uint8)
    image = np.dstack([rows, columns, np.zeros_like(rows)])
    transform = only(
        'global_scale', 'local_scale', 'ratio', flip_prob=0.5, num_local=3
    )
    flips = []
    for index in range(40):
        results = transform(dict(img=image, sample_idx=SampleKey(index, 0)))
        crops = results['crops']
        assert crops.shape == (5, 5)
        assert crops.dtype == np.float32
        for view, crop in zip(results['img'], crops.tolist(), strict=True):
            left, top, right, bottom, flipped = crop
            down = view[0].float().mean(1)
            across = view[1].float().mean(0)
            if flipped:
                across = across.flip(0)
            # The first and last samples lie half a sample inside the box.
            for values, start, end in (
                (down, top, bottom),
                (across, left, right),
            ):
                half = (end - start) / SIDE / 2
                assert abs(values[0] - (start + half - 0.5)) < 1.5
                assert abs(values[-1] - (end - half - 0.5)) < 1.5
            flips.append(flipped)
    assert 0.3 < np.mean(flips) < 0.7


# Keys


def equal(left, right):
    pairs = zip(left, right, strict=True)
    return [torch.equal(a, b) for a, b in pairs]


SMALL = dict(global_size=32, local_size=16, num_local=4)


def test_same_key_same_views_other_key_other_views():
    transform, image = MultiCrop(**SMALL), photo(60, 80)

    def make(*key):
        return transform(dict(img=image, sample_idx=SampleKey(*key)))['img']

    first = make(3, 5, 7)
    np.random.rand()  # a global state has no say
    assert all(equal(first, make(3, 5, 7)))
    for key in ((4, 5, 7), (3, 6, 7), (3, 5, 8), (5, 3, 7), (7, 5, 3)):
        assert not any(equal(first, make(*key)))


def test_more_local_views_leave_the_others_as_they_were():
    image = photo(60, 80)
    views = {
        n: MultiCrop(**(SMALL | dict(num_local=n)))(
            dict(img=image, sample_idx=SampleKey(9, 2, 4))
        )['img']
        for n in (0, 3, 8)
    }
    for n in (0, 3):
        assert all(equal(views[n], views[8][: 2 + n]))


def test_without_a_key_numpys_generator_decides():
    transform, image = MultiCrop(**SMALL), photo(60, 80)

    def make(**results):
        return transform(dict(img=image, **results))['img']

    np.random.seed(11)
    first, second = make(), make(sample_idx=0)
    assert not any(equal(first, second))
    np.random.seed(11)
    assert all(equal(first, make()))
    assert all(equal(second, make(sample_idx=0)))


def flatten(batch):
    """Return the tensors of a nested list."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    return [tensor for item in batch for tensor in flatten(item)]


def test_batches_do_not_depend_on_the_workers(image_folder):
    def build(num_workers):
        return Runner.build_dataloader(
            dict(
                batch_size=4,
                num_workers=num_workers,
                persistent_workers=num_workers > 0,
                dataset=dict(
                    type='ImageFiles',
                    data_root=str(image_folder),
                    data_prefix='train',
                    pipeline=[
                        dict(type='LoadImage'),
                        dict(type='MultiCrop', **SMALL),
                        dict(type='PackInputs'),
                    ],
                ),
                sampler=dict(type='KeyedSampler'),
            ),
            seed=3,
        )

    def read(loader, epoch):
        loader.sampler.set_epoch(epoch)
        return [
            (
                [sample.sample_idx for sample in batch['data_samples']],
                flatten(batch['inputs']),
            )
            for batch in loader
        ]

    epochs = {}
    for num_workers in (0, 1, 2):
        loader = build(num_workers)
        # The same workers serve both epochs.
        epochs[num_workers] = [read(loader, epoch) for epoch in (0, 1)]
    for num_workers in (1, 2):
        for wanted, got in zip(epochs[0], epochs[num_workers], strict=True):
            assert len(wanted) == len(got) == 4
            for (indices, views), (others, copies) in zip(
                wanted, got, strict=True
            ):
                assert indices == others
                assert len(views) == 4 * 6
                assert all(equal(views, copies))
    # A run that resumes at epoch 1 is one of them too.
    resumed = read(build(0), 1)
    for (_, views), (_, copies) in zip(epochs[0][1], resumed, strict=True):
        assert all(equal(views, copies))
    orders = [sum((i for i, _ in e), []) for e in epochs[0]]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(16))
    assert orders[0] != orders[1]
    # No view of an epoch comes again in the other.
    seen = [
        {view.numpy().tobytes() for _, views in e for view in views}
        for e in epochs[0]
    ]
    assert len(seen[0]) == len(seen[1]) == 16 * 6
    assert seen[0].isdisjoint(seen[1])


# Colour

PICTURES = pytest.mark.parametrize(
    'image', [photo(56, 80), noise(48, 48)], ids=['photo', 'noise']
)
OPERATIONS = {
    'brightness': (0, 0.6, 0.93, 1, 1.07, 1.4, 2),
    'contrast': (0, 0.6, 0.93, 1, 1.07, 1.4, 2),
    'saturation': (0, 0.8, 0.93, 1, 1.07, 1.2, 2),
    'hue': (-0.5, -0.1, -0.03, 0, 0.03, 0.1, 0.5),
}
AFFINE = ('brightness', 'contrast', 'saturation')


def to_tensor(image):
    """Return a BGR image as an RGB tensor."""
    return torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)


def ours(image, steps):
    """Apply (name, value) steps, fused."""
    pending = PendingColor(image)
    for name, value in steps:
        getattr(pending, name)(value)
    return pending.flush().astype(int)


def torchvisions(image, steps):
    """Apply the steps with torchvision, to BGR."""
    image = to_tensor(image)
    for name, value in steps:
        image = getattr(tvf, f'adjust_{name}')(image, value)
    return image.permute(1, 2, 0).numpy()[..., ::-1].astype(int)


def pillows(image, steps):
    """Apply the steps with Pillow, to BGR."""
    image = Image.fromarray(image[..., ::-1].copy())
    for name, value in steps:
        image = getattr(tvf, f'adjust_{name}')(image, value)
    return np.asarray(image)[..., ::-1].astype(int)


def exact(image, steps):
    """Apply affine steps in float64, without rounding."""
    image = image.astype(float)
    for name, factor in steps:
        luma = image @ [0.114, 0.587, 0.299]
        other = {
            'brightness': 0,
            'contrast': luma.mean(),
            'saturation': luma[..., None],
        }[name]
        image = np.clip(factor * image + (1 - factor) * other, 0, 255)
    return image


def draw_steps(names, seed, count=40):
    """Return random sequences of the default jitter."""
    generator = np.random.default_rng(seed)
    widths = dict(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    for _ in range(count):
        yield [
            (
                str(name),
                (name != 'hue') + generator.uniform(-1, 1) * widths[name],
            )
            for name in generator.permutation(names)
        ]


@PICTURES
@pytest.mark.parametrize('name', AFFINE)
def test_affine_operations_agree_with_torchvision(image, name):
    """They truncate; OpenCV rounds, with coefficients of 10 bits."""
    for factor in OPERATIONS[name]:
        out = ours(image, [(name, factor)])
        assert np.abs(out - exact(image, [(name, factor)])).max() <= 0.9
        for theirs in (torchvisions, pillows):
            other = theirs(image, [(name, factor)])
            assert np.abs(out - other).max() <= 1


@PICTURES
def test_hue_agrees_with_torchvision(image):
    """torchvision's HSV is float, ours has 8 bits."""
    for shift in OPERATIONS['hue']:
        steps = [('hue', shift)]
        differences = np.abs(ours(image, steps) - torchvisions(image, steps))
        assert differences.mean() <= 1
        assert differences.max() <= 10


@pytest.mark.parametrize('steps', [-128, -26, -13, -1, 1, 13, 26, 64])
def test_hue_turns_without_bias(steps):
    """8-bit hue, in and out, is off by half of a 256th of the circle each.

    Shifts are 256ths, which need no rounding. The sum of the two and what the
    rounding of colours adds is at most 1.4, and 0 on average.
    """
    places = np.arange(0, 1, 1 / 1536)
    colours = [colorsys.hsv_to_rgb(place, 1, 1) for place in places]
    image = (255 * np.array([colours])[..., ::-1]).round().astype(np.uint8)
    turned = ours(image, [('hue', steps / 256)])[0, :, ::-1] / 255
    hues = np.array([colorsys.rgb_to_hsv(*pixel)[0] for pixel in turned])
    errors = (hues - places - steps / 256 + 0.5) % 1 - 0.5
    assert abs(errors.mean() * 256) <= 0.1
    assert np.abs(errors * 256).max() <= 1.4


@PICTURES
def test_grey_agrees_with_pillow(image):
    rgb = Image.fromarray(image[..., ::-1].copy())
    wanted = np.asarray(tvf.rgb_to_grayscale(rgb)).astype(int)
    grey = PendingColor(image).grey()
    assert grey.shape == image.shape[:2]
    assert np.abs(grey - wanted).max() <= 1


@PICTURES
@pytest.mark.parametrize('threshold', [0, 1, 100, 128, 200, 255, 256])
def test_solarize_is_pillows(image, threshold):
    wanted = tvf.solarize(Image.fromarray(image), threshold)
    assert np.array_equal(solarize(image, threshold), np.asarray(wanted))
    # A grey view has one channel.
    grey = image[..., 0].copy()
    wanted = tvf.solarize(Image.fromarray(grey), threshold)
    assert np.array_equal(solarize(grey, threshold), np.asarray(wanted))


@PICTURES
def test_sequences_agree_with_exact_arithmetic(image):
    for steps in draw_steps(AFFINE, 1):
        out = ours(image, steps)
        differences = np.abs(out - exact(image, steps))
        assert differences.max() <= 2.5
        assert differences.mean() <= 0.5
        grey = PendingColor(image)
        for name, value in steps:
            getattr(grey, name)(value)
        luma = exact(image, steps) @ [0.114, 0.587, 0.299]
        assert np.abs(grey.grey() - luma).max() <= 2.5


@PICTURES
def test_sequences_agree_with_torchvision(image):
    """Three truncations and an 8-bit HSV image lie between the two."""
    for steps in draw_steps(AFFINE, 2):
        differences = np.abs(ours(image, steps) - torchvisions(image, steps))
        assert differences.max() <= 4
    for steps in draw_steps((*AFFINE, 'hue'), 3):
        differences = np.abs(ours(image, steps) - torchvisions(image, steps))
        assert differences.mean() <= 2


@PICTURES
def test_fused_operations_agree_with_single_ones(image):
    """Rounding after each operation makes two levels at most."""
    for steps in draw_steps(AFFINE, 4):
        single = image
        for step in steps:
            single = ours(single, [step]).astype(np.uint8)
        assert np.abs(ours(image, steps) - single).max() <= 2
    for steps in draw_steps((*AFFINE, 'hue'), 5):
        single = image
        for step in steps:
            single = ours(single, [step]).astype(np.uint8)
        # A level less or more may turn the hue of a dull colour.
        differences = np.abs(ours(image, steps) - single)
        assert differences.mean() <= 0.6
        assert (differences <= 2).mean() >= 0.95


def test_a_view_goes_through_the_stated_steps():
    """A fully augmented view, from the parts that other tests verify."""
    image = photo(40, 40)
    transform = MultiCrop(
        global_size=40,
        num_local=0,
        global_scale=(1, 1),
        ratio=(1, 1),
        flip_prob=1,
        jitter_prob=1,
        **(NO_JITTER | dict(brightness=0.5)),
        grey_prob=1,
        blur_prob=(1, 1, 1),
        blur_sigma=(1, 1),
        solarize_prob=(1, 1, 1),
        solarize_threshold=90,
    )
    views = transform(dict(img=image.copy(), sample_idx=SampleKey(0)))['img']
    for view in views:
        assert torch.equal(view[0], view[1])
        assert torch.equal(view[0], view[2])
    grey = image[:, ::-1].astype(float) @ [0.114, 0.587, 0.299]
    weights = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    kernel = np.outer(weights, weights) / weights.sum() ** 2

    def wanted(factor):
        dimmed = np.clip(factor * grey, 0, 255)
        padded = np.pad(dimmed, 3, mode='reflect')
        windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7))
        blurred = (windows * kernel).sum((2, 3))
        return np.where(blurred < 90, blurred, 255 - blurred)

    candidates = np.stack([wanted(f) for f in np.linspace(0.5, 1.5, 501)])
    for view in views:
        # The factor is unknown: some factor explains the whole view.
        errors = np.median(np.abs(candidates - view[0].numpy()), (1, 2))
        assert errors.min() <= 0.5
        assert np.median(errors) > 5


# Output


@pytest.mark.parametrize('num_local', [0, 1, 8])
def test_two_global_views_then_local_ones(num_local):
    transform = MultiCrop(num_local=num_local)
    results = transform(dict(img=photo(120, 200)))
    views = results['img']
    shapes = [(3, 224, 224)] * 2 + [(3, 96, 96)] * num_local
    assert [tuple(view.shape) for view in views] == shapes
    for view in views:
        assert view.dtype == torch.uint8
        assert view.is_contiguous()


def test_views_keep_the_channel_order_and_the_image():
    image = plain(10, 20, 30)
    views = make_views(only(), image, images=1)[0]
    assert (views == np.reshape([10, 20, 30], (3, 1, 1))).all()
    before = noise(50, 70)
    image = before.copy()
    MultiCrop(**SMALL)(dict(img=image))
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    'shape', [(1, 1), (3, 200), (200, 3), (2, 2), (64, 1000)]
)
def test_small_and_narrow_images(shape):
    transform = MultiCrop(**SMALL)
    for index in range(20):
        views = transform(
            dict(img=noise(*shape), sample_idx=SampleKey(index))
        )['img']
        sides = [view.shape[-1] for view in views]
        assert sides == [32, 32, 16, 16, 16, 16]
        assert {view.shape[0] for view in views} == {3}


def test_an_image_from_a_grey_file(tmp_path):
    from mmscfs.datasets import LoadImage

    path = str(tmp_path / 'grey.png')
    assert cv2.imwrite(path, noise(40, 60)[..., 0])
    results = LoadImage()(dict(img_path=path, sample_idx=SampleKey(0)))
    assert results['img'].shape == (40, 60, 3)
    views = MultiCrop(**SMALL)(results)['img']
    for view in views:
        assert view.shape[0] == 3
        # Grey has no hue to turn and no saturation.
        channels = view.numpy().astype(int)
        assert np.ptp(channels, axis=0).max() <= 1


# Settings


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('global_size', 0),
        ('global_size', 224.0),
        ('global_size', (224, 224)),
        ('local_size', -96),
        ('num_local', -1),
        ('num_local', 1.5),
        ('global_scale', (0, 1)),
        ('global_scale', (0.5, 0.25)),
        ('global_scale', (0.5, 1.1)),
        ('global_scale', 0.5),
        ('local_scale', (-0.1, 0.2)),
        ('local_scale', (0.05, 0.1, 0.2)),
        ('ratio', (0, 1)),
        ('ratio', (4 / 3, 3 / 4)),
        ('ratio', 1),
        ('ratio', (1, math.inf)),
        ('flip_prob', 1.1),
        ('flip_prob', math.nan),
        ('jitter_prob', -0.1),
        ('grey_prob', 2),
        ('brightness', 1.5),
        ('brightness', -0.4),
        ('contrast', 2),
        ('saturation', -1),
        ('hue', 0.6),
        ('hue', -0.1),
        ('blur_prob', 0.5),
        ('blur_prob', (1, 0.1)),
        ('blur_prob', None),
        ('blur_sigma', (0, 2)),
        ('blur_sigma', (2, 0.1)),
        ('blur_sigma', 1.0),
        ('blur_sigma', (0.1, math.inf)),
        ('solarize_prob', 0.2),
        ('solarize_prob', ()),
        ('solarize_threshold', -1),
        ('solarize_threshold', 257),
    ],
)
def test_invalid_setting_is_named(name, value):
    with pytest.raises(ValueError, match=name) as caught:
        MultiCrop(**{name: value})
    assert f'{name}={value}' in str(caught.value)


@pytest.mark.parametrize('name', ['blur_prob', 'solarize_prob'])
@pytest.mark.parametrize('place', [0, 1, 2])
@pytest.mark.parametrize('value', [-0.1, 1.1])
def test_invalid_probability_of_a_kind_is_named(name, place, value):
    triple = [0.5, 0.5, 0.5]
    triple[place] = value
    with pytest.raises(ValueError, match=name) as caught:
        MultiCrop(**{name: triple})
    assert f'{name}[{place}]={value}' in str(caught.value)


@pytest.mark.parametrize('on_device', [False, True])
@pytest.mark.parametrize(
    ('kind', 'channels'),
    [(np.uint16, (3,)), (np.float32, (3,)), (np.uint8, (4,)), (np.uint8, ())],
)
def test_images_of_another_type_are_refused(kind, channels, on_device):
    """As color_type='unchanged' loads them: a view would be unset memory."""
    image = np.zeros((40, 50, *channels), kind)
    crop = MultiCrop(color_on_device=on_device)
    with pytest.raises(ValueError, match=r'must be uint8 \(H, W, 3\)'):
        crop(dict(img=image))
