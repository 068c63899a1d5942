# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Install the package; torch and the mm packages are the user's choice.

`requirements/build.txt` and `requirements/mminstall.txt` name their ranges;
`make install` puts the tested ones (`constraints.txt`) into `.venv`.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# What mim and mmengine's hub look for in a package's folder .mim.
MIM = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Put configs and tools beside the modules.

    An editable install gets links to them; the checkout stays as it is
    otherwise (.gitignore names the links).
    """

    def run(self) -> None:
        """Build."""
        super().run()
        library = ROOT if self.editable_mode else Path(self.build_lib)
        mim = library / 'mmscfs' / '.mim'
        mim.mkdir(parents=True, exist_ok=True)
        for name in MIM:
            source, target = ROOT / name, mim / name
            if self.editable_mode:
                target.unlink(missing_ok=True)
                target.symlink_to(Path('..', '..', name))
            elif source.is_file():
                shutil.copy2(source, target)
            else:
                shutil.rmtree(target, ignore_errors=True)  # an older build's
                ignored = shutil.ignore_patterns('__pycache__')
                shutil.copytree(source, target, ignore=ignored)


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
    author='mmscfs contributors',
    keywords='computer vision, self-supervised learning, object detection',
    license='Apache-2.0',
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    python_requires='>=3.10,<3.14',
    packages=find_packages(include=['mmscfs', 'mmscfs.*']),
    package_data={
        '': ['py.typed', '*.css', '*.csv', '*.html', '*.txt', '*.yml'],
        'mmscfs': ['weights/*'],
    },
    cmdclass={'build_py': BuildWithMim},
    install_requires=read_requirements('runtime'),
    extras_require={
        'optional': read_requirements('optional'),
        'tests': read_requirements('tests'),
        'docs': read_requirements('docs'),
        'mim': read_requirements('mminstall'),
    },
)
