# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS

from mmscfs.checkpoint import write_atomically
from mmscfs.datasets import ImageFiles
from mmscfs.datasets.image_files import UNREADABLE
from mmscfs.datasets.transforms.loading import UnreadableImageError
from mmscfs.datasets.wrappers import walk

from ..resume.files import warning_if_full
from ..resume.loop import window_is_closed
from ..resume.preemption import save_interrupted

INTERVAL = 50  # iterations between two looks


@HOOKS.register_module()
class UnreadableFilesHook(Hook):
    """List the files that ``on_error="skip"`` skipped; end if too many are.

    The list is ``unreadable_files.txt`` in the work directory, one name a
    line, written after an epoch that found more and when the run ends. Once
    the share of unreadable files is above a data set's ``max_errors``, the
    run is saved as after a signal, and ends with an error.

    Several processes add up what they found after each epoch; within one,
    the share is what the process with most has found.

    Raises:
        UnreadableImageError: Too many files cannot be read.

    Example:
        >>> default_hooks = dict(
        ...     unreadable_files=dict(type='UnreadableFilesHook')
        ... )
    """

    priority = 'LOWEST'  # after the checkpoint of the same iteration

    def __init__(self) -> None:
        self.listed: list[str] = []

    def before_train(self, runner: Runner) -> None:
        """Keep what the list has from before a run was resumed."""
        path = Path(runner.work_dir, UNREADABLE)
        if runner.iter and path.is_file():
            self.listed = os.fsdecode(path.read_bytes()).splitlines()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, *_: Any, **__: Any
    ) -> None:
        """Look now and then; after an epoch list what all processes found."""
        ends = self.is_last_train_iter(runner) or self.end_of_epoch(
            runner.train_dataloader, batch_idx
        )
        if ends:
            for part in image_files(runner.train_dataloader.dataset):
                all_reduce(part.unreadable, 'max')
            self.write(runner)
        if ends or self.every_n_train_iters(runner, INTERVAL):
            self.look(runner)

    def look(self, runner: Runner) -> None:
        """Save and end the run if a share is too large."""
        for part in image_files(runner.train_dataloader.dataset):
            count, total = part.num_unreadable, len(part)
            if is_distributed():
                counts = torch.tensor([count])
                all_reduce(counts, 'max')
                count = int(counts)
            if count <= part.max_errors * total or not window_is_closed(
                runner
            ):
                continue
            self.write(runner)
            path = save_interrupted(runner)
            raise UnreadableImageError(
                f'{count} of {total} files in {part.img_prefix!r} cannot be '
                f'read ({100 * count / total:.1f} %), more than '
                'train_dataloader.dataset.max_errors='
                f'{part.max_errors:g} allows. The run is saved as {path}. '
                f'Repair the files that {UNREADABLE} in the work directory '
                'lists, or raise max_errors, and continue with --resume'
            )

    def write(self, runner: Runner) -> None:
        """Write the list if there is something new."""
        found = [
            name.replace('\n', '\\n')
            for part in image_files(runner.train_dataloader.dataset)
            for name in part.unreadable_names()
        ]
        names = list(dict.fromkeys([*self.listed, *found]))
        if len(names) > len(self.listed) and is_main_process():
            path = Path(runner.work_dir, UNREADABLE)
            text = ''.join(f'{name}\n' for name in names)
            with warning_if_full('The list of files that cannot be read'):
                write_atomically(path, os.fsencode(text))
                runner.logger.warning(
                    f'{len(names)} files cannot be read; {path} lists them'
                )
        self.listed = names


def image_files(dataset: Any) -> Iterator[ImageFiles]:
    """Yield the image folders inside of wrappers."""
    return (part for part in walk(dataset) if isinstance(part, ImageFiles))
