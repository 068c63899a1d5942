# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the machine has, whether the packages are there, and whether they work.

Nothing that may be missing is imported by this file itself.
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module, metadata, util
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OK, NOTE, MISSING = 'ok', 'note', 'missing'
GIB = 2**30
# The recipe's 8 workers hold 2 batches of 32 images' views each, in uint8.
SHARED = 8 * 2 * 32 * 3 * (2 * 224**2 + 8 * 96**2)
# Of mmengine's collect_env; the rest is versions, which packages have, and
# how torch was compiled.
FACTS = ('sys.platform', 'CUDA', 'GPU', 'NVCC', 'GCC')
# As in requirements/build.txt, and what is tested.
BUILD = ('torch>=2.6', 'torchvision>=0.21')
TESTED = ('torch==2.14.1', 'torchvision==0.29.1')
# A name, what returns a value ("" for nothing to say) or raises, and the
# command or setting that then helps.
Check = tuple[str, Callable[[], str], str]


class Problem(Exception):
    """What keeps a run from working, and what helps: a text each.

    Without the second the check's remedy helps.
    """

    state = MISSING


class Note(Problem):
    """What can stay as it is."""

    state = NOTE


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    value: str
    state: str = OK
    remedy: str = ''


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """Run checks, and yield what they find."""
    for name, test, remedy in checks:
        try:
            if value := test():
                yield Finding(name, value)
        except Problem as problem:
            text, *better = problem.args
            yield Finding(name, text, problem.state, *(better or [remedy]))
        except Exception as error:  # of any package, config or data set
            yield Finding(name, first_line(error), MISSING, remedy)


def first_line(error: BaseException) -> str:
    """Say an error in one line."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def gib(number: float) -> str:
    """Say a number of bytes."""
    return f'{number / GIB:.1f} GiB'


def pip(*words: str) -> str:
    """Return the command that calls this Python's pip from here."""
    here = os.path.relpath(sys.executable)
    python = sys.executable if here.startswith('..') else here
    return shlex.join([python, '-m', 'pip', *words])


def load(name: str) -> Any:
    """Import a package, which may be missing or broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return import_module(name)
    except Exception as error:  # a damaged package raises anything
        if not isinstance(error, ModuleNotFoundError):
            raise Problem(f'broken: {first_line(error)}') from error
        if error.name != name:
            raise Problem(f'broken: it needs {error.name}') from error
        raise Problem('not installed') from error


def has_cuda() -> bool:
    """Whether torch works, and sees a GPU."""
    try:
        return load('torch').cuda.is_available()
    except Problem:  # which is found of torch itself
        return False


def version(requirement: str, is_imported: bool = False) -> str:
    """Return the version of a package, e.g. of "numpy>=2.1,<3"."""
    name, limits = re.fullmatch(r'([\w-]+)(.*)', requirement).groups()
    try:
        found = (
            load(name).__version__ if is_imported else metadata.version(name)
        )
    except metadata.PackageNotFoundError as error:
        raise Problem('not installed') from error
    for sign, limit in re.findall('([<>]=?)([^,]+)', limits):
        if (numbers(found) >= numbers(limit)) == (sign == '<'):
            raise Problem(f'{found}: mmscfs needs {limits}')
    return found


def numbers(text: str) -> list[int]:
    """Return the numbers of a version, to compare it."""
    return [int(digits) for digits in re.findall(r'\d+', text.split('+')[0])]


def compatibility() -> SimpleNamespace:
    """Return mmscfs/compatibility.py without the package.

    ``import mmscfs`` needs all of what may be missing.
    """
    folders = (ROOT / 'mmscfs', ROOT.parent)  # of a checkout, or installed
    files = [folder / 'compatibility.py' for folder in folders]
    path = next(file for file in files if file.is_file())
    return SimpleNamespace(**runpy.run_path(str(path)))


def package_checks() -> list[Check]:
    """Return a check of Python and of each package, in order of need."""
    python = '.'.join(map(str, sys.version_info[:3]))
    stack, file = compatibility(), ROOT / 'requirements' / 'runtime.txt'
    stack.provide_home()
    if file.is_file():  # a checkout
        own = ['--no-build-isolation', '--no-deps', '-e', str(ROOT)]
        runtime = file.read_text().split()
    else:
        own, lines = ['mmscfs'], metadata.requires('mmscfs') or ()
        runtime = [line for line in lines if ';' not in line]
    runtime.append('setuptools<80.9')  # mmengine needs its pkg_resources
    # Builds of torch of different kinds break each other: replace both.
    both = pip('install', '--force-reinstall', *TESTED)
    packages = [(line, True, both) for line in BUILD]
    packages += [(line, False, pip('install', line)) for line in runtime]
    packages += [
        (
            f'{name}>={lowest},<{limit}',
            True,
            stack.replace(name, wanted, pip()),
        )
        for name, (lowest, limit, wanted) in stack.SUPPORTED.items()
    ]
    packages.append(('mmscfs', True, pip('install', *own)))
    return [
        ('Python', f'{python} ({sys.executable})'.__str__, ''),
        *(
            (re.split('[<>]', line)[0], partial(version, line, how), remedy)
            for line, how, remedy in packages
        ),
        ("mmcv's operators", operators, stack.compile_mmcv(pip())),
    ]


def operators() -> str:
    """Say whose operators detectors call: compiled, or torchvision's."""
    if util.find_spec('mmcv._ext') is None:
        return "torchvision's: NMS, RoIAlign and focal loss"
    cuda = load('mmcv.ops').get_compiling_cuda_version()
    if has_cuda() and cuda == 'not available':
        raise Problem(
            'compiled without CUDA: detectors cannot use the GPU',
            f'export FORCE_CUDA=1; {compatibility().compile_mmcv(pip())}',
        )
    return f'compiled, CUDA {cuda}'


