# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/doctor.py, on machines made up here."""

import importlib
import json
import shutil
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import ROOT
from mmengine.config import Config
from mmpretrain.models.selfsup.base import BaseSelfSupervisor

from mmscfs import recipes

GIB = 2**30
NAMES = ('doctor', 'doctor_environment', 'doctor_config')
distributions = cache(metadata.packages_distributions)


@pytest.fixture
def tool(monkeypatch):
    """The modules of the command by their last word."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    monkeypatch.chdir(ROOT)
    # Which asks every package for its files.
    monkeypatch.setattr(metadata, 'packages_distributions', distributions)
    modules = {n.split('_')[-1]: importlib.import_module(n) for n in NAMES}
    return SimpleNamespace(**modules)


@pytest.fixture
def breaking(tool, monkeypatch):
    """Make packages missing (None) or broken (an error)."""

    def breaking(**problems):
        def load(name):
            if name.split('.')[0] not in problems:
                return real(name)
            error = problems[name.split('.')[0]]
            raise error or ModuleNotFoundError(name=name)

        real = tool.environment.import_module
        monkeypatch.setattr(tool.environment, 'import_module', load)

    return breaking


def find(tool, checks):
    """Run checks; return what they find by name."""
    return {found.name: found for found in tool.environment.examine(checks)}


def find_one(tool, test):
    """Run a check; return what it finds, or nothing."""
    return [*tool.environment.examine([('name', test, 'the remedy')])]


def requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return {line for line in lines if line and not line.startswith('#')}


def test_this_environment_is_whole(tool):
    environment = tool.environment
    assert {*environment.BUILD} <= requirements('build')
    assert {*environment.TESTED} <= requirements('constraints')
    found = find(tool, environment.package_checks())
    assert {'torch', 'rich', "mmcv's operators", 'mmdet', 'mmscfs'} <= {*found}
    assert not [f for f in found.values() if f.state == 'missing']
    found = find(tool, environment.machine_checks())
    assert found['sys.platform'].value == sys.platform
    assert {'CUDA available', 'GCC', 'cores', 'memory'} <= {*found}


def test_without_torch_and_mmcv(tool, breaking, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tool.doctor, 'machine_checks', list)
    broken = ImportError("mmcv has no 'ops'")
    breaking(torch=None, torchvision=None, mmcv=broken, mmscfs=broken)
    path = tmp_path / 'report.json'
    assert tool.doctor.main(['--json', str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    place = lines.index('missing: torch: not installed')
    assert lines[place + 1].endswith(
        ' -m pip install --force-reinstall torch==2.14.1 torchvision==0.29.1'
    )
    place = lines.index(f'missing: mmcv: broken: ImportError: {broken}')
    assert lines[place + 1].endswith(' -m pip install mmcv-lite==2.1.0')
    assert any(line.endswith(f'make -C {ROOT} install') for line in lines)
    sections = json.loads(path.read_text())
    states = {f['name']: f['state'] for f in sections['packages']}
    assert states['torch'] == states['mmcv'] == 'missing'
    assert states['numpy'] == 'ok'


@pytest.mark.parametrize(
    ('name', 'version', 'wanted', 'remedy'),
    [
        ('mmdet', '3.6.0', '>=3.3.0,<3.6.0', ' pip install mmdet==3.3.0'),
        # Removed first: its successor has another name.
        ('mmcv', '2.0.1', '>=2.1.0', ' -m pip uninstall -y mmcv && '),
        ('torch', '2.5.1+cu124', '>=2.6', ' torchvision==0.29.1'),
        ('torch', '2.10.0', '', ''),  # a later one
    ],
)
def test_a_stack_out_of_range(
    tool, monkeypatch, name, version, wanted, remedy
):
    monkeypatch.setattr(f'{name}.__version__', version)
    found = find(tool, tool.environment.package_checks())
    text = f'{version}: mmscfs needs {wanted}' if wanted else version
    assert found[name].value.startswith(text)
    assert remedy in found[name].remedy
    states = [found[n].state for n in ('torch', 'mmcv', 'mmdet') if n != name]
    assert states == ['ok', 'ok']
    assert found[name].state == ('missing' if wanted else 'ok')


def test_the_operators_in_use(tool, breaking, monkeypatch):
    environment = tool.environment
    text = "torchvision's: NMS, RoIAlign and focal loss"
    spec = None
    monkeypatch.setattr(environment.util, 'find_spec', lambda _: spec)
    (found,) = find_one(tool, environment.operators)
    assert (found.value, found.state) == (text, 'ok')
    spec, cuda = 'there', '12.8'
    ops = SimpleNamespace(get_compiling_cuda_version=lambda: cuda)
    monkeypatch.setattr(environment, 'load', lambda _: ops)
    monkeypatch.setattr(environment, 'has_cuda', lambda: True)
    (found,) = find_one(tool, environment.operators)
    assert (found.value, found.state) == ('compiled, CUDA 12.8', 'ok')
    cuda = 'not available'
    stack = SimpleNamespace(compile_mmcv=lambda _: 'compile it')
    monkeypatch.setattr(environment, 'compatibility', lambda: stack)
    (found,) = find_one(tool, environment.operators)
    assert found.state == 'missing'
    assert found.remedy == 'export FORCE_CUDA=1; compile it'


def test_a_module_that_fails_to_load(tool, tmp_path, monkeypatch):
    (tmp_path / 'damaged_one.py').write_text('import not_there')
    (tmp_path / 'damaged_two.py').write_text('raise OSError("a\\nb")')
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, problem in (
        ('not_there', 'not installed'),
        ('damaged_one', 'broken: it needs not_there'),
        ('damaged_two', 'broken: OSError: a b'),
    ):
        with pytest.raises(tool.environment.Problem) as caught:
            tool.environment.load(name)
        assert caught.value.args == (problem,)


def test_shared_memory_of_a_container(tool, tmp_path, monkeypatch):
    usage = SimpleNamespace(total=64 * 2**20)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
    environment = tool.environment
    # 8 workers, 2 batches of 32 images: 2 views of 3 * 224 * 224 bytes and 8
    # of 3 * 96 * 96 each make 268 MB; docker gives 64.
    assert environment.SHARED == 512 * (2 * 150_528 + 8 * 27_648)
    for total, folder, states in (
        (64 * 2**20, tmp_path, ['missing']),
        (environment.SHARED, tmp_path, ['ok']),
        (0, tmp_path / 'none', []),
    ):
        usage.total = total
        found = find_one(tool, lambda: environment.shared_memory(folder))  # noqa: B023
        assert [finding.state for finding in found] == states


def test_a_gpu_that_torch_does_not_see(tool, monkeypatch):
    version = SimpleNamespace(cuda=None)
    torch = SimpleNamespace(__version__='2.11.0+cpu', version=version)
    done = subprocess.CompletedProcess([], 0, 'A100, 570.1\nA100, 570.1\n')
    monkeypatch.setattr(tool.environment, 'load', lambda _: torch)
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: done)
    for sees_it, states in ((True, []), (False, ['note'])):
        monkeypatch.setattr(tool.environment, 'has_cuda', lambda: sees_it)  # noqa: B023
        found = find_one(tool, tool.environment.unused_gpu)
        assert [finding.state for finding in found] == states
    assert found[0].value.startswith('A100, 570.1: torch 2.11.0+cpu does not')


@pytest.mark.parametrize(
    ('free', 'batch', 'state', 'text', 'remedy'),
    [
        # 0.85 * 20 = 17 GiB: 16 beside what is fixed, two images in each.
        (20, 32, 'ok', 'a step of 32 takes 17.0 GiB of 20.0 GiB', ''),
        (20, 33, 'note', 'up to 32', 'train_dataloader.batch_size=32'),
        (1, 32, 'note', 'up to 0', 'model.checkpoint_activations=True'),
    ],
)
def test_what_fits(
    tool, config, monkeypatch, free, batch, state, text, remedy
):
    module = tool.config
    monkeypatch.setattr(module, 'free_memory', lambda: free * GIB)
    moments = torch.zeros(1), torch.tensor([GIB / 2])
    memory = recipes.StepMemory(GIB, *moments)
    monkeypatch.setattr(recipes.memory, 'step_memory', lambda *_: memory)
    cfg = Config.fromfile(config)
    cfg.train_dataloader.batch_size = batch
    kind = type('Any', (BaseSelfSupervisor,), dict(loss=None))
    model = kind.__new__(kind)
    (found,) = find_one(tool, lambda: module.estimate(cfg, model))
    assert found.state == state
    assert text in found.value
    assert remedy in found.remedy


@pytest.fixture
def config(tiny_run, tmp_path):
    """A file of the shrunken recipe."""
    path = tmp_path / 'tiny.py'
    tiny_run.dump(path)
    return path


def test_a_config_that_runs(tool, config, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Of this machine, which may be a container with little.
    monkeypatch.setattr(tool.doctor, 'machine_checks', list)
    assert tool.doctor.main([str(config), '--json', 'report.json']) == 0
    assert capsys.readouterr().out.endswith('All that is needed is there.\n')
    findings = json.loads(Path('report.json').read_text())['config']
    found = {finding['name']: finding['value'] for finding in findings}
    assert found['data'] == '16 images to train'
    assert found['model'].startswith('SCFS, ')
    assert 'the config has 4 (' in found['batch size']
    assert not (tmp_path / 'work').exists()  # nothing was trained


def test_settings_that_are_known_to_fail(tool, config):
    args = tool.doctor.parse_args([str(config)])
    args.cfg_options = {'model.neck.num_prototypes': 17}
    found = [
        finding
        for finding in tool.environment.examine(
            tool.config.config_checks(args)
        )
        if finding.name == 'settings'
    ]
    assert {finding.state for finding in found} == {'note'}
    assert found[0].value.startswith('17 prototypes for 16 images: ')
    assert found[0].remedy == '--cfg-options model.neck.num_prototypes=16'


@pytest.mark.parametrize(
    ('settings', 'problem'),
    [
        (
            ['train_dataloader.dataset.data_prefix=none'],
            'data: FileNotFoundError: ImageFiles: no fold',
        ),
        (
            ['train_dataloader.batch_size=17', 'train_dataloader.drop_last=1'],
            'data: ValueError: train_dataloader.batch_size=17: the data set '
            'has only 16 images',
        ),
        (['model.backbone.depth=7'], 'model: KeyError: '),
        (['train_dataloader.dataset.pipeline.9.a=1'], 'config: ValueError: '),
    ],
)
def test_a_config_that_does_not(
    tool, config, capsys, monkeypatch, settings, problem
):
    for name in ('machine_checks', 'package_checks'):
        monkeypatch.setattr(tool.doctor, name, list)
    words = [str(config), '--cfg-options', *settings]
    assert tool.doctor.main(words) == 1
    assert f'missing: {problem}' in capsys.readouterr().out


def test_what_cannot_be_read_or_written(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool.doctor, 'machine_checks', list)
    monkeypatch.setattr(tool.doctor, 'package_checks', list)
    assert tool.doctor.main(['--json', 'none/report.json']) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: --json none/report.json: ')


def test_settings_without_a_config(tool, capsys):
    with pytest.raises(SystemExit) as end:
        tool.doctor.main(['--cfg-options', 'a=1'])
    assert end.value.code == 2
    assert 'name it first' in capsys.readouterr().err
