# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import os
import sys
from types import SimpleNamespace

import pytest
from commands import run

from mmscfs import compatibility

# By package: what passes, first what is tested, and what is refused.
VERSIONS = {
    'mmengine': ('0.10.7 0.10.12 0.10.99', '0.9.1 0.10.6 0.11.0 1.0.0'),
    # As numbers: 2.10 is after 2.4.
    'mmcv': ('2.1.0 2.1.1 2.3.6 2.3.99', '1.7.2 2.0.1 2.4.0 2.10.0'),
    'mmpretrain': ('1.2.0 1.3.6 1.3.99', '1.1.1 1.2.0rc0 1.4.0'),
    'mmdet': ('3.3.0 3.5.1 3.5.99', '2.28.2 3.2.0 3.6.0'),
}
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


@pytest.mark.parametrize('package', VERSIONS)
def test_versions_are_checked(package, monkeypatch):
    passing, refused = (words.split() for words in VERSIONS[package])
    module = SimpleNamespace()
    monkeypatch.setattr(compatibility, 'import_module', {package: module}.get)
    for module.__version__ in passing:
        compatibility.check_package(package)
    remedy = f'pip install {package}=={passing[0]}'
    if package == 'mmcv':  # the two share their files
        remedy = 'pip uninstall -y mmcv && pip install mmcv-lite==2.1.0'
    for version in refused:
        module.__version__ = version
        with pytest.raises(ImportError) as error:
            compatibility.check_package(package)
        text = str(error.value)
        assert text.startswith(f'mmscfs needs {package} >= {passing[0]}, < ')
        assert text.endswith(f' but found {version}: run `{remedy}`.')


@pytest.mark.parametrize('missing', ['mmcv', 'cv2'])
def test_a_package_that_is_missing(monkeypatch, missing):
    """That of a package which is here keeps its error."""

    def import_module(name):
        raise ModuleNotFoundError(f'No module named {missing}', name=missing)

    monkeypatch.setattr(compatibility, 'import_module', import_module)
    message = 'No module named cv2'
    if missing == 'mmcv':
        message = 'mmscfs needs mmcv: run `pip install mmcv-lite==2.1.0`.'
    with pytest.raises(ImportError, match=message):
        compatibility.check_package('mmcv')


def test_import_without_mmengine_says_what_to_install():
    done = run(sys.executable, '-c', WITHOUT_MMENGINE)
    assert done.returncode == 1
    assert 'run `pip install mmengine==0.10.7`.' in done.stderr


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


@pytest.mark.parametrize(
    ('environment', 'expected'),
    [
        (dict(HOME='{own}', USER='me'), {}),
        ({}, dict(HOME='/tmp/x', USER='54321')),
        (
            dict(HOME='/no/such', USER='me'),
            dict(MPLCONFIGDIR='/tmp/x/matplotlib-54321'),
        ),
    ],
)
def test_users_without_an_account_entry(
    environment, expected, tmp_path, monkeypatch
):
    """As in containers, where HOME is missing, or not one's own."""

    def missing(number):
        raise KeyError(f'uid not found: {number}')

    given = {k: v.format(own=tmp_path) for k, v in environment.items()}
    monkeypatch.setattr(os, 'environ', dict(given))
    monkeypatch.setattr(os, 'getuid', lambda: 54321)
    monkeypatch.setattr(os, 'access', lambda path, _: path != '/no/such')
    monkeypatch.setattr('tempfile.gettempdir', lambda: '/tmp/x')
    monkeypatch.setattr('pwd.getpwuid', missing)
    compatibility.provide_home()
    assert os.environ == given | expected
