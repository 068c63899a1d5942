# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What networks know about the demo's unseen scenes."""

from pathlib import Path
from statistics import mean

import cv2
import torch
from mmpretrain.registry import TRANSFORMS
from torch import Tensor

from mmscfs.datasets.samplers import SampleKey
from mmscfs.engine.loops import normalize
from mmscfs.evaluation import top_k_accuracy, view_retrieval, weighted_knn
from mmscfs.models.search import global_average_pool

VIEW_SEEDS = (2023, 2024, 2025)  # the same views for every network


class Scenes:
    """The scenes as tensors, for every network the same.

    Args:
        folder (Path): The data set.
        multi_crop (dict): The config's MultiCrop.
    """

    def __init__(self, folder: Path, multi_crop: dict) -> None:
        self.load = TRANSFORMS.build(dict(type='LoadImage'))
        self.multi_crop = TRANSFORMS.build({**multi_crop, 'num_local': 0})
        self.paths = {
            split: sorted((folder / split).glob('*/*.jpg'))
            for split in ('train', 'val')
        }

    def labels(self, split: str) -> Tensor:
        """Return the main digits, int64 (M,)."""
        return torch.tensor([int(p.parent.name) for p in self.paths[split]])

    def whole(self, split: str) -> Tensor:
        """Return scenes at the size of a global view, uint8 (M, 3, S, S)."""
        size = self.multi_crop.global_size
        images = []
        for path in self.paths[split]:
            image = self.load(dict(img_path=str(path)))['img']
            image = cv2.resize(
                image, (size, size), interpolation=cv2.INTER_AREA
            )
            images.append(torch.from_numpy(image).permute(2, 0, 1))
        return torch.stack(images)

    def global_views(self, seed: int) -> tuple[Tensor, Tensor]:
        """Return two views of each unseen scene, each uint8 (Q, 3, S, S).

        They are those that the training would make.
        """
        pairs = []
        for index, path in enumerate(self.paths['val']):
            results = self.load(dict(img_path=str(path)))
            results['sample_idx'] = SampleKey(index, seed)
            pairs.append(torch.stack(self.multi_crop(results)['img']))
        return torch.stack(pairs, 1).unbind()


def evaluate(model, scenes: Scenes) -> dict[str, float]:
    """Return view retrieval and k-NN accuracy of a network, in percent."""
    model.eval()

    @torch.no_grad()
    def features(images):
        return torch.cat(
            [
                global_average_pool(model(normalize(model, part))[-1])
                for part in images.split(100)
            ]
        )

    # Each view searches for the other one: both ways, several draws.
    recalls = []
    for seed in VIEW_SEEDS:
        pair = tuple(map(features, scenes.global_views(seed)))
        recalls += [view_retrieval(*pair), view_retrieval(*reversed(pair))]
    recall = {k: mean(found[k] for found in recalls) for k in (1, 5)}
    scores = weighted_knn(
        features(scenes.whole('val')),
        features(scenes.whole('train')),
        scenes.labels('train'),
        k=20,
    )
    return {
        'recall@1': recall[1],
        'recall@5': recall[5],
        '20-NN': top_k_accuracy(scores, scenes.labels('val')),
    }
