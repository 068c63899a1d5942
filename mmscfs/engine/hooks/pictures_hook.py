# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import Tensor

from mmscfs.datasets.wrappers import find_multi_crop
from mmscfs.models.utils import evaluating
from mmscfs.visualization import (
    compute_search_maps,
    draw_embedding,
    draw_search_maps,
    draw_views,
    embed,
    jigsaw,
    make_views,
    search_image,
    search_layers,
    spread,
)
from mmscfs.visualization.views import (
    decoded,
    load_readable,
    name_of,
)

from ..loops.features import (
    choose_backbone,
    normalize,
    pool,
    read_label,
)
from ..resume.random_states import kept_random_states
from ..runner_access import unwrapped_model
from .recurring_hook import RecurringHook

EMBEDDED = 1000  # images at most
BATCH = 32  # of them


@HOOKS.register_module()
class PicturesHook(RecurringHook):
    """Show in pictures what a pre-training sees and learns.

    Before the run, after its first epoch, then every few epochs and after the
    last one, the visualizer gets, so mmengine's local backend keeps as
    ``vis_data/vis_image/<name>_<iteration>.png`` and TensorBoard shows:

    - ``views``: some training images with the boxes of their crops, and
      the crops as the network gets them in the epoch to come, at the end
      in the last one;
    - ``search_maps``, of SCFS: where the teacher finds the quarters of the
      same images in the whole;
    - ``embedding``, if asked for: the teacher's features of validation images
      on a plane, by class.

    The images are the same every time. Only the main process draws; the
    training goes on as it would without the hook, to the bit. A picture that
    cannot be made is left out, and the log says once why.

    Args:
        num_images (int): Training images. Defaults to 4.
        embedding (bool): Draw the embedding, which takes seconds, of 1000
            images at most. Defaults to False.
        **kwargs: ``interval`` and ``iter_interval`` of
            :class:`RecurringHook`.

    Raises:
        ValueError: ``embedding`` has no val_dataloader.

    Example:
        >>> default_hooks = dict(pictures=dict(type='PicturesHook'))
    """

    looks_early = True

    def __init__(
        self, num_images: int = 4, embedding: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(num_images, **kwargs)
        self.embedding = embedding
        self._failed: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Draw what there is before the first step."""
        if self.embedding and runner.val_loop is None:
            raise ValueError(
                'PicturesHook: embedding=True has no val_dataloader to take '
                'labeled images from: set one, as '
                'configs/scfs/scfs_r50_knn.py does, or embedding=False'
            )
        super().before_train(runner)

    def look(self, runner: Runner, step: int, epoch: int) -> None:
        """Draw every picture, the views of the epoch to come."""
        if not is_main_process():
            return
        # After the last epoch none is to come: it is shown once more.
        coming = min(epoch, runner.max_epochs - 1)
        pictures = dict(views=lambda: self.views(runner, coming))
        if hasattr(unwrapped_model(runner), 'search_outputs'):
            pictures['search_maps'] = lambda: self.search_maps(runner, step)
        if self.embedding:
            pictures['embedding'] = lambda: self.embed(runner, step)
        with kept_random_states():
            for name, make in pictures.items():
                try:
                    runner.visualizer.add_image(name, make(), step)
                except Exception as error:
                    # Whatever it is, a picture is not worth a training.
                    if name not in self._failed:
                        runner.logger.warning(
                            f'No picture {name!r} at iteration {step}: '
                            f'{type(error).__name__}: {error}. The training '
                            'continues; later failures of this picture are '
                            'not reported.'
                        )
                    self._failed.add(name)

    def views(self, runner: Runner, epoch: int) -> np.ndarray:
        """Draw the crops that training images have in an epoch."""
        loader = runner.train_dataloader
        seed = getattr(loader.sampler, 'seed', 0)
        places = spread(len(loader.dataset), self.num_images)
        return draw_views(
            make_views(loader.dataset, places, seed, epoch),
            'Views of training images',
            f'as the network gets them in epoch {epoch + 1}; percent: share '
            'of the image',
        )

    def search_maps(self, runner: Runner, step: int) -> np.ndarray:
        """Draw where the teacher finds the quarters of training images.

        Raises:
            ValueError: The pipeline lacks a MultiCrop, which tells the sizes.
        """
        model = unwrapped_model(runner)
        dataset = runner.train_dataloader.dataset
        found = find_multi_crop(dataset)
        if found is None:
            raise ValueError('train_dataloader has no MultiCrop')
        load, crop = found

        def search(whole: Tensor, tiles: list[Tensor]) -> dict:
            whole, *tiles = (
                normalize(model, view[None])[0] for view in (whole, *tiles)
            )
            return compute_search_maps(
                model.teacher.backbone, search_layers(model), whole, tiles
            )

        places = spread(len(dataset), self.num_images)
        loaded = [load_readable(dataset, load, place)[1] for place in places]
        samples = [
            search_image(
                search,
                decoded(results['img']),
                jigsaw(),
                crop.global_size,
                crop.local_size,
                name_of(results),
            )
            for results in loaded
        ]
        return draw_search_maps(
            samples,
            'Where the teacher finds parts of an image in the whole',
            f'after {step} iterations' if step else 'before the first step',
        )

    def embed(self, runner: Runner, step: int) -> np.ndarray:
        """Draw the teacher's features of validation images."""
        model = unwrapped_model(runner)
        backbone = choose_backbone(model, None)
        dataset = runner.val_loop.dataloader.dataset
        places = spread(len(dataset), EMBEDDED)
        labels = [
            read_label(dataset.get_data_info(i), 'validation') for i in places
        ]
        features = []
        with evaluating(backbone), torch.no_grad():
            for start in range(0, len(places), BATCH):
                part = [dataset[i] for i in places[start : start + BATCH]]
                images = pseudo_collate(part)['inputs']
                outputs = backbone(normalize(model, images))
                if not isinstance(outputs, Tensor):
                    outputs = outputs[-1]
                features.append(pool(outputs).float().cpu())
        return draw_embedding(
            embed(torch.cat(features).numpy()),
            np.array(labels),
            dataset.metainfo.get('classes') or (),
            'Features of validation images',
            f't-SNE of {len(places)} images after {step} iterations',
        )
