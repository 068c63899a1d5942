# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather_object
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.registry import LOOPS
from torch import Tensor
from torch.utils.data import DataLoader

from mmscfs.evaluation import (
    background_boxes,
    box_features,
    count_pixels,
    mean_iou,
    paint_masks,
    patch_labels,
    sample_patches,
    segment_patches,
    top_k_accuracy,
    weighted_knn,
)
from mmscfs.models.utils import evaluating

from ..resume.random_states import kept_random_states
from ..runner_access import unwrapped_model
from .box_data import load_box_data
from .feature_loop import FeatureLoop
from .features import (
    choose_backbone,
    choose_layers,
    dataset_of,
    named_outputs,
    normalize,
    own_places,
    progress,
)

STRIDE = 32  # px; sides are padded to multiples of it, as detectors do
PATCH = 8  # px; finer maps are averaged to it where masks are predicted
BACKGROUND = -1  # the label of a box without an object
Rows = dict[tuple[str, str], Tensor]  # by kind and layer


class BoxProbe:
    """Measure what frozen maps know of annotated objects, without training.

    Boxes are cut out of the maps by RoIAlign. By their nearest boxes in the
    bank, each of the queries gets a class; and, with background boxes of the
    same sizes elsewhere in the images, it is told whether it holds an object.
    With masks, patches in the bank predict the pixels of the queries (see
    ``mmscfs.evaluation.boxes``). Every backbone gets the same boxes,
    background and patches.

    Args:
        model (BaseModel): Has a ``backbone`` and a ``data_preprocessor``.
        queries (Mapping): Config of a loader, see ``load_box_data``.
        bank (Mapping): The same.
        layers, network: As of :class:`FeatureLoop`. Defaults to "all" and
            None.
        num_images (int): Images of each at most, drawn with one seed.
            Defaults to 500.
        k (int): Boxes that vote. Defaults to 20.
        segmentation (bool): Whether masks are predicted. Defaults to False.
        memory (int): Patches of a layer, of all images, that are kept for
            it. Defaults to 10,000.

    Raises:
        ValueError: ``k`` exceeds the boxes of the bank, ``layers`` or
            ``network`` is not there, a layer is not a map, or see
            ``load_box_data``.
    """

    def __init__(
        self,
        model: BaseModel,
        queries: Mapping,
        bank: Mapping,
        layers: str | Sequence[str] = 'all',
        network: str | None = None,
        num_images: int = 500,
        k: int = 20,
        segmentation: bool = False,
        memory: int = 10000,
    ) -> None:
        self.model, self.layers = model, layers
        self.backbone = choose_backbone(model, network)
        self.queries, self.bank = load_box_data(
            queries, bank, num_images, segmentation
        )
        if not 1 <= k <= self.bank.boxes:
            raise ValueError(
                f'box probe: k={k} must be at least 1 and at most the '
                f'{self.bank.boxes} boxes of the bank: set another k, or add '
                'annotated images'
            )
        self.k, self.segmentation = k, segmentation
        # Of each image; at least one.
        self.quota = -(-max(1, memory) // len(dataset_of(self.bank.loader)))
        with kept_random_states(), evaluating(self.backbone):
            self.read_maps(self.queries.loader.dataset[0]['inputs'])

    @torch.no_grad()
    def read_maps(self, image: Tensor) -> dict[str, Tensor]:
        """Return the maps of an image, (3, H, W), by layer, each (C, h, w).

        They cover it and, at the right and the bottom, what fills its sides
        up to multiples of STRIDE with the mean's value.

        Raises:
            ValueError: ``layers`` is not there, or a layer is not a map.
        """
        height, width = image.shape[-2:]
        image = normalize(self.model, [image])
        image = F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE))
        outputs = named_outputs(self.backbone, image)
        names = choose_layers([*outputs], self.layers)
        for name in names:
            if outputs[name].ndim != 4:
                raise ValueError(
                    f'box probe: {name} of {type(self.backbone).__name__} is '
                    f'not a map, but has the shape '
                    f'{tuple(outputs[name].shape)}: set other layers, or '
                    "model.backbone.out_type='featmap'"
                )
        return {name: outputs[name][0].float() for name in names}

    @torch.no_grad()
    def measure(self) -> dict[str, dict[str, float]]:
        """Measure the backbone, and leave it and the run as they were.

        It normalizes by the statistics of its training.

        Returns:
            dict[str, dict[str, float]]: In percent, for "all" layers, whose
            features are joined, and by layer, if there are several.
            ``top1``, the accuracy of the boxes' classes, if there are
            several; ``object_top1``, that of object against background;
            ``mIoU`` of the masks, of all layers the mean.

        Raises:
            ValueError: A feature is not finite.
        """
        # A loader draws a seed for its workers even where nothing is random.
        with kept_random_states(), evaluating(self.backbone):
            bank = self.collect(self.bank.loader, 'bank')
            queries = self.collect(self.queries.loader, 'queries', bank)
        layers = [layer for kind, layer in bank if kind == 'boxes']
        groups = {'all': layers}
        if len(layers) > 1:
            groups |= {layer: [layer] for layer in layers}
        found = {
            name: self.classify(queries, bank, group)
            for name, group in groups.items()
        }
        for name, group in groups.items() if self.segmentation else ():
            ious = [mean_iou(queries['counts', n].sum(0)) for n in group]
            found[name]['mIoU'] = sum(ious) / len(ious)
        return found

    def collect(
        self, loader: DataLoader, what: str, bank: Rows | None = None
    ) -> Rows:
        """Join the rows of all processes' images, in the images' order."""
        own: dict[int, Rows] = {}
        places = iter(own_places(loader, what).tolist())
        for batch in progress(f'maps of the {what}')(loader):
            # The sampler repeats images to give every process as many; the
            # places, which come last here, end before them.
            for image, sample, place in zip(
                batch['inputs'], batch['data_samples'], places, strict=False
            ):
                own[place] = self.describe(image, sample, place, bank)
        rows: dict[int, Rows] = {}
        for part in all_gather_object(own):
            rows |= part
        ordered = [rows[place] for place in sorted(rows)]
        return {
            key: torch.cat([r[key] for r in ordered]) for key in ordered[0]
        }

    def describe(
        self, image: Tensor, sample: Any, place: int, bank: Rows | None
    ) -> Rows:
        """Return what is kept of an image, features in half precision.

        ``labels`` (N,) of its boxes and of each layer their features
        ``boxes`` (N, C). With masks, of the bank ``patches`` (M, C) and their
        ``shares`` of K classes (M, K), and of queries, which have a ``bank``,
        ``counts`` of pixels (1, K, K).
        """
        maps = self.read_maps(image)
        inside = image.shape[-2:]
        size = [side + -side % STRIDE for side in inside]
        objects, others = sample.gt_instances, sample.ignored_instances
        boxes = objects.bboxes.tensor
        avoid = torch.cat([boxes, others.bboxes.tensor])
        background = background_boxes(boxes, avoid, inside, seed=place)
        none = objects.labels.new_full([len(background)], BACKGROUND)
        boxes = torch.cat([boxes, background])
        rows = {('labels', ''): torch.cat([objects.labels, none])}
        number = len(self.bank.classes)
        if self.segmentation:
            masks, ignored = (
                part.masks.to_tensor(torch.bool, 'cpu')
                for part in (objects, others)
            )
            pixels = paint_masks(masks, objects.labels, ignored, size, number)
        for layer, part in maps.items():
            rows['boxes', layer] = box_features(part, boxes, size).half().cpu()
            if not self.segmentation:
                continue
            cells = max(1, PATCH * part.shape[1] // size[0])
            patches = F.avg_pool2d(part, cells)
            features, shape = patches.flatten(1).T, patches.shape[1:]
            if bank is None:
                shares = patch_labels(pixels, shape, number + 1)
                kept = sample_patches(shares, self.quota, seed=place)
                features = F.normalize(features.cpu()[kept], dim=-1)
                rows['patches', layer] = features.half()
                rows['shares', layer] = shares[kept].half()
            else:
                memory = bank['patches', layer], bank['shares', layer]
                scores = segment_patches(features, *memory)
                counts = count_pixels(scores, shape, pixels)
                rows['counts', layer] = counts[None].int()
        return rows

    def classify(
        self, queries: Rows, bank: Rows, layers: Sequence[str]
    ) -> dict[str, float]:
        """Return the accuracies of boxes by the features of some layers."""
        # Each layer's features have length 1, so all layers count alike.
        own, known = (
            torch.cat([rows['boxes', layer] for layer in layers], 1)
            for rows in (queries, bank)
        )
        labels, known_labels = queries['labels', ''], bank['labels', '']
        is_own, is_known = labels != BACKGROUND, known_labels != BACKGROUND
        found = {}
        if len(self.bank.classes) > 1:
            found['top1'] = self.accuracy(
                *(own[is_own], known[is_known]),
                *(labels[is_own], known_labels[is_known]),
            )
        found['object_top1'] = self.accuracy(
            own, known, is_own.long(), is_known.long()
        )
        return found

    def accuracy(
        self, own: Tensor, known: Tensor, labels: Tensor, known_labels: Tensor
    ) -> float:
        """Return that of k-NN, in percent, from features and labels."""
        device = next(self.backbone.parameters()).device
        number = len(self.bank.classes) + 1  # not less than 2
        scores = weighted_knn(
            own.to(device), known, known_labels, self.k, num_classes=number
        )
        return top_k_accuracy(scores.cpu(), labels)


@LOOPS.register_module()
class BoxProbeLoop(FeatureLoop):
    """Measure frozen maps by annotated boxes, as validation or test loop.

    See :class:`BoxProbe` for what is measured. The log has ``boxes/top1``,
    ``boxes/object_top1`` and ``boxes/mIoU``, and of several layers
    ``boxes/<layer>_top1`` and so on. The data sets are mmdet's, such as
    ``mmdet.CocoDataset`` and ``mmdet.VOCDataset``; the bank takes the pipeline
    of the queries.

    Args:
        runner (Runner): The runner.
        dataloader (dict): The images to judge.
        evaluator (list): Must be empty.
        bank_dataloader (dict): The annotated images that answer.
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
        **kwargs: Any,
    ) -> None:
        self.probe = BoxProbe(
            unwrapped_model(runner), dataloader, bank_dataloader, **kwargs
        )
        loaders = self.probe.queries.loader, self.probe.bank.loader
        super().__init__(runner, loaders[0], evaluator, loaders[1])

    def measure(self) -> dict[str, float]:
        """Return the figures of the boxes."""
        return {
            f'boxes/{name}' if layer == 'all' else f'boxes/{layer}_{name}': v
            for layer, figures in self.probe.measure().items()
            for name, v in figures.items()
        }
