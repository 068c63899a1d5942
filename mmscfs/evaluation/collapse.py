# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tell from the logged figures whether self-distillation has collapsed."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CollapseCriteria:
    """When figures of a training with K prototypes count as collapsed.

    Collapse is a teacher whose entropy stays at 0 (all images on one
    prototype) or at ln K (all prototypes alike), a divergence of the student
    from the teacher near 0 (nothing is left to predict, as in Fig. 7 of
    DINO's paper), or a loss that stays at ln K (the student cannot tell the
    views of one image from those of another).

    Raises:
        ValueError: A setting is outside its range.

    Example:
        >>> CollapseCriteria().diagnose(4.0, 7.0, num_prototypes=65536)
        >>> CollapseCriteria().diagnose(0.01, 0.3, num_prototypes=65536)
        "the teacher gives every image the same prototype (entropy 0.01 of
        at most 11.1). Raise the teacher's temperature or lower
        center_momentum"
    """

    #: First iteration to look at; the loss of a young run is near ln K.
    begin: int = 1000
    window: int = 200  #: Iterations in a mean.
    #: Distance from 0 or ln K that counts as there, as a share of ln K.
    tolerance: float = 0.005
    #: Divergence (loss minus entropy) below which nothing is left to predict,
    #: as a share of ln K. Runs on small data that learned had 0.1 and more,
    #: those that did not 0.016 and less (docs/en/learning.md).
    min_divergence: float = 0.02

    def __post_init__(self) -> None:
        if self.begin < 0 or self.window < 1:
            raise ValueError(
                f'CollapseMonitorHook: begin={self.begin} must be >= 0 and '
                f'window={self.window} >= 1'
            )
        if not 0 < self.tolerance < 0.5:
            raise ValueError(
                f'CollapseMonitorHook: tolerance={self.tolerance} must lie '
                'in (0, 0.5)'
            )
        if not 0 <= self.min_divergence < 1:
            raise ValueError(
                'CollapseMonitorHook: min_divergence='
                f'{self.min_divergence} must lie in [0, 1)'
            )

    @property
    def first_look(self) -> int:
        """The first iteration whose window may be judged."""
        return self.begin + self.window

    def diagnose(
        self, teacher_entropy: float, loss: float, num_prototypes: int
    ) -> str | None:
        """Say what is wrong and what to do, or return None.

        Args:
            teacher_entropy (float): Mean entropy of the teacher, nats.
            loss (float): Mean cross-entropy on the last layer, nats, before
                its weight.
            num_prototypes (int): Number K of prototypes.
        """
        top = math.log(num_prototypes)
        near = self.tolerance * top
        if teacher_entropy < near:
            return (
                f'the teacher gives every image the same prototype (entropy '
                f'{teacher_entropy:.3g} of at most {top:.3g}). Raise the '
                "teacher's temperature or lower center_momentum"
            )
        if top - teacher_entropy < near:
            return (
                f'the teacher finds all prototypes equally likely (entropy '
                f'{teacher_entropy:.4g} of at most {top:.4g}). Lower the '
                "teacher's temperature or its momentum"
            )
        if loss - teacher_entropy < self.min_divergence * top:
            return (
                f'the student has nothing left to predict (divergence '
                f'{loss - teacher_entropy:.3g}, entropy {teacher_entropy:.4g} '
                f'of at most {top:.4g}). Freeze the prototypes longer, use '
                "fewer of them, or lower the teacher's momentum"
            )
        if abs(top - loss) < near:
            return (
                f'the loss stays at ln K = {top:.4g} ({loss:.4g}): the '
                'student tells no views apart. Check the learning rate and '
                'the crops'
            )
        return None
