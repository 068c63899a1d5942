# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS
from torch import Tensor

from ..losses.functional import entropy, teacher_probabilities
from ..utils import TeacherCenter


@MODELS.register_module()
class DINOHead(BaseModule):
    """Compare student and teacher; own the centre and the temperatures.

    Args:
        num_prototypes (int): Number K of prototypes. Defaults to 65536.
        student_temp (float): Student's temperature tau. Defaults to 0.1.
        teacher_temp (float): Teacher's temperature tau', which
            :class:`TeacherTemperatureHook` moves. Defaults to 0.04.
        center_momentum (float): Defaults to 0.9.
        loss_weight (float): Weight of the contrast between data
            augmentations, L_d. Defaults to 1.
        loss (dict): Config of the loss. Defaults to ``DINOLoss``.

    Raises:
        ValueError: A temperature is not positive, or a weight is negative.
    """

    def __init__(
        self,
        num_prototypes: int = 65536,
        student_temp: float = 0.1,
        teacher_temp: float = 0.04,
        center_momentum: float = 0.9,
        loss_weight: float = 1.0,
        loss: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, temperature in (
            ('student_temp', student_temp),
            ('teacher_temp', teacher_temp),
        ):
            if temperature <= 0:
                raise ValueError(
                    f'{type(self).__name__}: {name}={temperature} must be > 0'
                )
        if loss_weight < 0:
            raise ValueError(
                f'{type(self).__name__}: loss_weight={loss_weight} must be '
                '>= 0'
            )
        self.num_prototypes = num_prototypes
        self.student_temp = student_temp
        self.teacher_temp = teacher_temp
        self.loss_weight = loss_weight
        self.dino_loss = MODELS.build(loss or dict(type='DINOLoss'))
        self.center = TeacherCenter(num_prototypes, center_momentum)

    def loss(
        self, student_logits: Tensor, teacher_logits: Tensor
    ) -> dict[str, Tensor]:
        """Return L_d and the health figures of the last layer.

        Args:
            student_logits (Tensor): Shape (V, B, K), global views first.
            teacher_logits (Tensor): Shape (2, B, K).

        Returns:
            dict[str, Tensor]: ``loss_dino``, and unsummed
            ``teacher_entropy`` and ``teacher_student_kl`` (nats, means over
            the pairs of the loss) and ``center_norm``.
        """
        targets = teacher_probabilities(
            teacher_logits, self.teacher_temp, self.center.value
        )
        cross_entropy = self.dino_loss(
            student_logits, targets, self.student_temp
        )
        if self.training:
            self.center.collect(teacher_logits)
        # Each teacher view is in as many pairs, so the mean KL over the
        # pairs is the mean cross-entropy less the mean entropy.
        teacher_entropy = entropy(targets)
        return dict(
            loss_dino=self.loss_weight * cross_entropy,
            teacher_entropy=teacher_entropy,
            teacher_student_kl=cross_entropy.detach() - teacher_entropy,
            center_norm=self.center.value.norm(),
        )
