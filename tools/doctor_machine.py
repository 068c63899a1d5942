# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the machine has: cores, memory, GPUs, disks, limits, launchers."""

import os
import platform
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from doctor_findings import GIB, MISSING, NOTE, Finding, gib, pip_install
from doctor_packages import TESTED, load

# A checkpoint of configs/scfs_r50.py has 0.8 GiB; a run keeps three, and
# writes a new one before it deletes the oldest.
DISK = 4 * GIB
# The recipe's 8 workers hold 2 batches of 32 images' views each, in uint8.
SHARED = 8 * 2 * 32 * 3 * (2 * 224**2 + 8 * 96**2)
FILES = 1024
LAUNCHERS = (
    'CUDA_VISIBLE_DEVICES',
    'OMP_NUM_THREADS',
    'RANK',
    'LOCAL_RANK',
    'WORLD_SIZE',
    'MASTER_ADDR',
    'MASTER_PORT',
    'NNODES',
    'NODE_RANK',
    'PORT',
    'MAX_RESTARTS',
)
SLURM = (
    'SLURM_JOB_ID',
    'SLURM_JOB_PARTITION',
    'SLURM_NNODES',
    'SLURM_NTASKS',
    'SLURM_CPUS_PER_TASK',
    'SLURM_RESTART_COUNT',
)
CGROUP = Path('/sys/fs/cgroup')


def num_cores() -> int:
    """Return how many cores this process may use, containers counted in."""
    if hasattr(os, 'sched_getaffinity'):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = read_words(CGROUP / 'cpu.max')  # "200000 100000": two of them
    if len(quota) == 2 and quota[0].isdecimal():
        cores = min(cores, max(int(quota[0]) // int(quota[1]), 1))
    return cores


def read_words(path: Path) -> list[str]:
    """Return the words of a small file of the system, none without it."""
    try:
        return path.read_text().split()
    except OSError:
        return []


def memory() -> tuple[int, int]:
    """Return (total, available) bytes of memory, containers counted in."""
    total = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    words = read_words(Path('/proc/meminfo'))
    available = total
    if 'MemAvailable:' in words:
        available = 1024 * int(words[words.index('MemAvailable:') + 1])
    limit = read_words(CGROUP / 'memory.max')
    if limit and limit[0].isdecimal() and int(limit[0]) < total:
        used = read_words(CGROUP / 'memory.current') or ['0']
        total = int(limit[0])
        available = min(available, total - int(used[0]))
    return total, available


def check_system() -> Iterator[Finding]:
    """Yield the system, its processor and its memory."""
    yield Finding('system', f'{platform.platform()}')
    cores = num_cores()
    words = set(read_words(Path('/proc/cpuinfo')))
    fast = [name for name in ('amx_bf16', 'avx512_bf16') if name in words]
    precision = f'bf16 by {", ".join(fast)}' if fast else 'fp32 (no bf16)'
    yield Finding('cores', f'{cores} usable of {os.cpu_count()}, {precision}')
    total, available = memory()
    yield Finding('memory', f'{gib(total)}, {gib(available)} available')
    threads = os.environ.get('OMP_NUM_THREADS', '')
    if threads.isdecimal() and int(threads) < cores:
        yield Finding(
            'threads',
            f'OMP_NUM_THREADS={threads}, of {cores} cores',
            NOTE,
            'unset OMP_NUM_THREADS, for one training process on a CPU',
        )


def check_gpus() -> Iterator[Finding]:
    """Yield the GPUs, and why torch does not see them if so."""
    driver = query_driver()
    torch, _ = load('torch')
    if torch is None:
        if driver:
            yield Finding('GPU', f'{driver[0]}; torch is missing or broken')
        return
    cuda = torch.version.cuda
    if torch.cuda.is_available():
        yield Finding(
            'CUDA', f'{cuda}, cuDNN {torch.backends.cudnn.version()}'
        )
        for i in range(torch.cuda.device_count()):
            chip = torch.cuda.get_device_properties(i)
            free, total = torch.cuda.mem_get_info(i)
            yield Finding(
                f'GPU {i}',
                f'{chip.name}, {gib(total)}, {gib(free)} free, '
                f'compute {chip.major}.{chip.minor}',
            )
    elif not driver:
        yield Finding('GPU', 'none: everything runs on the CPU')
    elif os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
        remedy = 'unset CUDA_VISIBLE_DEVICES'
        yield Finding('GPU', f'{driver[0]}, hidden', NOTE, remedy)
    elif cuda is None:
        yield Finding(
            'GPU',
            f'{driver[0]}, but torch {torch.__version__} is built without '
            'CUDA',
            MISSING,
            pip_install('--force-reinstall', '--no-deps', *TESTED),
        )
    else:
        yield Finding(
            'GPU',
            f'{driver[0]}, but torch cannot use it: its CUDA {cuda} needs a '
            'newer driver, or the container lacks the GPU',
            MISSING,
            'nvidia-smi shows what the driver allows: update the driver, or '
            'start the container with --gpus all',
        )


def query_driver() -> list[str]:
    """Return a line for each GPU that the driver knows, without torch."""
    tool = shutil.which('nvidia-smi')
    if not tool:
        return []
    query = '--query-gpu=name,memory.total,driver_version'
    try:
        done = subprocess.run(
            [tool, query, '--format=csv,noheader'],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs
        return []
    return done.stdout.strip().splitlines() if not done.returncode else []


def check_limits(
    folders: tuple[str, ...] = ('work_dirs', 'data'),
    shared: str = '/dev/shm',
) -> Iterator[Finding]:
    """Yield disk space, shared memory and open files.

    Args:
        folders (tuple[str, ...]): What is written and read; one that is not
            there yet lies in its parent.
        shared (str): Where loaders put the workers' batches.
    """
    for folder in folders:
        place = Path(folder).resolve()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < DISK:
            yield Finding(
                folder,
                f'{gib(free)} free: four checkpoints of scfs_r50 take '
                f'{gib(DISK)}',
                NOTE,
                'free some, or tools/train.py --work-dir on another disk',
            )
        else:
            yield Finding(folder, f'{gib(free)} free')
    if Path(shared).is_dir():
        size = shutil.disk_usage(shared).total
        if size < SHARED:
            yield Finding(
                shared,
                f"{gib(size)}: the recipe's 8 workers fill {gib(SHARED)}",
                MISSING,
                'docker run --shm-size=8g (or --ipc=host); else --cfg-options '
                'train_dataloader.num_workers=1',
            )
        else:
            yield Finding(shared, f'{gib(size)}, for the loaders')
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= files < FILES:  # -1: no limit
        yield Finding('open files', str(files), NOTE, 'ulimit -n 4096')
    else:
        yield Finding('open files', str(files) if files > 0 else 'no limit')


def check_launchers() -> Iterator[Finding]:
    """Yield what a launcher or Slurm has set, and Slurm's commands."""
    for name in (*LAUNCHERS, *SLURM):
        if value := os.environ.get(name):
            yield Finding(name, value)
    if path := shutil.which('srun'):
        yield Finding('Slurm', f'{path}: tools/slurm_train.sh')
