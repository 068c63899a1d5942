# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What frozen maps know of annotated boxes and masks, without training.

Boxes become features by RoIAlign, for the k-NN of this package. Masks are
predicted by dense nearest neighbors, as in `Hummingbird
<https://arxiv.org/abs/2306.01667>`_: a memory of training patches with their
shares of classes answers for every patch of an image.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, roi_align

from .neighbors import find_neighbors

IGNORED = -1  # pixels that are of no known class
GRID, SAMPLES = 3, 2  # cells of a box, and samples of a cell, each way
TRIES, MAX_IOU = 50, 0.3  # places for each background box; with any object


def box_features(
    feature_map: Tensor, boxes: Tensor, size: Sequence[int]
) -> Tensor:
    """Cut the features of boxes out of an image's map, by RoIAlign.

    Args:
        feature_map (Tensor): Shape (C, h, w).
        boxes (Tensor): Left, top, right, bottom in px of the image, (N, 4).
        size (Sequence[int]): Height and width of the image that the whole
            map covers, px.

    Returns:
        Tensor: Shape (N, 9 C), C times 3 x 3 cells, each row of length 1.
    """
    height, width = feature_map.shape[1:]
    scale = feature_map.new_tensor([width / size[1], height / size[0]] * 2)
    boxes = boxes.to(feature_map) * scale
    cells = roi_align(
        feature_map[None], [boxes], GRID, sampling_ratio=SAMPLES, aligned=True
    )
    return F.normalize(cells.flatten(1), dim=-1)


def background_boxes(
    boxes: Tensor, avoid: Tensor, size: Sequence[int], seed: int
) -> Tensor:
    """Draw boxes of the same sizes elsewhere in the image.

    Args:
        boxes (Tensor): Boxes of objects, in px, (N, 4).
        avoid (Tensor): Those of all objects, (O, 4). Intersection over union
            with any stays below 0.3.
        size (Sequence[int]): Height and width of the image, px.
        seed (int): Of the places.

    Returns:
        Tensor: Shape (M, 4). M is less than N where none of 50 random places
        of a box will do.
    """
    generator = torch.Generator().manual_seed(seed)
    sides = boxes[:, 2:] - boxes[:, :2]
    room = (boxes.new_tensor([size[1], size[0]]) - sides).clamp_min(0)
    draws = torch.rand(TRIES, len(boxes), 2, generator=generator)
    corners = draws.to(boxes) * room
    drawn = torch.cat([corners, corners + sides], -1)  # (TRIES, N, 4)
    overlap = box_iou(drawn.flatten(0, 1), avoid).unflatten(0, (TRIES, -1))
    is_free = (overlap < MAX_IOU).all(-1)
    first = is_free.int().argmax(0)
    return drawn[first, torch.arange(len(boxes))][is_free.any(0)]


def paint_masks(
    masks: Tensor,
    labels: Tensor,
    ignored: Tensor,
    size: Sequence[int],
    num_classes: int,
) -> Tensor:
    """Return the class of every pixel of an image; small masks are in front.

    Args:
        masks (Tensor): Of its objects, bool (N, H, W).
        labels (Tensor): Their classes, int64 (N,).
        ignored (Tensor): Masks of regions to leave out, such as crowds, bool
            (O, H, W).
        size (Sequence[int]): Height and width of the result, at least H
            and W; what is beyond them is ignored.
        num_classes (int): Number of classes, which is the background's label.

    Returns:
        Tensor: int64 of shape ``size``.
    """
    painted = labels.new_full(size, IGNORED)
    inside = painted[: masks.shape[1], : masks.shape[2]]
    inside[:] = num_classes
    inside[ignored.any(0)] = IGNORED
    for i in masks.sum((1, 2)).argsort(descending=True, stable=True):
        inside[masks[i]] = labels[i]
    return painted


