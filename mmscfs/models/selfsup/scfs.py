# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..search import AttendedMaps
from ..utils import with_in_channels
from .dino import DINO, NUM_GLOBAL


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
        ValueError: A search layer is no output of the backbone, the backbone
            has no ``out_indices``, or ``search_views`` is unknown, or is
            "none" with a ``search``.
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
                'out_indices to name its search layers by: take another one'
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
        self.search_outputs = search_outputs
        if search_views != 'none':
            search = search or dict(type='SoftFeatureSearch')
            self.search = MODELS.build(search)

    def check_fit(
        self,
        view_shapes: list[tuple[int, int, int]],
        data_sample: DataSample | None = None,
    ) -> None:
        """Check that the search finds what it asks for too.

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

    def check_outputs(self, maps: tuple[Tensor, ...]) -> None:
        """Check the search layers too.

        Raises:
            ValueError: Channels differ from those of a neck.
        """
        super().check_outputs(maps)
        self.search_neck.check_layers([maps[i] for i in self.search_outputs])

    def project(
        self,
        student_global: tuple[Tensor, ...],
        student_local: tuple[Tensor, ...] | None,
        teacher_global: tuple[Tensor, ...],
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, Tensor | list[Tensor] | None]:
        """Add the search layers' projections to DINO's.

        Raises:
            ValueError: The search needs crops that the samples lack.
        """
        outputs = super().project(
            student_global, student_local, teacher_global, data_samples
        )
        batch = len(teacher_global[-1]) // NUM_GLOBAL
        keys = self.layers_by_view(teacher_global, batch)
        queries = self.layers_by_view(student_global, batch)
        projected = project_views(self.search_neck, queries)
        with torch.no_grad():
            outputs.update(
                student_global=projected,
                teacher_global=project_views(self.teacher.search_neck, keys),
            )
        if self.search_views == 'none':
            return outputs
        among_global = student_local is None
        if student_local is not None:
            queries = self.layers_by_view(student_local, batch)
            projected = project_views(self.search_neck, queries)
        crops: tuple[Tensor | None, Tensor | None] = None, None
        if self.search.needs_crops:
            views = stack_crops(data_samples, keys[0].device)
            searching = views if among_global else views[NUM_GLOBAL:]
            crops = (
                self.as_queries(searching, among_global),
                self.as_keys(views[:NUM_GLOBAL], among_global),
            )
        with torch.no_grad():
            found = [
                self.search(
                    self.as_queries(query, among_global),
                    self.as_keys(key, among_global),
                    *crops,
                )
                for query, key in zip(queries, keys, strict=True)
            ]
            outputs.update(
                teacher_search=project_views(self.teacher.search_neck, found),
                pair_weights=self.search.pair_weights(*crops),
            )
        outputs['student_search'] = [
            self.as_queries(x, among_global) for x in projected
        ]
        return outputs

    def layers_by_view(
        self, outputs: tuple[Tensor, ...], batch: int
    ) -> list[Tensor]:
        """Return the search layers' maps, each (V, B, C, H, W)."""
        return [
            outputs[i].unflatten(0, (-1, batch)) for i in self.search_outputs
        ]

    def as_queries(self, views: Tensor, among_global: bool) -> Tensor:
        """Return the views that search, of V views (V, B, ...).

        Global views that search each other count as B images each, of one
        query and one key: (1, 2 B, ...), or (1, B, ...) if only the first
        is searched.
        """
        if not among_global:
            return views
        first = 1 if self.search_views == 'first' else 0
        return views[first:].flatten(0, 1).unsqueeze(0)

    def as_keys(self, views: Tensor, among_global: bool) -> Tensor:
        """Return the views that are searched, of both global views.

        For global views that search each other, the other of each query.
        """
        if among_global:
            return self.as_queries(views.flip(0), among_global)
        return views[:1] if self.search_views == 'first' else views


def project_views(
    neck: nn.Module, layers: Sequence[Tensor | AttendedMaps]
) -> list[Tensor]:
    """Project maps by view and image; one tensor a layer.

    Args:
        neck (nn.Module): E.g. a ``FeatureSearchNeck``.
        layers (Sequence[Tensor | AttendedMaps]): Maps (..., C, H, W), where
            the first dimensions count views and images.

    Returns:
        list[Tensor]: Shape (..., D).
    """
    batches: list[Tensor | AttendedMaps] = []
    shapes = []
    for maps in layers:
        if isinstance(maps, AttendedMaps):
            batches.append(maps)
            shapes.append(maps.attention.shape[:-2])
        else:
            batches.append(maps.flatten(0, -4))
            shapes.append(maps.shape[:-3])
    return [
        x.unflatten(0, shape)
        for x, shape in zip(neck(batches), shapes, strict=True)
    ]


def stack_crops(
    data_samples: list[DataSample] | None, device: torch.device
) -> Tensor:
    """Return where the views of a batch lie in their images, (V, B, 5).

    Raises:
        ValueError: The samples do not say.
    """
    if not data_samples or 'crops' not in data_samples[0]:
        raise ValueError(
            "model.search asks where the views lie: end the data set's "
            "pipeline with MultiCrop and dict(type='PackInputs', "
            "meta_keys=('img_path', 'crops'))"
        )
    crops = np.stack([sample.crops for sample in data_samples], axis=1)
    return torch.from_numpy(crops).to(device, non_blocking=True)
