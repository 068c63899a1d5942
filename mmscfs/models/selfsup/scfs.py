# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..utils import with_in_channels
from .dino import DINO, NUM_GLOBAL, Maps


@MODELS.register_module()
class SCFS(DINO):
    """Semantics-Consistent Feature Search (ICCV 2023).

    DINO, and on each search layer a second contrast: every local view
    searches the teacher's global maps for what it shows, and its projection
    is compared with that of what it found (Eqs. 5-11). Without local views
    the global views search each other ("SCFS w/o MC" of Table 7).

    Args:
        backbone (dict): Backbone config; its outputs must hold the search
            layers.
        neck (dict): DINO's projector for the last output.
        search_neck (dict): Config of the search layers' projectors; without
            ``in_channels`` it takes the backbone's.
        head (dict): Head config, e.g. ``SCFSHead``; it takes the number of
            prototypes, the search projectors' width and the layers' names
            from the necks and the backbone.
        search_layers (Sequence[int], optional): Which of the backbone's
            ``out_indices`` are searched. Defaults to None: all of them.
        search_views (str): "all" searches both global views, as Eq. 9 sums
            over both; "first" only the first, as the authors' release does;
            "none" neither: DINO with multi-layer contrast ("DINO w ML" of
            Table 7), the global terms alone. Defaults to "all".
        search (dict): Config of the search. Defaults to
            ``SoftFeatureSearch``.
        **kwargs: Those of :class:`DINO`.

    Raises:
        ValueError: The backbone lacks ``out_indices`` or a search layer
            among them, or ``search_views`` is unknown, or is "none" with a
            ``search``.

    Example:
        >>> model = SCFS(
        ...     backbone=dict(type='ResNet', depth=18, out_indices=(2, 3)),
        ...     neck=dict(type='DINONeck', num_prototypes=100),
        ...     search_neck=dict(type='FeatureSearchNeck', mid_channels=16),
        ...     head=dict(type='SCFSHead'),
        ... )
        >>> views = [torch.randn(4, 3, s, s) for s in (64, 64, 32, 32)]
        >>> losses = model.loss(views)
        >>> [name for name in losses if name.startswith('loss_layer3')]
        ['loss_layer3_global', 'loss_layer3_search']
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        search_neck: dict,
        head: dict,
        search_layers: Sequence[int] | None = None,
        search_views: str = 'all',
        search: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if search_views not in ('all', 'first', 'none'):
            raise ValueError(
                f'model.search_views={search_views!r} must be '
                "'all' (both global views, Eq. 9), 'first' (the release) or "
                "'none' (multi-layer contrast without a search)"
            )
        if search_views == 'none' and search is not None:
            raise ValueError(
                f'model.search={search} has no effect with model.search_views='
                "'none': leave one of them out"
            )
        if not isinstance(backbone, nn.Module):
            backbone = MODELS.build(backbone)
        if not hasattr(backbone, 'out_indices'):
            raise ValueError(
                f'model.backbone.type={type(backbone).__name__!r} has no '
                'out_indices, which name its search layers: choose another '
                'backbone'
            )
        # Whatever the order of the setting, outputs come shallow to deep.
        out_indices = sorted(cast(Sequence[int], backbone.out_indices))
        if search_layers is None:
            search_layers = out_indices
        if not search_layers or not set(search_layers) <= set(out_indices):
            raise ValueError(
                f'model.search_layers={list(search_layers)} must name at '
                'least one of model.backbone.out_indices='
                f'{out_indices}, and no other layer'
            )
        search_outputs = [out_indices.index(i) for i in search_layers]
        if not isinstance(search_neck, nn.Module):
            search_neck = MODELS.build(
                with_in_channels(search_neck, backbone, search_outputs)
            )
        if not isinstance(head, nn.Module):
            head = {
                'search_channels': search_neck.out_channels,
                'layer_names': [f'layer{i + 1}' for i in search_layers],
            } | head
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        self.search_neck: BaseModule = search_neck
        self.teacher.add_copy('search_neck', search_neck)
        self.prepare_parts('search_neck')
        self.search_views = search_views
        self.num_searched = dict(all=2, first=1, none=0)[search_views]
        self.search_outputs = search_outputs
        if search_views != 'none':
            search = search or dict(type='SoftFeatureSearch')
            self.search = MODELS.build(search)

    def check_fit(
        self,
        view_shapes: list[tuple[int, int, int]],
        data_sample: DataSample | None = None,
    ) -> None:
        """Check that the search gets what it needs too.

        Raises:
            ValueError: The sample does not say where the views lie, or
                something else does not fit.
        """
        super().check_fit(view_shapes, data_sample)
        if (
            data_sample is not None
            and self.search_views != 'none'
            and self.search.needs_crops
        ):
            stack_crops([data_sample], torch.device('cpu'))

    def check_outputs(self, maps: Sequence[Tensor]) -> None:
        """Check the search layers too.

        Raises:
            ValueError: Channels differ from those of a neck.
        """
        super().check_outputs(maps)
        self.search_neck.check_layers([maps[i] for i in self.search_outputs])

    def loss(
        self,
        inputs: list[Tensor],
        data_samples: list[DataSample] | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Return the losses and health figures of one batch.

        Args:
            inputs (list[Tensor]): As :meth:`DINO.loss` takes them.
            data_samples (list[DataSample], optional): Of the B images, with
                their ``crops`` if the search needs them. Defaults to None.

        Returns:
            dict[str, Tensor]: DINO's figures, and those of ``SCFSHead`` for
            each search layer.

        Raises:
            ValueError: The views do not fit, or the samples lack the crops.
        """
        student_global, student_local, teacher_global = self.see(inputs)
        views = self.project(student_global, student_local, teacher_global)

        # A contrast on each search layer, of maps (views, B, C, H, W).
        batch = len(inputs[0])
        student_maps = self.layers_by_view(student_global, batch)
        teacher_maps = self.layers_by_view(teacher_global, batch)
        views.student_global_emb = self.search_neck(student_maps)
        with torch.no_grad():
            views.teacher_global_emb = self.teacher.search_neck(teacher_maps)
        if self.search_views == 'none':
            return self.compare(views, teacher_global)

        # Student maps search (Eq. 5) the teacher's maps (Eq. 6).
        if student_local is not None:
            query_maps = self.layers_by_view(student_local, batch)
            key_maps = [maps[: self.num_searched] for maps in teacher_maps]
            student_search_emb = self.search_neck(query_maps)
        else:  # the global views search each other
            query_maps = [self.as_images(maps) for maps in student_maps]
            key_maps = [self.as_images(maps.flip(0)) for maps in teacher_maps]
            student_search_emb = [
                self.as_images(emb) for emb in views.student_global_emb
            ]
        crops = self.locate(data_samples, student_local is None, key_maps)
        with torch.no_grad():
            found = [
                self.search(queries, keys, *crops)  # Eq. 7
                for queries, keys in zip(query_maps, key_maps, strict=True)
            ]
            views.teacher_search_emb = self.teacher.search_neck(found)
        views.student_search_emb = student_search_emb
        views.pair_weights = self.search.pair_weights(*crops)
        losses = self.compare(views, teacher_global)
        for layer, part in zip(self.head.layer_names, found, strict=True):
            for name, value in self.search.figures(part).items():
                losses[f'{layer}_{name}'] = value
        return losses

    def layers_by_view(self, outputs: Maps, batch: int) -> list[Tensor]:
        """Return the search layers' maps, each (V, B, C, H, W)."""
        return [
            outputs[i].unflatten(0, (-1, batch)) for i in self.search_outputs
        ]

    def as_images(self, views: Tensor) -> Tensor:
        """Turn both global views (2, B, ...) into one view of more images.

        Without local views the global ones search each other: each counts as
        B images, with the other one to search. Shape (1, 2 B, ...); of
        search_views='first' the second alone searches, (1, B, ...).
        """
        return views[NUM_GLOBAL - self.num_searched :].flatten(0, 1)[None]

    def locate(
        self,
        data_samples: list[DataSample] | None,
        among_global: bool,
        key_maps: list[Tensor],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return where the views that search and are searched lie.

        Args:
            data_samples (list[DataSample], optional): Of the B images.
            among_global (bool): Whether global views search each other.
            key_maps (list[Tensor]): On the device of the result.

        Returns:
            tuple[Tensor | None, Tensor | None]: Shapes (N, B, 5) and
            (G, B, 5); None if the search does not need them.

        Raises:
            ValueError: The samples lack their crops.
        """
        if not self.search.needs_crops:
            return None, None
        views = stack_crops(data_samples, key_maps[0].device)
        if among_global:
            return self.as_images(views), self.as_images(views.flip(0))
        return views[NUM_GLOBAL:], views[: self.num_searched]


def stack_crops(
    data_samples: list[DataSample] | None, device: torch.device
) -> Tensor:
    """Return where the views of a batch lie in their images, (V, B, 5).

    Raises:
        ValueError: The samples do not say.
    """
    if not data_samples or 'crops' not in data_samples[0]:
        raise ValueError(
            'model.search needs to know where the views lie: end the '
            "dataset's pipeline with MultiCrop and dict(type='PackInputs', "
            "meta_keys=('img_path', 'crops'))"
        )
    crops = np.stack([sample.crops for sample in data_samples], axis=1)
    return torch.from_numpy(crops).to(device, non_blocking=True)
