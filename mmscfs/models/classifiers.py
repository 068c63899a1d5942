# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any

import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class LinearProbe(ImageClassifier):
    """A classifier on a backbone that never changes, whatever its type.

    No parameter of the backbone requires a gradient, and it stays in eval
    mode, so that neither its weights nor its batch norm statistics move.
    Neck and head learn. The backbone's ``init_cfg`` still loads weights.

    Args:
        *args: Those of :class:`mmpretrain.models.ImageClassifier`.
        **kwargs: The same.

    Example:
        >>> head = dict(type='LinearClsHead', in_channels=512, num_classes=10)
        >>> probe = LinearProbe(
        ...     backbone=dict(type='ResNet', depth=18),
        ...     neck=dict(type='GlobalAveragePooling'),
        ...     head=head,
        ... )
        >>> [name for name, p in probe.named_parameters() if p.requires_grad]
        ['head.fc.weight', 'head.fc.bias']
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Here, before the distributed wrapper and the optimizer look.
        self.backbone.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> 'LinearProbe':
        """Set the mode of neck and head."""
        super().train(mode)
        self.backbone.eval()
        for module in self.backbone.modules():
            module.training = False  # also where a backbone's own eval is not
        return self

    def extract_feat(
        self, inputs: Tensor, stage: str = 'neck'
    ) -> Tensor | tuple[Tensor, ...]:
        """Extract features, without gradient in the backbone.

        Args:
            inputs (Tensor): Images, (N, 3, H, W).
            stage (str): "backbone", "neck" or "pre_logits". Defaults to
                "neck".
        """
        with torch.no_grad():
            features = super().extract_feat(inputs, stage='backbone')
        if stage == 'backbone':
            return features
        if self.with_neck:
            features = self.neck(features)
        return features if stage == 'neck' else self.head.pre_logits(features)
