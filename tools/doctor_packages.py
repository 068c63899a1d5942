# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Are the packages there, and do they work? Nothing else imports for it."""

import importlib.metadata
import importlib.util
import runpy
import shutil
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

from doctor_findings import (
    MISSING,
    NOTE,
    ROOT,
    Finding,
    first_line,
    pip_command,
    pip_install,
    python_command,
)

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
# What each is for; none is needed.
OPTIONAL = {
    'tensorboard': 'curves and pictures in TensorBoard',
    'wandb': 'the same in Weights & Biases',
    'pytest': 'make test',
    'playwright': 'the tests of the report in a browser',
}
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


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
    """Return a package's version, "?" if it tells none."""
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
    yield from check_optional()


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
            text = f'{version}, needed is >= {lowest}'
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
            text = f'{version}, needed is >= {lowest}, < {limit}'
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


def check_optional() -> Iterator[Finding]:
    """Yield what some features and the tests need."""
    for name, purpose in OPTIONAL.items():
        if importlib.util.find_spec(name):
            yield Finding(name, version_of(None, name))
        else:
            text = f'not installed: {purpose}'
            yield Finding(name, text, NOTE, pip_install(name))
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found:
        yield Finding('browser', found)
    else:
        remedy = f'tests/install_browser.sh {python_command()}'
        text = 'none on the PATH, which make test installs'
        yield Finding('browser', text, NOTE, remedy)
