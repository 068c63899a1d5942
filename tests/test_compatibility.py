# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import sys
from types import SimpleNamespace

import pytest
from commands import run

from mmscfs import compatibility

# By package: what is tested, what passes, and what is refused.
VERSIONS = {
    'mmengine': (
        '0.10.7',
        ('0.10.12', '0.10.99'),
        ('0.9.1', '0.10.6', '0.11.0', '1.0.0'),
    ),
    'mmcv': (
        '2.1.0',
        ('2.3.6', '2.1.1', '2.3.99'),
        ('1.7.2', '2.0.1', '2.4.0', '2.10.0'),  # as numbers: after 2.4
    ),
    'mmpretrain': (
        '1.2.0',
        ('1.3.6', '1.3.99'),
        ('1.1.1', '1.2.0rc0', '1.4.0'),
    ),
    'mmdet': (
        '3.3.0',
        ('3.5.1', '3.5.99'),
        ('2.28.2', '3.2.0', '3.6.0'),
    ),
}
TESTED = {package: tested for package, (tested, *_) in VERSIONS.items()}
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


def check_sentence(text, package):
    """It is one sentence, and ends with what to install."""
    name = 'mmcv-lite' if package == 'mmcv' else package
    assert text.startswith('mmscfs needs ')
    assert text.endswith(f'pip install {name}=={TESTED[package]}`.')
    assert '\n' not in text
    assert '. ' not in text


@pytest.mark.parametrize('package', VERSIONS)
def test_versions_are_checked(package, monkeypatch):
    tested, passing, refused = VERSIONS[package]
    for version in (tested, *passing):
        compatibility.check_version(package, version)
    for version in refused:
        monkeypatch.setattr(
            compatibility,
            'import_module',
            lambda name, version=version: SimpleNamespace(__version__=version),
        )
        with pytest.raises(ImportError) as error:
            compatibility.check_package(package)
        check_sentence(str(error.value), package)
        assert f'found {version}:' in str(error.value)


@pytest.mark.parametrize('package', VERSIONS)
def test_missing_package_names_what_to_install(monkeypatch, package):
    def missing(name):
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    monkeypatch.setattr(compatibility, 'import_module', missing)
    with pytest.raises(ImportError) as error:
        compatibility.check_package(package)
    check_sentence(str(error.value), package)


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
        compatibility, 'packages_distributions', lambda: {'mmcv': [installed]}
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


def test_the_stack_is_all_but_the_detector(monkeypatch):
    compatibility.check_stack()  # this environment's
    asked = []

    def installed(name):
        asked.append(name)
        return SimpleNamespace(__version__=TESTED[name])

    monkeypatch.setattr(compatibility, 'import_module', installed)
    compatibility.check_stack()
    assert sorted(asked) == ['mmcv', 'mmengine', 'mmpretrain']


def test_import_without_mmengine_says_what_to_install():
    done = run(sys.executable, '-c', WITHOUT_MMENGINE)
    assert done.returncode == 1
    assert 'pip install mmengine==0.10.7' in done.stderr
