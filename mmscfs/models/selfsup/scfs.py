# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .dino import DINO, NUM_GLOBAL


@MODELS.register_module()
class SCFS(DINO):
    """Semantics-Consistent Feature Search (ICCV 2023).

    DINO, and on each search layer a second contrast: every local view
    searches the teacher's global maps for what it shows, and its projection
    is compared with that of what it found (Eqs. 5-11).

    Args:
        backbone (dict): Backbone config; its outputs must hold the search
            layers.
        neck (dict): DINO's projector for the last output.
        search_neck (dict): Config of the search layers' projectors.
        head (dict): Head config, e.g. ``SCFSHead``; it takes the number of
            prototypes, the search projectors' width and the layers' names
            from the necks and the backbone.
        search_layers (Sequence[int], optional): Which of the backbone's
            ``out_indices`` are searched. Defaults to None: all of them.
        search_views (str): "all" searches both global views, as Eq. 9 sums
            over both; "first" only the first, as the authors' release does.
            Defaults to "all".
        search (dict): Config of the search. Defaults to
            ``SoftFeatureSearch``.
        **kwargs: Those of :class:`DINO`.

    Raises:
        ValueError: A search layer is no output of the backbone, or
            ``search_views`` is unknown.
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
        **kwargs,
    ) -> None:
        if search_views not in ('all', 'first'):
            raise ValueError(
                f'model.search_views={search_views!r} must be '
                "'all' (both global views, Eq. 9) or 'first' (the release)"
            )
        if not isinstance(backbone, nn.Module):
            backbone = MODELS.build(backbone)
        if not isinstance(search_neck, nn.Module):
            search_neck = MODELS.build(search_neck)
        out_indices = list(backbone.out_indices)
        if search_layers is None:
            search_layers = out_indices
        if not search_layers or not set(search_layers) <= set(out_indices):
            raise ValueError(
                f'model.search_layers={list(search_layers)} must name at '
                'least one of model.backbone.out_indices='
                f'{out_indices}, and no other layer'
            )
        if not isinstance(head, nn.Module):
            head = {
                'search_channels': search_neck.out_channels,
                'layer_names': [f'layer{i + 1}' for i in search_layers],
            } | head
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        self.search_neck = search_neck
        self.teacher.add_copy('search_neck', search_neck)
        self.use_channels_last()
        self.search = MODELS.build(search or dict(type='SoftFeatureSearch'))
        self.search_views = search_views
        self.search_outputs = [out_indices.index(i) for i in search_layers]

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
    ) -> dict[str, Tensor | list[Tensor]]:
        """Add the search layers' projections to DINO's.

        Raises:
            ValueError: There are no local views to search with.
        """
        if student_local is None:
            raise ValueError(
                'SCFS searches with local views, but the batch has none: set '
                "MultiCrop's num_local to 1 or more"
            )
        outputs = super().project(
            student_global, student_local, teacher_global
        )
        batch = len(teacher_global[-1]) // NUM_GLOBAL
        student_global, student_local, teacher_global = (
            [maps[i] for i in self.search_outputs]
            for maps in (student_global, student_local, teacher_global)
        )
        with torch.no_grad():
            found = [
                self.search_layer(local, keys, batch)
                for local, keys in zip(
                    student_local, teacher_global, strict=True
                )
            ]
            teacher_neck = self.teacher.search_neck
            teacher_global = teacher_neck(teacher_global)
            teacher_search = teacher_neck([f.flatten(0, 2) for f in found])
        views = (-1, batch)
        outputs.update(
            student_global=[
                x.unflatten(0, views) for x in self.search_neck(student_global)
            ],
            student_local=[
                x.unflatten(0, views) for x in self.search_neck(student_local)
            ],
            teacher_global=[x.unflatten(0, views) for x in teacher_global],
            teacher_search=[
                x.unflatten(0, f.shape[:3])
                for x, f in zip(teacher_search, found, strict=True)
            ],
        )
        return outputs

    def search_layer(
        self, local_maps: Tensor, global_maps: Tensor, batch: int
    ) -> Tensor:
        """Search one layer's global maps with its local maps.

        Args:
            local_maps (Tensor): Student maps of all local views,
                (N B, C, h, w).
            global_maps (Tensor): Teacher maps of both global views,
                (2 B, C, H, W).
            batch (int): Number of images B.

        Returns:
            Tensor: Feature augmentations (G, N, B, C, H, W), G = 2 or, for
            ``search_views='first'``, 1.
        """
        keys = global_maps.unflatten(0, (NUM_GLOBAL, batch))
        if self.search_views == 'first':
            keys = keys[:1]
        return self.search(local_maps.unflatten(0, (-1, batch)), keys)
