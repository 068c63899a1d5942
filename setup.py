# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Install the package; torch and the mm packages are the user's choice.

`requirements/build.txt` and `requirements/mminstall.txt` name the tested
stack; `make install` puts it into `.venv`.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_requirements(name: str) -> list:
    """Return the requirement lines of ``requirements/<name>.txt``."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def read_version() -> str:
    """Return ``__version__`` without importing the package (needs torch)."""
    scope: dict = {}
    exec((ROOT / 'mmscfs' / 'version.py').read_text(), scope)
    return scope['__version__']


setup(
    name='mmscfs',
    version=read_version(),
    description='Semantics-consistent feature search for OpenMMLab: '
    'self-supervised pre-training for detection',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmscfs', 'mmscfs.*']),
    install_requires=read_requirements('runtime'),
    extras_require={
        'optional': read_requirements('optional'),
        'tests': read_requirements('tests'),
        'mim': read_requirements('mminstall'),
    },
)
