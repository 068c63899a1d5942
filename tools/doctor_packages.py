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
from types import ModuleType
from typing import Any

from doctor_findings import (
    MISSING,
    NOTE,
    ROOT,
    Finding,
    first_line,
    pip_install,
    python_command,
)

# As in requirements/build.txt and runtime.txt: import name -> package.
TESTED = {'torch': '2.11.0', 'torchvision': '0.26.0'}
RUNTIME = {
    'cv2': 'opencv-python',
    'jinja2': 'jinja2',
    'matplotlib': 'matplotlib',
    'numpy': 'numpy',
    'PIL': 'pillow',
    'rich': 'rich',
    'safetensors': 'safetensors',
    'sklearn': 'scikit-learn',
    'pkg_resources': 'setuptools<81',  # newer ones lack it, mmengine needs it
}
# What each is for; none is needed.
OPTIONAL = {
    'tensorboard': 'curves and pictures in TensorBoard',
    'wandb': 'the same in Weights & Biases',
    'pytest': 'make test',
    'playwright': 'the tests of the report in a browser',
}
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
# A wheel that pip has kept may have been built without the ops.
MMCV_FLAGS = ('--no-build-isolation', '--no-cache-dir')


def read_supported() -> dict[str, tuple[str, str, str]]:
    """Return the table of mmscfs/compatibility.py without the package.

    ``import mmscfs`` needs all of what may be missing.
    """
    spec = importlib.util.find_spec('mmscfs')
    folders = spec.submodule_search_locations if spec else None
    folder = folders[0] if folders else ROOT / 'mmscfs'
    return runpy.run_path(f'{folder}/compatibility.py')['SUPPORTED']


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


def install_mmcv(*flags: str) -> str:
    """Return the command that compiles mmcv with its ops."""
    words = (*flags, *MMCV_FLAGS, f'mmcv=={read_supported()["mmcv"][2]}')
    return f'MMCV_WITH_OPS=1 {pip_install(*words)}'


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
    both = [f'{name}=={version}' for name, version in TESTED.items()]
    for name, tested in TESTED.items():
        module, problem = load(name)
        if problem:
            # Of different builds they break each other: both anew.
            flags = ['--force-reinstall'] * problem.startswith('broken')
            yield Finding(name, problem, MISSING, pip_install(*flags, *both))
            continue
        version = version_of(module, name)
        if version.partition('+')[0] == tested:
            yield Finding(name, version)
        else:
            text = f'{version}, tested is {tested}'
            yield Finding(name, text, NOTE, pip_install(*both))


def check_openmmlab() -> Iterator[Finding]:
    """Yield the mm* packages against the range of mmscfs/compatibility.py."""
    for name, (lowest, limit, tested) in read_supported().items():
        remedy = pip_install(f'{name}=={tested}')
        if name == 'mmcv':
            remedy = install_mmcv()
        module, problem = load(name)
        if problem:
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
            yield Finding(name, text, MISSING, remedy)
        if name == 'mmcv':
            yield check_ops()


def check_ops() -> Finding:
    """Check mmcv's compiled ops, which mmdet imports."""
    ops, problem = load('mmcv.ops')
    if ops is None:
        remedy = install_mmcv('--force-reinstall', '--no-deps')
        return Finding("mmcv's ops", problem, MISSING, remedy)
    cuda = ops.get_compiling_cuda_version()
    torch, _ = load('torch')
    if torch and torch.cuda.is_available() and cuda == 'not available':
        remedy = install_mmcv('--force-reinstall', '--no-deps')
        return Finding(
            "mmcv's ops",
            'compiled without CUDA: detectors cannot use the GPU',
            MISSING,
            f'FORCE_CUDA=1 {remedy}',
        )
    return Finding("mmcv's ops", f'compiled, CUDA {cuda}')


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
