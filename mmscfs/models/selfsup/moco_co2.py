# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import get_world_size
from mmpretrain.models.selfsup import MoCo
from mmpretrain.models.utils import batch_shuffle_ddp, batch_unshuffle_ddp
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from ..losses import entropy


@MODELS.register_module()
class MoCoCO2(MoCo):
    """MoCo with consistent contrast (`CO2`_, ICLR 2021).

    mmpretrain's MoCo, whose query must also agree with its positive key on
    how similar the queue's negatives are. The contrastive loss, the queue
    and the key encoder are MoCo's to the last bit.

    .. _CO2: https://arxiv.org/abs/2010.02217

    Args:
        backbone (dict): Backbone config.
        neck (dict): Projector config: ``LinearNeck`` for MoCo v1,
            ``MoCoV2Neck`` for v2.
        head (dict): Config of ``ContrastiveHead``.
        consistency (dict, optional): Config of the consistency term.
            Defaults to ``ConsistencyLoss`` with its settings for MoCo v2.
        **kwargs: Those of :class:`mmpretrain.models.MoCo`.

    Example:
        >>> model = MoCoCO2(
        ...     backbone=dict(type='ResNet', depth=18),
        ...     neck=dict(
        ...         type='MoCoV2Neck',
        ...         in_channels=512,
        ...         hid_channels=64,
        ...         out_channels=32,
        ...     ),
        ...     head=dict(
        ...         type='ContrastiveHead', loss=dict(type='CrossEntropyLoss')
        ...     ),
        ...     feat_dim=32,
        ...     queue_len=64,
        ... )
        >>> views = [torch.randn(4, 3, 32, 32) for _ in range(2)]
        >>> [*model.loss(views)][:2]
        ['loss_contrast', 'loss_consistency']
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        consistency: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        self.consistency = MODELS.build(
            consistency or dict(type='ConsistencyLoss')
        )

    def loss(
        self,
        inputs: list[Tensor],
        data_samples: list[DataSample] | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Return the losses and health figures of one batch.

        As in MoCo, the key encoder moves before it encodes, and the keys
        enter the queue at the end.

        Args:
            inputs (list[Tensor]): The queries' and the keys' views, each
                (B, 3, H, W), as :class:`MultiCrop` with ``num_local=0``
                orders them.
            data_samples (list[DataSample], optional): Not used.

        Returns:
            dict[str, Tensor]: ``loss_contrast`` (InfoNCE) and the weighted
            ``loss_consistency``; and unsummed ``contrast_accuracy``, the
            share of queries in percent that are nearer to their key than to
            any negative, and ``key_entropy``, the mean entropy in nats of
            the keys' distribution over the K negatives: ln K where all are
            alike, 0 where one alone counts.

        Raises:
            ValueError: There are not two views, or the queue does not hold
                a whole number of batches.
        """
        self.check_batch(inputs)
        query = F.normalize(self.neck(self.backbone(inputs[0]))[0], dim=1)
        key = self.encode_keys(inputs[1])
        # The backward pass needs the queue as it is now.
        queue = self.queue.clone()
        positive = torch.einsum('nc,nc->n', query, key).unsqueeze(-1)
        negative = torch.einsum('nc,ck->nk', query, queue)
        losses = dict(
            loss_contrast=self.head.loss(positive, negative),
            loss_consistency=self.consistency(query, key, queue),
        )
        with torch.no_grad():
            nearest = negative.amax(dim=1, keepdim=True)
            hits = (positive > nearest).float()
            log_p = self.consistency.log_probabilities(key, queue)
            losses['contrast_accuracy'] = 100 * hits.mean()
            losses['key_entropy'] = entropy(log_p.exp())
        self._dequeue_and_enqueue(key)
        return losses

    @torch.no_grad()
    def encode_keys(self, views: Tensor) -> Tensor:
        """Move the key encoder and return its keys (B, C) of unit length.

        Args:
            views (Tensor): Shape (B, 3, H, W).
        """
        self.encoder_k.update_parameters(
            torch.nn.Sequential(self.backbone, self.neck)
        )
        # Batch norm must not tell which key is a query's positive.
        views, order = batch_shuffle_ddp(views)
        key = F.normalize(self.encoder_k(views)[0], dim=1)
        return batch_unshuffle_ddp(key, order)

    def check_batch(self, inputs: list[Tensor]) -> None:
        """Check the views and the batch's size against the queue.

        Raises:
            ValueError: They do not fit.
        """
        is_list = isinstance(inputs, (list, tuple))
        if not is_list or len(inputs) != 2:
            found = (
                f'{len(inputs)} views' if is_list else type(inputs).__name__
            )
            raise ValueError(
                f'{type(self).__name__} needs a list of two views '
                f'(B, 3, H, W), got {found}: set num_local=0 in MultiCrop '
                "and train_dataloader.collate_fn=dict(type='default_collate')"
            )
        check_queue_length(self.queue_len, len(inputs[0]))


def check_queue_length(length: int, batch: int) -> None:
    """Check that a queue of keys, as MoCo's, holds whole steps.

    Args:
        length (int): Number of keys in the queue.
        batch (int): Images in a batch of one process.

    Raises:
        ValueError: It does not.
    """
    processes = get_world_size()
    step = batch * processes
    if length % step:
        raise ValueError(
            f'model.queue_len={length} must be a multiple of the {step} '
            f'images of a step (train_dataloader.batch_size={batch} on each '
            f'of {processes} processes), which replace as many of its keys: '
            f'set it to {max(1, round(length / step)) * step}, or change '
            'the batch size; and keep drop_last=True'
        )
