# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from ..heads import (
    CenterReduction,
    ProjectedViews,
    TeacherCenter,
    update_centers,
)
from ..losses import at_least_fp32
from ..utils import (
    MomentumTeacher,
    checkpoint_blocks,
    compile_for_training,
    fit_backbone,
    is_free_to_read,
    outputs_of_blank,
    with_in_channels,
)

NUM_GLOBAL = 2
Maps = tuple[Tensor, ...]  # a backbone's outputs for one batch of views


@MODELS.register_module()
class DINO(BaseSelfSupervisor):
    """Self-distillation with no labels, the baseline of SCFS.

    Implementation of `Emerging Properties in Self-Supervised Vision
    Transformers <https://arxiv.org/abs/2104.14294>`_: a student sees two
    global and N local views of an image, a momentum teacher the global ones,
    and the student predicts the teacher's output for every other view.
    Without local views it is "DINO without multi-crop".

    The model moves its teacher and centers in :meth:`after_step` only, which
    :class:`MomentumTeacherHook` calls after each step of the optimizer.

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

    Example:
        >>> model = DINO(
        ...     backbone=dict(type='ResNet', depth=18),
        ...     neck=dict(type='DINONeck', num_prototypes=100),
        ...     head=dict(type='DINOHead'),
        ... )
        >>> views = [torch.randn(4, 3, s, s) for s in (64, 64, 32)]
        >>> losses = model.loss(views)
        >>> losses['loss_dino'].backward()  # then the optimizer's step, and
        >>> model.after_step(momentum=0.996)
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
        self._reductions: list[CenterReduction] = []  # since the last step
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
        """Initialize the student, then make the teacher its copy."""
        super().init_weights()
        self.teacher.copy_from(self)

    def forward(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: list[DataSample] | None = None,
        mode: str = 'tensor',
        network: str = 'teacher',
    ) -> tuple[Tensor, ...] | dict[str, Tensor]:
        """Return features ("tensor") or losses ("loss").

        Args:
            inputs (Tensor | list[Tensor]): As :meth:`extract_feat` or
                :meth:`loss` takes them.
            data_samples (list[DataSample], optional): For the loss.
            mode (str): "tensor" or "loss". Defaults to "tensor".
            network (str): Whose features, see :meth:`extract_feat`.
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
            standard deviation over the batch of the teacher's normalized
            features times sqrt(C), 1 when they spread evenly over the sphere
            and 0 when they are all the same.

        Raises:
            ValueError: The views do not fit.
        """
        student_global, student_local, teacher_global = self.see(inputs)
        views = self.project(student_global, student_local, teacher_global)
        return self.compare(views, teacher_global)

    def see(self, inputs: list[Tensor]) -> tuple[Maps, Maps | None, Maps]:
        """Send a batch's views through the backbones.

        Args:
            inputs (list[Tensor]): As :meth:`loss` takes them.

        Returns:
            tuple: The student's outputs for the 2 B global and the N B local
            views (None without any), and the teacher's for the global ones,
            without gradient.

        Raises:
            ValueError: The views do not fit.
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
        return student_global, student_local, teacher_global

    @staticmethod
    def stack_views(views: list[Tensor]) -> Tensor:
        """Make one channels-last batch (V B, 3, S, S) of V views."""
        return torch.cat(views).contiguous(memory_format=torch.channels_last)

    def project(
        self,
        student_global: Maps,
        student_local: Maps | None,
        teacher_global: Maps,
    ) -> ProjectedViews:
        """Project the backbones' pooled last outputs (Eq. 1's f).

        Args:
            student_global (tuple[Tensor, ...]): Outputs for 2 B images.
            student_local (tuple[Tensor, ...], optional): For N B images.
            teacher_global (tuple[Tensor, ...]): For 2 B images.

        Returns:
            ProjectedViews: Without search layers.
        """
        batch = len(teacher_global[-1]) // NUM_GLOBAL
        pooled = [self.neck.pool(student_global[-1])]
        if student_local is not None:
            pooled.append(self.neck.pool(student_local[-1]))
        student_logits = self.neck(pooled, batch)
        with torch.no_grad():
            teacher_neck = self.teacher.neck
            teacher_pooled = [teacher_neck.pool(teacher_global[-1])]
            teacher_logits = teacher_neck(teacher_pooled, batch).compute()
        return ProjectedViews(student_logits, teacher_logits)

    def compare(
        self, views: ProjectedViews, teacher_global: Maps
    ) -> dict[str, Tensor]:
        """Return the head's losses, and how far the features spread.

        Args:
            views (ProjectedViews): What the head compares.
            teacher_global (tuple[Tensor, ...]): The teacher's outputs for
                2 B images.
        """
        losses = self.head.loss(views)
        if self.training:
            # The backward pass hides it.
            self._reductions.append(CenterReduction(self.centers))
        with torch.no_grad():
            pooled = self.neck.pool(at_least_fp32(teacher_global[-1]))
            deviation = F.normalize(pooled, dim=-1).std(dim=0).mean()
            losses['feature_std'] = deviation * pooled.shape[-1] ** 0.5
        return losses

    def check_views(self, inputs: list[Tensor]) -> None:
        """Check the views of one batch.

        Raises:
            ValueError: Unless inputs are two equal global views, then equal
                local views.
        """
        if not isinstance(inputs, (list, tuple)) or len(inputs) < NUM_GLOBAL:
            raise ValueError(
                f'{type(self).__name__} needs a list of at least two views '
                f'(B, 3, H, W), got {type(inputs).__name__}: put MultiCrop '
                "and PackInputs in the dataset's pipeline and set "
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

    def check_fit(
        self,
        view_shapes: list[tuple[int, int, int]],
        data_sample: DataSample | None = None,
    ) -> None:
        """Send a blank view of every shape through the backbone.

        Args:
            view_shapes (list[tuple[int, int, int]]): (3, S, S) of each view.
            data_sample (DataSample, optional): What else is known of their
                image; not used here. Defaults to None: not checked.

        Raises:
            ValueError: The backbone cannot take a view, or its outputs do
                not fit the necks.
        """
        for shape in sorted(set(view_shapes)):
            self.check_outputs(outputs_of_blank(self.backbone, shape))

    def check_outputs(self, maps: Sequence[Tensor]) -> None:
        """Check the backbone's outputs against the neck.

        Raises:
            ValueError: Their channels differ.
        """
        self.neck.pool(maps[-1])

    @property
    def centers(self) -> list[TeacherCenter]:
        """Every center that follows the teacher's outputs."""
        return [m for m in self.head.modules() if isinstance(m, TeacherCenter)]

    def after_step(
        self, momentum: float, skipped: Tensor | None = None
    ) -> None:
        """Move teacher and centers after the optimizer's step.

        Args:
            momentum (float): Share of itself that the teacher keeps.
            skipped (Tensor, optional): 1 if the optimizer skipped the step,
                and they stand still; 0 if not. Defaults to None: it did not.
        """
        reductions, self._reductions = self._reductions, []
        if skipped is not None and is_free_to_read(skipped):
            if skipped:
                return
            skipped = None
        self.teacher.momentum_update(self, momentum, skipped)
        update_centers(reductions, skipped)
