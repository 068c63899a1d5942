# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import shutil
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner

from mmscfs.checkpoint import write_atomically

from .random_states import get_random_states

ATOMIC = 'mmscfs_atomic'
LAST = 'last_checkpoint'
# What the message hub keeps of a run, beside mmengine's own.
RANDOM_STATES = 'random_states'
POSITION = 'epoch_position'


class AtomicBackend(LocalBackend):
    """mmengine's local files, which are whole or as they were before."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, its folder made where it is missing.

        Raises:
            OSError: Names the file, its size, the room and the reason.
        """
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(path, obj)
        except OSError as error:
            free = shutil.disk_usage(path.parent).free
            raise OSError(
                error.errno,
                f'{error.strerror}: {len(obj):,} bytes were not written, '
                f'{free:,} are free',
                str(path),
            ) from error


register_backend(ATOMIC, AtomicBackend, force=True)


def is_local(folder: str) -> bool:
    """Whether mmengine takes a folder's name for one on this machine."""
    return isinstance(get_file_backend(folder), LocalBackend)


def save_run(
    runner: Runner, out_dir: str, filename: str, **kwargs: Any
) -> str:
    """Save all that a run needs to go on exactly, and note it as the last.

    Every process must call it; the main one writes.

    Args:
        runner (Runner): The runner.
        out_dir (str): The folder.
        filename (str): The file's name.
        **kwargs: Those of ``Runner.save_checkpoint``.

    Returns:
        str: The checkpoint's path.

    Raises:
        OSError: It cannot be written; the files from before are kept.
    """
    loop, hub = runner.train_loop, runner.message_hub
    states = getattr(loop, 'random_states', None) or get_random_states()
    hub.update_info(RANDOM_STATES, all_gather_object(states))
    position = getattr(loop, 'position', 0), len(loop.dataloader)
    hub.update_info(POSITION, position)

    backend_args = kwargs.get('backend_args')
    path = get_file_backend(out_dir, backend_args=backend_args).join_path(
        out_dir, filename
    )
    runner.save_checkpoint(out_dir, filename, **kwargs)
    if is_main_process():
        write_atomically(Path(runner.work_dir, LAST), str(path).encode())
    return path


def window_is_closed(runner: Runner) -> bool:
    """Whether no accumulated gradients wait for the next step.

    They are not saved: a run is saved between two windows.
    """
    wrapper = runner.optim_wrapper
    wrappers = (
        wrapper.values()
        if isinstance(wrapper, OptimWrapperDict)
        else [wrapper]
    )
    return all(wrapper.should_update() for wrapper in wrappers)
