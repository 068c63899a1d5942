# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmengine.dist import get_world_size
from mmengine.model import BaseModule
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..losses.functional import at_least_fp32
from ..utils import (
    CenterReduction,
    MomentumTeacher,
    TeacherCenter,
    checkpoint_blocks,
    compile_for_training,
    fit_backbone,
    has_batch_norm,
    update_centers,
    with_in_channels,
)

NUM_GLOBAL = 2


@MODELS.register_module()
class DINO(BaseSelfSupervisor):
    """Self-distillation with no labels, the baseline of SCFS.

    Implementation of `Emerging Properties in Self-Supervised Vision
    Transformers <https://arxiv.org/abs/2104.14294>`_: a student sees two
    global and N local views of an image, a momentum teacher the global ones,
    and the student predicts the teacher's output for every other view.
    Without local views it is "DINO without multi-crop".

    The model moves its teacher and centres only when told to, which
    :class:`MomentumTeacherHook` does after each step of the optimiser.

    Args:
        backbone (dict): Backbone config; its last output feeds the neck.
        neck (dict): Projector config, e.g. ``DINONeck``; without
            ``in_channels`` it takes the backbone's.
        head (dict): Head config, e.g. ``DINOHead``; it takes the number of
            prototypes from the neck.
        compile (bool | dict): Compile the parts of student and teacher for
            training; a dict has the arguments of :func:`torch.compile`.
            Checkpoints are the same. Defaults to False.
        checkpoint_activations (bool): Compute the activations of the
            student's blocks again in the backward pass instead of keeping
            them. Results are the same. Defaults to False.
        pretrained (str, optional): Checkpoint of the whole model.
        data_preprocessor (dict, optional): Defaults to
            ``SelfSupDataPreprocessor``.
        init_cfg (dict | list, optional): Defaults to None.

    Raises:
        ValueError: Head and neck differ in the number of prototypes, the
            backbone has no blocks to checkpoint, or ``compile`` or
            ``checkpoint_activations`` is not valid, or both are set.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        compile: bool | dict = False,
        checkpoint_activations: bool = False,
        pretrained: str | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        if not isinstance(checkpoint_activations, bool):
            raise ValueError(
                f'model.checkpoint_activations={checkpoint_activations!r} '
                'must be True or False'
            )
        if compile is not False and checkpoint_activations:
            raise ValueError(
                f'model.compile={compile} and model.checkpoint_activations='
                'True cannot be combined: leave one of them out'
            )
        if not isinstance(backbone, nn.Module):
            backbone = MODELS.build(backbone)
        if not isinstance(neck, nn.Module):
            neck = MODELS.build(with_in_channels(neck, backbone))
        if not isinstance(head, nn.Module):
            head = MODELS.build({'num_prototypes': neck.num_prototypes} | head)
        if head.num_prototypes != neck.num_prototypes:
            raise ValueError(
                f'model.head.num_prototypes={head.num_prototypes} must equal '
                f'model.neck.num_prototypes={neck.num_prototypes}; leave it '
                'out of the head'
            )
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            pretrained=pretrained,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        self.teacher = MomentumTeacher(backbone=self.backbone, neck=self.neck)
        self.register_load_state_dict_pre_hook(fit_backbone)
        self._center_reduction: CenterReduction | None = None
        self._compile = compile
        self._checkpoint_activations = checkpoint_activations
        self.prepare_parts('backbone', 'neck')

    def prepare_parts(self, *names: str) -> None:
        """Prepare parts of student and teacher for fast or small steps.

        Convolution weights lie as the views do, channels last.
        """
        self.to(memory_format=torch.channels_last)
        for name in names:
            student, teacher = getattr(self, name), getattr(self.teacher, name)
            if self._checkpoint_activations:
                num_blocks = checkpoint_blocks(student)
                if not num_blocks and name == 'backbone':
                    raise ValueError(
                        'model.checkpoint_activations=True: the backbone '
                        f'{type(student).__name__} has no lists or sequences '
                        'of blocks; leave it out'
                    )
            if self._compile is not False:
                options = {} if self._compile is True else self._compile
                for module in (student, teacher):
                    compile_for_training(module, options)

    def init_weights(self) -> None:
        """Initialise the student, then make the teacher its copy."""
        super().init_weights()
        self.teacher.copy_from(self)

    def forward(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
        network: str = 'teacher',
    ) -> tuple[Tensor, ...] | dict[str, Tensor]:
        """Return features or losses.

        Args:
            inputs (Tensor | list[Tensor]): Images (B, 3, H, W) for
                "tensor"; views, each (B, 3, H, W), for "loss".
            data_samples (list[DataSample], optional): Not used.
            mode (str): "tensor" or "loss". Defaults to "tensor".
            network (str): Whose features: "teacher" or "student". Defaults
                to "teacher".

        Returns:
            tuple[Tensor, ...] | dict[str, Tensor]: The backbone's outputs,
            or the losses by name.
        """
        if mode == 'tensor':
            return self.extract_feat(cast(Tensor, inputs), network)
        return super().forward(inputs, data_samples, mode)

    def extract_feat(
        self,
        inputs: Tensor,
        network: str = 'teacher',
        stage: str = 'backbone',
    ) -> tuple[Tensor, ...]:
        """Return features of images (B, 3, H, W).

        Args:
            inputs (Tensor): The images.
            network (str): Whose: "teacher" or "student". Defaults to
                "teacher".
            stage (str): "backbone" for its outputs, "neck" for the last one
                pooled to (B, C), as k-NN takes it; mmpretrain's classifiers
                have the same names. Defaults to "backbone".

        Raises:
            ValueError: ``network`` or ``stage`` is none of these.
        """
        if network not in ('teacher', 'student'):
            raise ValueError(
                f"network={network!r} must be 'teacher' or 'student'"
            )
        if stage not in ('backbone', 'neck'):
            raise ValueError(f"stage={stage!r} must be 'backbone' or 'neck'")
        model: BaseModule = self.teacher if network == 'teacher' else self
        outputs = model.backbone(inputs)
        if stage == 'backbone':
            return outputs
        return (model.neck.pool(outputs[-1]),)

    def loss(
        self,
        inputs: list[Tensor],
        data_samples: list[DataSample] | None = None,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Return the losses and health figures of one batch.

        Args:
            inputs (list[Tensor]): Two global views (B, 3, S, S), then N
                local views (B, 3, s, s), as :class:`MultiCrop` orders them.
            data_samples (list[DataSample], optional): What else is known of
                the B images. Defaults to None.

        Returns:
            dict[str, Tensor]: Those of the head, and ``feature_std``: the
            standard deviation over the batch of the teacher's normalised
            features times sqrt(C), 1 when they spread evenly over the sphere
            and 0 when they are all the same.

        Raises:
            ValueError: The views do not fit, or batch norm has one image.
        """
        self.check_views(inputs)
        global_views = self.stack_views(inputs[:NUM_GLOBAL])
        student_global = self.backbone(global_views)
        student_local = None
        if len(inputs) > NUM_GLOBAL:
            local_views = self.stack_views(inputs[NUM_GLOBAL:])
            student_local = self.backbone(local_views)
        with torch.no_grad():
            teacher_global = self.teacher.backbone(global_views)
        losses = self.head.loss(
            **self.project(
                student_global, student_local, teacher_global, data_samples
            )
        )
        if self.training and get_world_size() > 1:
            # The backward pass hides it.
            self._center_reduction = CenterReduction(
                self.centers, earlier=self._center_reduction
            )
        with torch.no_grad():
            pooled = self.neck.pool(at_least_fp32(teacher_global[-1]))
            deviation = F.normalize(pooled, dim=-1).std(dim=0).mean()
            losses['feature_std'] = deviation * pooled.shape[-1] ** 0.5
        return losses

    @staticmethod
    def stack_views(views: list[Tensor]) -> Tensor:
        """Make one channels-last batch (V B, 3, S, S) of V views."""
        return torch.cat(views).contiguous(memory_format=torch.channels_last)

    def project(
        self,
        student_global: tuple[Tensor, ...],
        student_local: tuple[Tensor, ...] | None,
        teacher_global: tuple[Tensor, ...],
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, Tensor | list[Tensor] | None]:
        """Turn backbone outputs into the arguments of the head's loss.

        Args:
            student_global (tuple[Tensor, ...]): Outputs for 2 B images.
            student_local (tuple[Tensor, ...], optional): For N B images.
            teacher_global (tuple[Tensor, ...]): For 2 B images.
            data_samples (list[DataSample], optional): Not used.
        """
        batch = len(teacher_global[-1]) // NUM_GLOBAL
        pooled = [self.neck.pool(student_global[-1])]
        if student_local is not None:
            pooled.append(self.neck.pool(student_local[-1]))
        student_logits = self.neck(pooled, batch)
        with torch.no_grad():
            teacher = self.teacher.neck
            teacher_pooled = [teacher.pool(teacher_global[-1])]
            teacher_logits = teacher(teacher_pooled, batch).compute()
        return dict(
            student_logits=student_logits, teacher_logits=teacher_logits
        )

    def check_views(self, inputs: list[Tensor]) -> None:
        """Check the views of one batch.

        Raises:
            ValueError: They are no two global views of one shape followed by
                local views of one shape, or batch norm has one image.
        """
        if not isinstance(inputs, (list, tuple)) or len(inputs) < NUM_GLOBAL:
            raise ValueError(
                f'{type(self).__name__} needs a list of at least two views '
                f'(B, 3, H, W), got {type(inputs).__name__}: put MultiCrop '
                "and PackInputs in the data set's pipeline and set "
                "train_dataloader.collate_fn=dict(type='default_collate')"
            )
        shapes = [tuple(view.shape) for view in inputs]
        for kind, group in (
            ('global', shapes[:NUM_GLOBAL]),
            ('local', shapes[NUM_GLOBAL:]),
        ):
            if len(set(group)) > 1:
                raise ValueError(
                    f'{type(self).__name__} needs {kind} views of one shape, '
                    f'got {group}'
                )
        if self.training and len(inputs[0]) == 1 and has_batch_norm(self):
            raise ValueError(
                'train_dataloader.batch_size: a batch of one image has no '
                'statistics for batch norm; use 2 or more, and '
                'drop_last=True so that no epoch ends in such a batch'
            )

    @torch.no_grad()
    def check_fit(
        self,
        view_shapes: list[tuple[int, int, int]],
        data_sample: DataSample | None = None,
    ) -> None:
        """Send blank views of every shape through backbone and necks.

        Args:
            view_shapes (list[tuple[int, int, int]]): (3, S, S) of each view.
            data_sample (DataSample, optional): What else is known of their
                image; not used here. Defaults to None: not checked.

        Raises:
            ValueError: The backbone cannot take a view, or its outputs do
                not fit the necks.
        """
        was_training = self.training
        self.eval()
        device = next(self.parameters()).device
        for shape in sorted(set(view_shapes)):
            try:
                maps = self.backbone(torch.zeros(1, *shape, device=device))
            except (RuntimeError, AssertionError, ValueError) as error:
                raise ValueError(
                    f'the backbone {type(self.backbone).__name__} cannot '
                    f'take views of shape {shape}: {error}; change '
                    'global_size or local_size of MultiCrop'
                ) from error
            self.check_outputs(maps)
        self.train(was_training)

    def check_outputs(self, maps: tuple[Tensor, ...]) -> None:
        """Check the backbone's outputs against the neck.

        Raises:
            ValueError: Their channels differ.
        """
        self.neck.pool(maps[-1])

    @property
    def centers(self) -> list[TeacherCenter]:
        """Every centre that follows the teacher's outputs."""
        return [m for m in self.head.modules() if isinstance(m, TeacherCenter)]

    def after_step(
        self, momentum: float, skipped: Tensor | None = None
    ) -> None:
        """Move teacher and centres after the optimiser has stepped.

        Args:
            momentum (float): Share of itself that the teacher keeps.
            skipped (Tensor, optional): 1 if the step was skipped, else 0, if
                only the device knows; then nothing moves. Defaults to None:
                it was not.
        """
        self.teacher.momentum_update(self, momentum, skipped)
        update_centers(self.centers, self._center_reduction, skipped)
        self._center_reduction = None

    def after_skipped_step(self) -> None:
        """Forget a batch whose step was skipped: nothing moves."""
        for center in self.centers:
            center.discard()
        if self._center_reduction is not None:
            self._center_reduction.wait()
            self._center_reduction = None
