# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The range of packages and users that this version is made for."""

import getpass
import os
import tempfile
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path

# package -> (lowest supported, first unsupported, what to install)
SUPPORTED = {
    'mmengine': ('0.10.7', '0.11.0', 'mmengine==0.10.7'),
    'mmcv': ('2.1.0', '2.4.0', 'mmcv-lite==2.1.0'),
    'mmpretrain': ('1.2.0', '1.4.0', 'mmpretrain==1.2.0'),
    'mmdet': ('3.3.0', '3.6.0', 'mmdet==3.3.0'),
}


def provide_home() -> None:
    """Give a user without a home or a name what the stack needs of them.

    In containers users have no account entry. Without a home mmengine does
    not import, without a name torch does not compile, and in a home that
    cannot be written matplotlib warns of each start.
    """
    home, other = os.path.expanduser('~'), tempfile.gettempdir()
    if home == '~':
        home = os.environ['HOME'] = other
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ['USER'] = str(os.getuid())
    if not os.access(home, os.W_OK):
        cache = os.path.join(other, f'matplotlib-{os.getuid()}')
        os.environ.setdefault('MPLCONFIGDIR', cache)


def replace(package: str, requirement: str, pip: str = 'pip') -> str:
    """Return the command that installs another version of a package.

    mmcv and mmcv-lite share their files: pip must remove the one first.
    """
    install = f'{pip} install {requirement}'
    if requirement.startswith(f'{package}=='):
        return install
    return f'{pip} uninstall -y {package} && {install}'


def compile_mmcv(pip: str = 'pip') -> str:
    """Return the command that compiles mmcv in place of what is installed.

    pip may have cached a wheel that was made for another torch, or without
    operators.
    """
    requirement = 'mmcv==2.1.0'
    if 'onedl-mmcv' in packages_distributions().get('mmcv', ()):
        requirement = 'onedl-mmcv==2.3.6'
    return (
        f'{pip} install ninja psutil wheel && '
        f'{pip} uninstall -y mmcv-lite && MMCV_WITH_OPS=1 {pip} install '
        '--no-build-isolation --no-cache-dir --no-deps --force-reinstall '
        f'{requirement}'
    )


def check_package(package: str) -> None:
    """Import ``package`` and check its version.

    Raises:
        ImportError: It is missing, or outside the supported range. Names
            what to install.
    """
    lowest, limit, requirement = SUPPORTED[package]
    try:
        # Here, so that a missing mmengine is reported like any other package.
        from mmengine.utils import digit_version

        found = import_module(package).__version__
    except ModuleNotFoundError as error:
        if error.name not in (package, 'mmengine'):
            raise
        requirement = SUPPORTED[error.name][2]
        raise ImportError(
            f'mmscfs needs {error.name}: run `pip install {requirement}`.'
        ) from error
    version, *bounds = map(digit_version, (found, lowest, limit))
    if not bounds[0] <= version < bounds[1]:
        raise ImportError(
            f'mmscfs needs {package} >= {lowest}, < {limit} but found '
            f'{found}: run `{replace(package, requirement)}`.'
        )


def check_stack() -> None:
    """Check what every use of mmscfs needs; mmdet is checked where used.

    Raises:
        ImportError: A package is missing or outside the supported range.
    """
    for package in ('mmengine', 'mmcv', 'mmpretrain'):
        check_package(package)


def has_fast_bf16() -> bool:
    """Return whether the CPU has instructions for products of bf16.

    torch.cpu.get_capabilities, which tells it, is missing before torch 2.11.
    """
    cpu = Path('/proc/cpuinfo')
    words = cpu.read_text().split() if cpu.is_file() else []
    return not {'amx_bf16', 'avx512_bf16'}.isdisjoint(words)
