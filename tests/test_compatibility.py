# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmscfs import compatibility

# The stack that the project is tested on.
TESTED = {
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmpretrain': '1.2.0',
    'mmdet': '3.3.0',
}
ONEDL = {
    'mmengine': '0.10.12',
    'mmcv': '2.3.6',
    'mmpretrain': '1.3.6',
    'mmdet': '3.5.1',
}
OUTSIDE = [
    ('mmengine', '0.9.1'),
    ('mmengine', '0.10.6'),
    ('mmengine', '0.11.0'),
    ('mmengine', '1.0.0'),
    ('mmcv', '1.7.2'),
    ('mmcv', '2.0.1'),
    ('mmcv', '2.4.0'),
    ('mmcv', '2.10.0'),  # as numbers: after 2.4
    ('mmpretrain', '1.1.1'),
    ('mmpretrain', '1.2.0rc0'),
    ('mmpretrain', '1.4.0'),
    ('mmdet', '2.28.2'),
    ('mmdet', '3.2.0'),
    ('mmdet', '3.6.0'),
]


INSTALL = {
    package: f'{package}=={version}' for package, version in TESTED.items()
}
INSTALL['mmcv'] = 'mmcv-lite==2.1.0'

# Imports mmscfs where mmengine is not installed.
WITHOUT_MMENGINE = """
import sys

class NotInstalled:
    def find_spec(self, name, *_):
        if name == 'mmengine':
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, NotInstalled())
import mmscfs
"""


def assert_one_sentence(text):
    assert text.startswith('mmscfs needs ')
    assert text.endswith('.')
    assert '\n' not in text
    assert '. ' not in text


@pytest.mark.parametrize('versions', [TESTED, ONEDL])
@pytest.mark.parametrize('package', TESTED)
def test_supported_versions_pass(package, versions):
    compatibility.check_version(package, versions[package])


@pytest.mark.parametrize(
    ('package', 'version'),
    [
        ('mmengine', '0.10.99'),
        ('mmcv', '2.1.1'),
        ('mmcv', '2.3.99'),
        ('mmpretrain', '1.3.99'),
        ('mmdet', '3.5.99'),
    ],
)
def test_versions_inside_the_range_pass(package, version):
    compatibility.check_version(package, version)


@pytest.mark.parametrize(('package', 'version'), OUTSIDE)
def test_versions_outside_the_range_are_refused(package, version):
    with pytest.raises(ImportError) as error:
        compatibility.check_version(package, version)
    text = str(error.value)
    assert_one_sentence(text)
    assert f'found {version}:' in text
    assert f'pip install {INSTALL[package]}`.' in text


@pytest.mark.parametrize('package', TESTED)
def test_missing_package_names_what_to_install(monkeypatch, package):
    def missing(name):
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    monkeypatch.setattr(compatibility, 'import_module', missing)
    with pytest.raises(ImportError) as error:
        compatibility.check_package(package)
    text = str(error.value)
    assert_one_sentence(text)
    assert f'pip install {INSTALL[package]}`.' in text


def test_mmcv_is_removed_before_mmcv_lite_takes_its_files():
    with pytest.raises(ImportError) as error:
        compatibility.check_version('mmcv', '2.4.0')
    assert str(error.value).endswith(
        'run `pip uninstall -y mmcv && pip install mmcv-lite==2.1.0`.'
    )


@pytest.mark.parametrize(
    ('installed', 'requirement'),
    [('mmcv-lite', 'mmcv==2.1.0'), ('onedl-mmcv', 'onedl-mmcv==2.3.6')],
)
def test_mmcv_is_compiled_from_the_stack_in_use(
    monkeypatch, installed, requirement
):
    monkeypatch.setattr(
        compatibility,
        'packages_distributions',
        lambda: {'mmcv': [installed]},
    )
    command = compatibility.compile_mmcv('pip')
    assert ' && pip uninstall -y mmcv-lite && ' in command
    words = command.split()
    assert words[-1] == requirement
    assert {'MMCV_WITH_OPS=1', '--no-cache-dir'} <= {*words}


def test_missing_dependency_of_a_package_keeps_its_own_error(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'cv2'", name='cv2')

    monkeypatch.setattr(compatibility, 'import_module', broken)
    with pytest.raises(ModuleNotFoundError, match='cv2'):
        compatibility.check_package('mmcv')


@pytest.mark.parametrize(('package', 'version'), OUTSIDE)
def test_installed_version_is_checked(monkeypatch, package, version):
    monkeypatch.setattr(
        compatibility,
        'import_module',
        lambda name: SimpleNamespace(__version__=version),
    )
    with pytest.raises(ImportError, match=f'needs {package} .* {version}'):
        compatibility.check_package(package)


def test_the_stack_is_all_but_the_detector(monkeypatch):
    asked = []

    def installed(name):
        asked.append(name)
        return SimpleNamespace(__version__=TESTED[name])

    monkeypatch.setattr(compatibility, 'import_module', installed)
    compatibility.check_stack()
    assert sorted(asked) == ['mmcv', 'mmengine', 'mmpretrain']


def test_this_environment_passes():
    compatibility.check_stack()


def test_import_without_mmengine_says_what_to_install():
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_MMENGINE],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert 'pip install mmengine==0.10.7' in done.stderr