def patch_labels(
    labels: Tensor, shape: Sequence[int], num_classes: int
) -> Tensor:
    """Return the shares of the K classes in each of h w patches of an image.

    Args:
        labels (Tensor): Class of every pixel, or IGNORED, int64 (H, W).
        shape (Sequence[int]): Patches h and w; a pixel belongs to the patch
            that its top left corner lies in.
        num_classes (int): K.

    Returns:
        Tensor: float64 of shape (h w, K); rows add up to 1, or 0 where all
        pixels are ignored.
    """
    rows, columns = (
        torch.arange(side) * patches // side
        for side, patches in zip(labels.shape, shape, strict=True)
    )
    patch = rows[:, None] * shape[1] + columns
    known = labels != IGNORED
    places = patch[known] * num_classes + labels[known]
    counts = places.bincount(minlength=shape[0] * shape[1] * num_classes)
    counts = counts.view(-1, num_classes)
    return counts.double() / counts.sum(-1, keepdim=True).clamp_min(1)


def sample_patches(shares: Tensor, number: int, seed: int) -> Tensor:
    """Choose the patches of an image that a memory keeps.

    As in Hummingbird, those of the image's rarer classes are preferred: the
    smallest of a random number times the patches that the image has of the
    patch's classes are taken.

    Args:
        shares (Tensor): From :func:`patch_labels`, (P, K).
        number (int): Patches at most.
        seed (int): Of the choice.

    Returns:
        Tensor: Their places, int64; never those without a class.
    """
    generator = torch.Generator().manual_seed(seed)
    has = (shares > 0).double()
    order = (has * has.sum(0)).sum(-1)
    labeled = int((order > 0).sum())
    order *= torch.rand(len(shares), generator=generator).double()
    order[has.sum(-1) == 0] = torch.inf
    return order.argsort()[: min(number, labeled)]


@torch.no_grad()
def segment_patches(
    queries: Tensor,
    memory: Tensor,
    shares: Tensor,
    k: int = 30,
    temperature: float = 0.02,
    **kwargs: Any,
) -> Tensor:
    """Predict the classes of patches by attention to their neighbors.

    The shares of the k nearest patches of the memory are averaged with the
    weights softmax(cosine similarity / temperature).

    Args:
        queries (Tensor): Features of patches, (Q, C), of any length.
        memory (Tensor): Those of training patches, (M, C).
        shares (Tensor): Their shares of classes, (M, K).
        k (int): Neighbors, at most all. Defaults to 30.
        temperature (float): Defaults to 0.02.
        **kwargs: Those of :func:`find_neighbors`.

    Returns:
        Tensor: Shares of shape (Q, K), in the type of the similarities.

    Raises:
        ValueError: As :func:`find_neighbors`.
    """
    found = find_neighbors(queries, memory, min(k, len(memory)), **kwargs)
    weights = (found.similarity / temperature).softmax(-1)
    near = shares.to(weights)[found.index]
    return (weights[..., None] * near).sum(-2)


def count_pixels(
    scores: Tensor, shape: Sequence[int], labels: Tensor
) -> Tensor:
    """Count the pixels of each class by what is predicted for them.

    The scores of patches are resized to the image, bilinearly, and the
    largest is the prediction.

    Args:
        scores (Tensor): Scores of the patches, (h w, K).
        shape (Sequence[int]): h and w.
        labels (Tensor): Class of every pixel, or IGNORED, int64 (H, W).

    Returns:
        Tensor: int64 of shape (K, K), by true and predicted class.
    """
    num_classes = scores.shape[1]
    present = scores.any(0).nonzero()[:, 0]  # few of many classes
    maps = scores[:, present].T.reshape(1, -1, *shape)
    maps = F.interpolate(maps, labels.shape, mode='bilinear')
    predicted = present[maps[0].argmax(0)].to(labels.device)
    known = labels != IGNORED
    pairs = labels[known] * num_classes + predicted[known]
    return pairs.bincount(minlength=num_classes**2).view(num_classes, -1)


def mean_iou(counts: Tensor) -> float:
    """Mean intersection over union of the classes that images show.

    Args:
        counts (Tensor): Pixels by true and predicted class, (K, K).

    Returns:
        float: In percent.
    """
    shown = counts.sum(1) > 0
    hits = counts.diagonal().double()
    iou = hits / (counts.sum(0) + counts.sum(1) - hits)
    return 100 * iou[shown].mean().item()
