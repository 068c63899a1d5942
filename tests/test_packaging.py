# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The installed package, away from the repository."""

import shutil
import sys
import sysconfig
import zipfile
from importlib import metadata

import pytest
from commands import ROOT, call, run
from packaging.requirements import Requirement
from packaging.version import Version

DEMO = 'scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits'
# What packaging reads; the rest of the repository stays away.
SOURCES = (
    'LICENSE',
    'MANIFEST.in',
    'README.md',
    'configs',
    'mmscfs',
    'model-index.yml',
    'pyproject.toml',
    'requirements',
    'setup.py',
    'tools',
)
SDIST = """
import sys
from setuptools import build_meta
build_meta.build_sdist(sys.argv[1])
"""
# As `python .mim/tools/train.py CONFIG ...`, and what comes after it, in one
# process: importing takes longest.
USE = """
import runpy
import sys
from pathlib import Path

import mmscfs

package = Path(mmscfs.__file__).parent
assert package.is_relative_to(sys.prefix), package
tools = package / '.mim' / 'tools'
sys.path.insert(0, str(tools))
sys.argv[0] = str(tools / 'train.py')
name = Path(sys.argv[1]).stem
runpy.run_path(sys.argv[0], run_name='__main__')

import torch
from mmengine.config import Config
from mmpretrain import FeatureExtractor, list_models

assert name in list_models('scfs*')
from mmscfs.hub import find_config

path = find_config('mmscfs::scfs_r50.py')
assert Config.fromfile(path).model.type == 'SCFS'
checkpoint = 'run/epoch_1.pth'
(image, *_) = sorted(Path('images').rglob('*.jpg'))
extractor = FeatureExtractor(name, pretrained=checkpoint)
(found,) = extractor(str(image), stage='neck')[0]
state = torch.load(checkpoint, weights_only=True)['state_dict']
weight = extractor.model.teacher.backbone.conv1.weight
assert torch.equal(weight, state['teacher.backbone.conv1.weight'])
print('features', tuple(found.shape))
"""


def succeed(*words, cwd, **environment):
    """Run a command that succeeds; return what it printed."""
    done = run(*words, cwd=cwd, **environment)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    return output


def files_below(folder):
    """Return the files in a folder, but for what Python compiled."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel made from an sdist, which is made from a clean copy."""
    folder = tmp_path_factory.mktemp('packaging')
    source = folder / 'source'
    source.mkdir()
    ignored = shutil.ignore_patterns('__pycache__', '.mim', '*.egg-info')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, source)
    succeed(sys.executable, '-c', SDIST, folder, cwd=source)
    (sdist,) = folder.glob('*.tar.gz')
    # The copy stays as clean as it was.
    assert {path.name for path in source.iterdir()} == {
        *SOURCES,
        'mmscfs.egg-info',
    }
    assert not (source / 'mmscfs' / '.mim').exists()
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check']
    succeed(
        *[*pip, 'wheel', '--no-deps', '--no-build-isolation', '--no-index'],
        *['--wheel-dir', folder, sdist],
        cwd=folder,
    )
    (path,) = folder.glob('*.whl')
    return path


def test_wheel_has_every_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {
            name for name in archive.namelist() if 'dist-info' not in name
        }
        modes = {
            info.filename: info.external_attr >> 16
            for info in archive.infolist()
        }
    expected = {'mmscfs/.mim/model-index.yml'}
    for name, folder in (
        ('mmscfs', 'mmscfs'),
        ('configs', 'mmscfs/.mim/configs'),
        ('tools', 'mmscfs/.mim/tools'),
    ):
        expected |= {
            f'{folder}/{path}'
            for path in files_below(wheel.parent / 'source' / name)
        }
    assert names == expected
    for script in ('dist_train', 'dist_test', 'slurm_train'):
        assert modes[f'mmscfs/.mim/tools/{script}.sh'] & 0o111 == 0o111


def test_wheel_trains_and_extracts_away_from_the_repository(
    wheel, image_folder, tmp_path
):
    home = tmp_path / 'venv'
    succeed(sys.executable, '-m', 'venv', '--without-pip', home, cwd=tmp_path)
    (packages,) = home.glob('lib/python*/site-packages')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)  # as pip does, without its seconds
    # The stack, but not what Python reads at the start of this environment:
    # there an editable install names the checkout.
    stack = sysconfig.get_paths()['purelib']
    (packages / 'stack.pth').write_text(f'{stack}\n')
    options = [
        f'train_dataloader.dataset.data_root={image_folder}',
        'train_dataloader.batch_size=8',
        'train_dataloader.num_workers=0',
        'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1',
        'default_hooks.pictures=None',  # takes longer than the rest
    ]
    output = succeed(
        *[home / 'bin' / 'python', '-c', USE, f'mmscfs::scfs/{DEMO}.py'],
        *['--work-dir', 'run', '--cfg-options', *options],
        cwd=tmp_path,
        PYTHONPATH='',
    )
    # 16 images are two iterations of 8.
    assert 'Epoch(train) [1][2/2]' in output
    assert 'features (128,)' in output


def test_mim_starts_training_without_options_that_are_not_there():
    # It looks for this word in the help, and adds --device where it finds it.
    help_text = call('tools/train.py', '-h').stdout
    assert '--gpus' not in help_text
    # What its launchers pass.
    assert '--launcher' in help_text


def test_everything_that_is_installed_is_pinned():
    """One version of each, inside the range that is stated."""
    files = {
        path.stem: [
            Requirement(line)
            for line in path.read_text().splitlines()
            if line and not line.startswith('#')
        ]
        for path in (ROOT / 'requirements').glob('*.txt')
    }
    pins = {r.name: r for r in files.pop('constraints')}
    for requirement in sum(files.values(), []):
        (pin,) = pins[requirement.name].specifier
        assert pin.operator == '=='
        assert requirement.specifier.contains(pin.version), requirement
    installed = metadata.version('torch').partition('+')[0]
    assert Version(installed) in next(
        r.specifier for r in files['build'] if r.name == 'torch'
    )
