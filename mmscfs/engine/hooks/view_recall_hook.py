# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence

import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import master_only
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from mmscfs.datasets.samplers import SampleKey
from mmscfs.datasets.transforms.loading import UnreadableImageError
from mmscfs.evaluation import view_retrieval
from mmscfs.visualization import evaluating, spread
from mmscfs.visualization.views import find_multi_crop

from ..loops.features import choose_backbone, normalize, pool
from ..resume.random_states import kept_random_states
from ..runner_access import unwrapped_model
from .recurring_hook import RecurringHook

SEED = 2023  # of the crops: the same at every measurement
BATCH = 32
KS = (1, 5)


@HOOKS.register_module()
class ViewRecallHook(RecurringHook):
    """Log how often a crop of an image finds the other crop of that image.

    A figure of quality that needs no labels: two random global crops of each
    of some training images, always the same, go through the teacher's
    backbone, and every first crop ranks all second ones by the cosine
    similarity of their pooled features, and vice versa. The log has the
    percentage whose own image is the first, or among the first five
    (``view_recall/top1``, ``view_recall/top5``); chance is 100 / N and
    500 / N. Measured before the first step, every few epochs, and after the
    last one. Compare it within a run: images and crops decide its level.

    The training goes on as it would without the hook, to the bit.

    Args:
        interval (int): Epochs between measurements. Defaults to 10.
        iter_interval (int): Iterations between them in a run that has no
            epochs. Defaults to 5000.
        num_images (int): Images N, evenly spread over the data set. Defaults
            to 500.

    Raises:
        ValueError: A setting is outside its range, or the pipeline has no
            MultiCrop.

    Example:
        >>> default_hooks = dict(view_recall=dict(type='ViewRecallHook'))
    """

    least_images = max(KS)

    def __init__(
        self,
        interval: int = 10,
        iter_interval: int = 5000,
        num_images: int = 500,
    ) -> None:
        super().__init__(interval, iter_interval, num_images)

    @master_only
    def look(self, runner: Runner, step: int, epoch: int) -> None:
        """Measure and log, as of an epoch, or of an iteration without them."""
        model = unwrapped_model(runner)
        backbone = choose_backbone(model, None)
        dataset = runner.train_dataloader.dataset
        places = spread(len(dataset), self.num_images)
        features = []
        with kept_random_states(), evaluating(backbone), torch.no_grad():
            for start in range(0, len(places), BATCH):
                pairs = view_pairs(dataset, places[start : start + BATCH])
                outputs = backbone(normalize(model, pairs))
                if not isinstance(outputs, Tensor):
                    outputs = outputs[-1]
                features.append(pool(outputs).float().unflatten(0, (2, -1)))
        first, second = torch.cat(features, 1)
        if len(first) < max(KS):
            return  # too few to rank
        ways = (
            view_retrieval(first, second, KS),
            view_retrieval(second, first, KS),
        )
        figures = {
            f'view_recall/top{k}': sum(way[k] for way in ways) / 2 for k in KS
        }
        is_by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        at = epoch if is_by_epoch else step
        runner.visualizer.add_scalars(figures, step=at)
        runner.logger.info(
            f'View recall of {len(first)} images: '
            + ', '.join(
                f'top-{k} {figures[f"view_recall/top{k}"]:.1f} % (chance '
                f'{100 * k / len(first):.1f})'
                for k in KS
            )
        )


def view_pairs(dataset: BaseDataset, places: Sequence[int]) -> Tensor:
    """Return two global views of some images, uint8 (2 M, 3, S, S).

    All first ones, then all second ones. Images that cannot be read are left
    out.

    Raises:
        ValueError: The pipeline has no MultiCrop.
    """
    found = find_multi_crop(dataset)
    if found is None:
        raise ValueError(
            'ViewRecallHook needs a MultiCrop in the pipeline of '
            'train_dataloader.dataset: remove the hook from default_hooks'
        )
    load, crop = found
    crop.num_local = 0
    views = []
    for place in places:
        info = dict(dataset.get_data_info(place))
        info['sample_idx'] = SampleKey(place, SEED)
        try:
            views.append(torch.stack(crop(load(info))['img']))
        except UnreadableImageError:
            continue  # the training names it
    return torch.stack(views, 1).flatten(0, 1)
