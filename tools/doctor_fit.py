# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""How large a batch, and how many workers, this machine takes."""

from collections.abc import Iterator
from typing import NamedTuple

from doctor_findings import GIB, NOTE, Finding, gib
from doctor_machine import memory, num_cores
from doctor_packages import load

SHARE = 0.85  # of what is free; the rest is for workers and workspaces
RECIPE_BATCH = 32
WORKERS = 8  # of the recipe


class Memory(NamedTuple):
    """What a training step takes, in bytes: fixed + batch x an image."""

    fixed: float
    image: float

    def batch(self, free: float) -> int:
        """Return the images that fit."""
        return max(int((SHARE * free - self.fixed) // self.image), 0)


# configs/scfs_r50.py, measured: memory of tools/benchmarks/step.py --json
# at batches of 2 and 4 on a CPU.
MEASURED = {
    'half': Memory(1.22 * GIB, 0.18 * GIB),
    'fp32': Memory(1.17 * GIB, 0.38 * GIB),
}


def own_precision(settings: str = 'auto') -> str:
    """Return the precision in which a config runs here."""
    if settings != 'auto':
        return settings
    from mmscfs.engine.optimizers import default_precision

    return default_precision()


def free_memory() -> tuple[str, int]:
    """Return where the training runs, and the bytes free there."""
    torch, _ = load('torch')
    if torch is None or not torch.cuda.is_available():
        return 'CPU', memory()[1]
    # Of several GPUs the fullest decides.
    gpus = range(torch.cuda.device_count())
    return 'GPU', min(torch.cuda.mem_get_info(i)[0] for i in gpus)


def check_fit(
    rule: Memory, precision: str, batch: int, source: str
) -> Finding:
    """Say how many images a process can train on at a time.

    Args:
        rule (Memory): The memory of a step.
        precision (str): Its precision.
        batch (int): The config's batch size.
        source (str): Where the rule comes from.
    """
    place, free = free_memory()
    fits = rule.batch(free)
    text = (
        f'up to {fits} images on the {place}, the config has {batch} '
        f'({precision}: {gib(rule.fixed)} and {rule.image / GIB:.2f} GiB an '
        f'image, {source}; {gib(free)} free, {1 - SHARE:.0%} left for others)'
    )
    if fits >= batch:
        return Finding('batch size', text)
    if fits < 2:
        remedy = (
            'less memory: --cfg-options model.checkpoint_activations=True '
            'train_dataloader.batch_size=2, or fewer local views, '
            'multi_crop.num_local'
        )
        return Finding('batch size', text, NOTE, remedy)
    remedy = (
        f'--auto-scale-lr --cfg-options train_dataloader.batch_size={fits}, '
        'or model.checkpoint_activations=True'
    )
    return Finding('batch size', text, NOTE, remedy)


def check_workers(settings: int = WORKERS) -> Finding:
    """Say how many workers load best.

    Args:
        settings (int): The config's own number.
    """
    torch, _ = load('torch')
    cores = num_cores()
    if torch is not None and torch.cuda.is_available():
        each = max(cores // torch.cuda.device_count() - 1, 1)
        wanted, why = min(each, settings), f'{cores} cores for the GPUs'
    else:
        wanted, why = 1, 'a CPU loads 100 times faster than it trains'
    text = f'{wanted}, the config has {settings} ({why})'
    remedy = f'--cfg-options train_dataloader.num_workers={wanted}'
    if wanted >= settings:
        return Finding('workers', text)
    return Finding('workers', text, NOTE, remedy)


def check_recipe() -> Iterator[Finding]:
    """Yield what fits of configs/scfs_r50.py."""
    module, _ = load('mmscfs')
    precision = own_precision() if module else 'fp32'
    rule = MEASURED['fp32' if precision == 'fp32' else 'half']
    source = 'as measured for configs/scfs_r50.py'
    yield check_fit(rule, precision, RECIPE_BATCH, source)
    yield check_workers()
