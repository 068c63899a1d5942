# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather_object, all_reduce
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.registry import LOOPS
from torch import Tensor

from mmscfs.evaluation import (
    background_boxes,
    box_features,
    check_temperature,
    count_pixels,
    mean_iou,
    paint_masks,
    patch_labels,
    sample_patches,
    segment_patches,
    top_k_accuracy,
    weighted_knn,
)
from mmscfs.visualization import evaluating

from ..resume.random_states import kept_random_states
from ..runner_access import unwrapped_model
from .box_data import load_box_data
from .box_maps import ImageMaps, check_layers, extract_maps
from .feature_loop import FeatureLoop
from .features import choose_backbone, dataset_of

PATCH = 8  # px; finer maps are averaged to it where masks are predicted
BACKGROUND = -1  # the label of a box without an object
Patches = dict[str, tuple[Tensor, Tensor]]


class Regions(NamedTuple):
    """What is kept of the images of all processes, in half precision.

    Attributes:
        boxes (dict[str, Tensor]): Features of boxes by layer, (N, C).
        labels (Tensor): Their classes, or BACKGROUND, int64 (N,).
        patches (dict[str, tuple[Tensor, Tensor]]): By layer, features of
            patches (M, C) and their shares of classes (M, K).
    """

    boxes: dict[str, Tensor]
    labels: Tensor
    patches: Patches