def machine_checks() -> Iterator[Check]:
    """Yield what mmengine says of the machine, and what a run needs of it."""
    try:
        facts = load('mmengine.utils.dl_utils').collect_env()
    except Problem:  # which is found of mmengine itself
        facts = {}
    for name, value in facts.items():
        if name.startswith(FACTS):
            yield name, str(value).__str__, ''
    remedy = (
        'unset CUDA_VISIBLE_DEVICES; install a torch that is built for CUDA; '
        'update the driver; start the container with --gpus all'
    )
    yield 'GPU', unused_gpu, remedy
    yield 'cores', str(num_cores()).__str__, ''
    yield 'memory', f'{gib(free_memory())} free'.__str__, ''
    remedy = (
        'docker run --shm-size=8g (or --ipc=host); else --cfg-options '
        'train_dataloader.num_workers=1'
    )
    yield '/dev/shm', shared_memory, remedy


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def free_memory() -> int:
    """Return the free bytes of the fullest GPU, without one of the machine."""
    if has_cuda():
        cuda = load('torch').cuda
        return min(cuda.mem_get_info(i)[0] for i in range(cuda.device_count()))
    memory = Path('/proc/meminfo').read_text()
    return 1024 * int(re.search(r'MemAvailable: *(\d+)', memory)[1])


def unused_gpu() -> str:
    """Return "", or raise that torch does not see the driver's GPU."""
    query = 'nvidia-smi --query-gpu=name,driver_version --format=csv,noheader'
    try:
        done = subprocess.run(
            query.split(), capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):  # no driver, or it hangs
        return ''
    if done.returncode or has_cuda():
        return ''
    gpu, torch = done.stdout.partition('\n')[0], load('torch')
    raise Note(
        f'{gpu}: torch {torch.__version__} does not see it (built for CUDA '
        f'{torch.version.cuda})'
    )


def shared_memory(folder: str = '/dev/shm') -> str:
    """Say what room loaders have for the workers' batches."""
    if not Path(folder).is_dir():
        return ''
    size = shutil.disk_usage(folder).total
    if size < SHARED:
        raise Problem(
            f"{gib(size)}: the recipe's 8 workers fill {gib(SHARED)}"
        )
    return f'{gib(size)}, for the loaders'
