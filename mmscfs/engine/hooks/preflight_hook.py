# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import check_same_model

from ..runner_access import unwrapped_model


@HOOKS.register_module()
class PreflightHook(Hook):
    """Refuse a run that cannot succeed before it starts.

    Checks a loaded checkpoint against the model, the number of images
    against the batch, and one sample's views against backbone and necks.

    Raises:
        ValueError: Names the setting, its value and the remedy.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check that the checkpoint is one of this algorithm."""
        model = unwrapped_model(runner)
        check_same_model(model.state_dict(), checkpoint, type(model).__name__)

    def before_train(self, runner: Runner) -> None:
        """Check batches and views."""
        loader = runner.train_dataloader
        model = unwrapped_model(runner)
        images, batch = len(loader.sampler), loader.batch_size
        if len(loader) == 0:
            raise ValueError(
                f'train_dataloader.batch_size={batch}: the data set has only '
                f'{images} images for each process, not one batch; lower '
                'the batch size or add images'
            )
        last = images % batch
        if model.has_batch_norm() and (
            batch == 1 or (last == 1 and not loader.drop_last)
        ):
            raise ValueError(
                f'train_dataloader.batch_size={batch} makes batches of one '
                f'image out of {images}, which have no statistics for batch '
                'norm: use a batch size of 2 or more and drop_last=True'
            )
        views = loader.dataset[next(iter(loader.sampler))]['inputs']
        model.check_fit([tuple(view.shape) for view in views])
