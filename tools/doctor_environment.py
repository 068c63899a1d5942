# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the machine has, whether the packages are there, and whether they work.

Nothing that may be missing is imported by this file itself.
"""

import importlib.metadata
import importlib.util
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OK, NOTE, MISSING = 'ok', 'note', 'missing'
GIB = 2**30
# The recipe's 8 workers hold 2 batches of 32 images' views each, in uint8.
SHARED = 8 * 2 * 32 * 3 * (2 * 224**2 + 8 * 96**2)
# Of mmengine's collect_env; the rest is versions, which packages have, and
# how torch was compiled.
FACTS = ('sys.platform', 'CUDA', 'GPU', 'NVCC', 'GCC')
# The lowest versions, as in requirements/build.txt, and what is tested.
LOWEST = {'torch': '2.6', 'torchvision': '0.21'}
TESTED = ('torch==2.14.1', 'torchvision==0.29.1')
# As in requirements/runtime.txt: import name -> package.
RUNTIME = {
    'cv2': 'opencv-python',
    'jinja2': 'jinja2',
    'matplotlib': 'matplotlib',
    'numpy': 'numpy',
    'PIL': 'pillow',
    'plotly': 'plotly',
    'rich': 'rich',
    'safetensors': 'safetensors',
    'sklearn': 'scikit-learn',
    'pkg_resources': 'setuptools<80.9',  # mmengine needs it
}


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    value: str
    state: str = OK  # MISSING: needed, and not there
    remedy: str = ''  # the command or setting that fixes it


def pip_command() -> str:
    """Return how to call this Python's pip from here."""
    here = os.path.relpath(sys.executable)
    python = sys.executable if here.startswith('..') else here
    return f'{shlex.quote(python)} -m pip'


def pip_install(*words: str) -> str:
    """Return the command that installs into this Python."""
    quoted = ' '.join(shlex.quote(word) for word in words)
    return f'{pip_command()} install {quoted}'


def gib(number: float) -> str:
    """Say a number of bytes."""
    return f'{number / GIB:.1f} GiB'


def first_line(error: BaseException) -> str:
    """Say an error in one line."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def compatibility() -> SimpleNamespace:
    """Return mmscfs/compatibility.py without the package.

    ``import mmscfs`` needs all of what may be missing.
    """
    spec = importlib.util.find_spec('mmscfs')
    folders = spec.submodule_search_locations if spec else None
    folder = folders[0] if folders else ROOT / 'mmscfs'
    return SimpleNamespace(**runpy.run_path(f'{folder}/compatibility.py'))


def load(name: str) -> tuple[ModuleType | None, str]:
    """Import a package; return it, or None and why it does not work."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return import_module(name), ''
    except ModuleNotFoundError as error:
        if error.name == name:
            return None, 'not installed'
        return None, f'broken: it needs {error.name}'
    except Exception as error:  # a damaged package raises anything
        return None, f'broken: {first_line(error)}'


def version_of(module: Any, package: str) -> str:
    """Return a package's version, "?" if it does not say."""
    if version := getattr(module, '__version__', ''):
        return version
    try:
        return importlib.metadata.version(package.partition('<')[0])
    except importlib.metadata.PackageNotFoundError:
        return '?'


def check_packages() -> Iterator[Finding]:
    """Yield a finding for Python and each package, in order of need."""
    python = '.'.join(map(str, sys.version_info[:3]))
    yield Finding('Python', f'{python} ({sys.executable})')
    yield from check_torch()
    for name, package in RUNTIME.items():
        module, problem = load(name)
        if problem:
            flags = ['--force-reinstall'] * problem.startswith('broken')
            remedy = pip_install(*flags, package)
            yield Finding(package, problem, MISSING, remedy)
        else:
            yield Finding(package, version_of(module, package))
    yield from check_openmmlab()
    yield check_mmscfs()


def check_torch() -> Iterator[Finding]:
    """Yield torch and torchvision, which must fit each other."""
    for name, lowest in LOWEST.items():
        module, problem = load(name)
        if problem:
            # Builds of different kinds break each other: replace both.
            flags = ['--force-reinstall'] * problem.startswith('broken')
            remedy = pip_install(*flags, *TESTED)
            yield Finding(name, problem, MISSING, remedy)
            continue
        version = version_of(module, name)
        if numbers(version) >= numbers(lowest):
            yield Finding(name, version)
        else:
            text = f'{version}: mmscfs needs >= {lowest}'
            yield Finding(name, text, MISSING, pip_install(*TESTED))


def numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, to compare it."""
    return tuple(int(number) for number in version.split('.')[:2])


def check_openmmlab() -> Iterator[Finding]:
    """Yield the mm* packages against the range of mmscfs/compatibility.py."""
    stack = compatibility()
    for name, (lowest, limit, requirement) in stack.SUPPORTED.items():
        module, problem = load(name)
        if problem:
            remedy = pip_install(requirement)
            yield Finding(name, problem, MISSING, remedy)
            continue
        version = version_of(module, name)
        digits, problem = load('mmengine.utils')
        if digits is None:  # mmengine's own line says it
            yield Finding(name, version)
            continue
        low, found, high = map(digits.digit_version, (lowest, version, limit))
        if low <= found < high:
            yield Finding(name, version)
        else:
            text = f'{version}: mmscfs needs >= {lowest}, < {limit}'
            remedy = stack.replace(name, requirement, pip_command())
            yield Finding(name, text, MISSING, remedy)
        if name == 'mmcv':
            yield check_operators()


def check_operators() -> Finding:
    """Check mmcv's operators, which detectors call.

    Without compiled ones mmscfs takes torchvision's.
    """
    name = "mmcv's operators"
    if importlib.util.find_spec('mmcv._ext') is None:
        return Finding(name, "torchvision's: NMS, RoIAlign and focal loss")
    remedy = compatibility().compile_mmcv(pip_command())
    ops, problem = load('mmcv.ops')
    if ops is None:
        return Finding(name, problem, MISSING, remedy)
    cuda = ops.get_compiling_cuda_version()
    torch, _ = load('torch')
    if torch and torch.cuda.is_available() and cuda == 'not available':
        text = 'compiled without CUDA: detectors cannot use the GPU'
        return Finding(name, text, MISSING, f'export FORCE_CUDA=1; {remedy}')
    return Finding(name, f'compiled, CUDA {cuda}')


def check_mmscfs() -> Finding:
    """Check that this package is installed and imports."""
    module, problem = load('mmscfs')
    if not problem:
        return Finding('mmscfs', version_of(module, 'mmscfs'))
    if problem == 'not installed':
        remedy = pip_install('mmscfs')
        if (ROOT / 'setup.py').is_file():
            words = ('--no-build-isolation', '--no-deps', '-e', str(ROOT))
            remedy = pip_install(*words)
        return Finding('mmscfs', problem, MISSING, remedy)
    return Finding('mmscfs', problem, MISSING, 'the commands above')


def check_machine() -> Iterator[Finding]:
    """Yield what mmengine says of the machine, and what a run needs of it."""
    module, _ = load('mmengine.utils.dl_utils')
    if module is not None:  # else the packages say why
        for name, value in module.collect_env().items():
            if name.startswith(FACTS):
                yield Finding(name, str(value))
    yield from check_gpu()
    yield Finding('cores', str(num_cores()))
    yield Finding('memory', f'{gib(free_memory())} free')
    yield from check_shared_memory()


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """Return the free bytes of the fullest GPU, without one of the machine."""
    torch, _ = load('torch')
    if torch is not None and torch.cuda.is_available():
        gpus = range(torch.cuda.device_count())
        return min(torch.cuda.mem_get_info(i)[0] for i in gpus)
    path = Path('/proc/meminfo')
    words = path.read_text().split() if path.is_file() else []
    if 'MemAvailable:' in words:
        return 1024 * int(words[words.index('MemAvailable:') + 1])
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def check_gpu() -> Iterator[Finding]:
    """Yield why torch does not see a GPU that the driver has."""
    torch, _ = load('torch')
    if torch is None or torch.cuda.is_available() or not (gpu := find_gpu()):
        return
    if os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
        remedy = 'unset CUDA_VISIBLE_DEVICES'
        yield Finding('GPU', f'{gpu}, hidden', NOTE, remedy)
    elif torch.version.cuda is None:
        text = f'{gpu}, but torch {torch.__version__} is built without CUDA'
        words = ('--force-reinstall', '--no-deps', *TESTED)
        yield Finding('GPU', text, MISSING, pip_install(*words))
    else:
        yield Finding(
            'GPU',
            f'{gpu}, but torch cannot use it: its CUDA {torch.version.cuda} '
            'needs a newer driver, or the container lacks the GPU',
            MISSING,
            'update the driver (nvidia-smi says what it allows), or start '
            'the container with --gpus all',
        )


def find_gpu() -> str:
    """Return the first GPU that the driver knows, "" without one."""
    tool = shutil.which('nvidia-smi')
    if not tool:
        return ''
    query = [tool, '--query-gpu=name,driver_version', '--format=csv,noheader']
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):  # a driver that hangs
        return ''
    return '' if done.returncode else done.stdout.partition('\n')[0]


def check_shared_memory(folder: str = '/dev/shm') -> Iterator[Finding]:
    """Yield the room in which loaders put the workers' batches."""
    if not Path(folder).is_dir():
        return
    size = shutil.disk_usage(folder).total
    if size < SHARED:
        text = f"{gib(size)}: the recipe's 8 workers fill {gib(SHARED)}"
        remedy = (
            'docker run --shm-size=8g (or --ipc=host); else --cfg-options '
            'train_dataloader.num_workers=1'
        )
        yield Finding(folder, text, MISSING, remedy)
    else:
        yield Finding(folder, f'{gib(size)}, for the loaders')