class BoxProbe:
    """Measure what frozen maps know of annotated objects, without training.

    Boxes are cut out of the maps by RoIAlign. By their nearest boxes in the
    bank, each of the queries gets a class; and, with background boxes of the
    same sizes elsewhere in the images, it is told whether it holds an object.
    With masks, patches in the bank predict the pixels of the queries (see
    :mod:`mmscfs.evaluation.boxes`). Every backbone gets the same boxes,
    background and patches.

    Args:
        queries (Mapping): Config of a loader, see :func:`load_box_data`.
        bank (Mapping): The same.
        num_images (int): Images of each at most. Defaults to 500.
        k (int): Boxes that vote. Defaults to 20.
        temperature (float): Of the votes. Defaults to 0.07.
        grid (int): Cells of a box in each direction. Defaults to 3.
        segmentation (bool): Whether masks are predicted. Defaults to False.
        memory (int): Patches of a layer, of all images, that are kept for
            it. Defaults to 10,000.

    Raises:
        ValueError: A setting is out of its range, or see
            :func:`load_box_data`.
    """

    def __init__(
        self,
        queries: Mapping,
        bank: Mapping,
        num_images: int = 500,
        k: int = 20,
        temperature: float = 0.07,
        grid: int = 3,
        segmentation: bool = False,
        memory: int = 10000,
    ) -> None:
        for name, value, least in (
            ('num_images', num_images, 2),
            *(('k', k, 1), ('grid', grid, 1), ('memory', memory, 1)),
        ):
            if type(value) is not int or value < least:
                raise ValueError(
                    f'box probe: {name}={value!r} must be a whole number >= '
                    f'{least}'
                )
        check_temperature(temperature)
        self.queries, self.bank = load_box_data(
            queries, bank, num_images, segmentation
        )
        if k > self.bank.boxes:
            raise ValueError(
                f'box probe: k={k} must be at most the {self.bank.boxes} '
                'boxes of the bank: set k lower, or add annotated images'
            )
        self.k, self.temperature, self.grid = k, temperature, grid
        self.segmentation = segmentation
        self.quota = -(-memory // len(dataset_of(self.bank.loader)))

    @torch.no_grad()
    def measure(
        self,
        model: BaseModel,
        layers: str | Sequence[str] = 'all',
        network: str | None = None,
    ) -> dict[str, float]:
        """Measure a model's backbone, and leave it and the run as they were.

        It normalizes by the statistics of its training.

        Args:
            model (BaseModel): Has a ``backbone`` and a ``data_preprocessor``.
            layers (str | Sequence[str]): "last", "all", or names. Defaults
                to "all".
            network (str, optional): "teacher", "student", or None: the
                teacher where there is one. Defaults to None.

        Returns:
            dict[str, float]: In percent. ``boxes/top1``, the accuracy of the
            boxes' classes, if there are several; ``boxes/object_top1``, that
            of object against background; ``boxes/mIoU`` of the masks. Of
            several layers ``boxes/<layer>_top1`` and so on; the others are
            then those of all layers' features joined, and the mean mIoU.

        Raises:
            ValueError: As :func:`check_layers`, or a feature is not finite.
        """
        backbone = choose_backbone(model, network)
        device = next(backbone.parameters()).device
        num_labels = len(self.bank.classes) + 1
        # A loader draws a seed for its workers even where nothing is random.
        with kept_random_states(), evaluating(backbone):
            bank = collect(
                extract_maps(model, self.bank.loader, 'bank', layers, network),
                self.grid,
                self.keep_patches if self.segmentation else None,
            )
            pixels = {
                layer: torch.zeros(num_labels, num_labels, dtype=torch.int64)
                for layer in bank.patches
            }

            def segment(image: ImageMaps) -> Patches:
                labels = self.label(image)
                for layer, part in to_patches(image).items():
                    scores = segment_patches(
                        part.flatten(1).T, *bank.patches[layer]
                    )
                    pixels[layer] += count_pixels(
                        scores, part.shape[1:], labels
                    )
                return {}

            queries = collect(
                extract_maps(
                    model, self.queries.loader, 'queries', layers, network
                ),
                self.grid,
                segment if self.segmentation else None,
            )
        found: dict[str, float] = {}
        for layer in bank.boxes:
            if len(bank.boxes) > 1:
                found |= self.classify(queries, bank, [layer], device)
        found |= self.classify(queries, bank, [*bank.boxes], device)
        for counts in pixels.values():
            all_reduce(counts)
        ious = {layer: mean_iou(counts) for layer, counts in pixels.items()}
        if len(ious) > 1:
            found |= {f'{layer}_mIoU': iou for layer, iou in ious.items()}
        if ious:
            found['mIoU'] = sum(ious.values()) / len(ious)
        return {f'boxes/{name}': value for name, value in found.items()}

    def label(self, image: ImageMaps) -> Tensor:
        """Return the class of every pixel that an image's maps cover."""
        found, ignored = (
            part.masks.to_tensor(torch.bool, 'cpu')
            for part in (
                image.sample.gt_instances,
                image.sample.ignored_instances,
            )
        )
        labels = image.sample.gt_instances.labels
        return paint_masks(
            *(found, labels, ignored, image.size, len(self.bank.classes))
        )

    def keep_patches(self, image: ImageMaps) -> Patches:
        """Return the patches of an image that the memory keeps, by layer."""
        labels, kept = self.label(image), {}
        for layer, part in to_patches(image).items():
            shares = patch_labels(
                labels, part.shape[1:], len(self.bank.classes) + 1
            )
            chosen = sample_patches(shares, self.quota, seed=image.place)
            features = F.normalize(part.flatten(1).T.cpu()[chosen], dim=-1)
            kept[layer] = features.half(), shares[chosen].half()
        return kept

    def classify(
        self,
        queries: Regions,
        bank: Regions,
        layers: Sequence[str],
        device: torch.device,
    ) -> dict[str, float]:
        """Return the accuracies of boxes by the features of some layers."""
        prefix = f'{layers[0]}_' if len(layers) < len(bank.boxes) else ''
        # Each layer's features have length 1, so all layers count alike.
        known, own = (
            torch.cat([regions.boxes[layer] for layer in layers], 1)
            for regions in (bank, queries)
        )
        known_objects = bank.labels != BACKGROUND
        own_objects = queries.labels != BACKGROUND
        tasks = {
            'object_top1': (own, known, own_objects, known_objects.long(), 2)
        }
        if (number := len(self.bank.classes)) > 1:
            tasks['top1'] = (
                *(own[own_objects], known[known_objects]),
                queries.labels[own_objects],
                *(bank.labels[known_objects], number),
            )
        return {
            f'{prefix}{name}': top_k_accuracy(
                weighted_knn(
                    features.to(device),
                    bank_features,
                    bank_labels,
                    self.k,
                    self.temperature,
                    classes,
                ).cpu(),
                labels.long(),
            )
            for name, (
                *(features, bank_features, labels, bank_labels, classes),
            ) in tasks.items()
        }


def to_patches(image: ImageMaps) -> dict[str, Tensor]:
    """Return the maps of an image, by layer, with patches of PATCH or more."""
    return {
        layer: F.avg_pool2d(
            part, max(1, PATCH * part.shape[1] // image.size[0])
        )
        for layer, part in image.maps.items()
    }


def collect(
    images: Iterator[ImageMaps],
    grid: int,
    dense: Callable[[ImageMaps], Patches] | None,
) -> Regions:
    """Collect the boxes of all processes' images, in the images' order.

    Args:
        images (Iterator[ImageMaps]): This process's images.
        grid (int): Cells of a box.
        dense (Callable, optional): Gets every image, and returns the patches
            to keep.
    """
    own = {}
    for image in images:
        objects = image.sample.gt_instances
        boxes, ignored = (
            getattr(part.bboxes, 'tensor', part.bboxes)
            for part in (objects, image.sample.ignored_instances)
        )
        background = background_boxes(
            *(boxes, torch.cat([boxes, ignored]), image.inside, image.place)
        )
        labels = objects.labels.new_full([len(background)], BACKGROUND)
        boxes = torch.cat([boxes, background])
        own[image.place] = (
            {
                layer: box_features(part, boxes, image.size, grid).half().cpu()
                for layer, part in image.maps.items()
            },
            torch.cat([objects.labels, labels]),
            dense(image) if dense else {},
        )
    everything: dict[int, tuple] = {}
    for part in all_gather_object(own):
        everything |= part
    features, labels, patches = zip(
        *(everything[place] for place in sorted(everything)), strict=True
    )
    return Regions(
        {n: torch.cat([own[n] for own in features]) for n in features[0]},
        torch.cat(labels),
        {
            n: (
                torch.cat([own[n][0] for own in patches]),
                torch.cat([own[n][1] for own in patches]),
            )
            for n in patches[0]
        },
    )


@LOOPS.register_module()
class BoxProbeLoop(FeatureLoop):
    """Measure frozen maps by annotated boxes, as validation or test loop.

    See :class:`BoxProbe` for what is measured and its names in the log. The
    data sets are mmdet's, such as ``mmdet.CocoDataset`` and
    ``mmdet.VOCDataset``; the bank takes the pipeline of the queries.

    Args:
        runner (Runner): The runner.
        dataloader (dict): The images to judge.
        evaluator (list): Must be empty.
        bank_dataloader (dict): The annotated images that answer.
        layers (str | Sequence[str]): "last", "all", or names. Defaults to
            "all".
        network (str, optional): "teacher", "student", or None: the teacher
            where there is one. Defaults to None.
        **kwargs: Those of :class:`BoxProbe`.

    Raises:
        ValueError: See :class:`BoxProbe` and :class:`FeatureLoop`.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: list,
        bank_dataloader: dict,
        layers: str | Sequence[str] = 'all',
        network: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_layers(unwrapped_model(runner), layers, network)
        self.probe = BoxProbe(dataloader, bank_dataloader, **kwargs)
        super().__init__(
            *(runner, self.probe.queries.loader, evaluator),
            *(self.probe.bank.loader, layers, network),
        )

    def measure(self) -> dict[str, float]:
        """Return the figures of the boxes."""
        model = unwrapped_model(self.runner)
        return self.probe.measure(model, self.layers, self.network)
