# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/doctor.py, on machines made up here."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import ROOT
from mmengine.config import Config

GIB = 2**30
NAMES = ('doctor', 'doctor_environment', 'doctor_config')


@pytest.fixture
def tool(monkeypatch):
    """The modules of the command by their last word."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    monkeypatch.chdir(ROOT)
    modules = {n.split('_')[-1]: importlib.import_module(n) for n in NAMES}
    return SimpleNamespace(**modules)


@pytest.fixture
def without(tool, monkeypatch):
    """Make packages missing ("") or broken (an error's text)."""

    def without(**problems):
        def load(name):
            top = name.split('.')[0]
            if top not in problems:
                return real(name)
            error = problems[top]
            return None, f'broken: {error}' if error else 'not installed'

        real = tool.environment.load
        for module in (tool.environment, tool.config):
            monkeypatch.setattr(module, 'load', load)

    return without


def by_name(findings):
    return {finding.name: finding for finding in findings}


def requirements(name):
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return {line for line in lines if line and not line.startswith('#')}


def test_packages_are_those_of_the_requirements(tool):
    lowest = {f'{n}>={v}' for n, v in tool.environment.LOWEST.items()}
    assert lowest <= requirements('build')
    assert {*tool.environment.TESTED} <= requirements('constraints')
    names = {re.split('[<>=]', line)[0] for line in requirements('runtime')}
    needed = {*tool.environment.RUNTIME.values()}
    assert names <= needed
    assert needed - names == {'setuptools<80.9'}


def test_this_environment_is_whole(tool):
    found = by_name(tool.environment.check_packages())
    assert {'torch', 'mmcv', "mmcv's operators", 'mmdet', 'mmscfs'} <= {*found}
    assert not [f for f in found.values() if f.state == 'missing']
    found = by_name(tool.environment.check_machine())
    assert found['sys.platform'].value == sys.platform
    assert {'CUDA available', 'GCC', 'cores', 'memory'} <= {*found}


def test_without_torch_and_mmcv(tool, without, capsys, tmp_path):
    reason = "ImportError: mmcv has no 'ops'"
    without(torch='', torchvision='', mmcv=reason, mmscfs='it needs torch')
    path = tmp_path / 'report.json'
    assert tool.doctor.main(['--json', str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    place = lines.index('missing: torch: not installed')
    assert lines[place + 1].endswith(
        ' -m pip install torch==2.14.1 torchvision==0.29.1'
    )
    place = lines.index(f'missing: mmcv: broken: {reason}')
    assert lines[place + 1].endswith(' -m pip install mmcv-lite==2.1.0')
    assert any(line.endswith(f'make -C {ROOT} install') for line in lines)
    sections = json.loads(path.read_text())
    states = {f['name']: f['state'] for f in sections['packages']}
    assert states['torch'] == states['mmcv'] == 'missing'
    assert states['numpy'] == 'ok'


@pytest.mark.parametrize(
    ('name', 'version', 'wanted', 'remedy'),
    [
        ('mmdet', '3.6.0', '>= 3.3.0, < 3.6.0', ' pip install mmdet==3.3.0'),
        # Removed first: its successor has another name.
        ('mmcv', '2.0.1', '>= 2.1.0', ' -m pip uninstall -y mmcv && '),
        ('mmcv', '2.0.1', '>= 2.1.0', ' -m pip install mmcv-lite==2.1.0'),
        ('torch', '2.5.1+cu124', '>= 2.6', ' torchvision==0.29.1'),
    ],
)
def test_a_stack_out_of_range(
    tool, monkeypatch, name, version, wanted, remedy
):
    monkeypatch.setattr(f'{name}.__version__', version)
    environment = tool.environment
    checks = (environment.check_torch, environment.check_openmmlab)
    found = by_name(finding for check in checks for finding in check())
    assert found[name].state == 'missing'
    assert f'{version}: mmscfs needs {wanted}' in found[name].value
    assert remedy in found[name].remedy
    others = {'torch', 'mmcv', 'mmdet'} - {name}
    assert all(found[other].state == 'ok' for other in others)


def test_a_later_torch_is_not_too_old(tool, monkeypatch):
    monkeypatch.setattr('torch.__version__', '2.10.0')
    found = by_name(tool.environment.check_torch())
    assert found['torch'].state == 'ok'


def mmcv_ops(tool, monkeypatch, spec, ops, has_gpu=False):
    """What doctor says of an extension, where it is and what it holds."""

    def load(name):
        if name == 'mmcv.ops':
            return ops, '' if ops else 'broken: undefined symbol'
        return SimpleNamespace(
            cuda=SimpleNamespace(is_available=lambda: has_gpu)
        ), ''

    monkeypatch.setattr(tool.environment.importlib.util, 'find_spec', spec)
    monkeypatch.setattr(tool.environment, 'load', load)
    return tool.environment.check_operators()


def test_the_operators_in_use(tool, monkeypatch):
    text = "torchvision's: NMS, RoIAlign and focal loss"
    stack = tool.environment.compatibility()
    monkeypatch.setattr(tool.environment, 'compatibility', lambda: stack)
    ops = SimpleNamespace(get_compiling_cuda_version=lambda: '12.8')
    found = mmcv_ops(tool, monkeypatch, lambda _: None, None)
    assert (found.value, found.state) == (text, 'ok')
    found = mmcv_ops(tool, monkeypatch, lambda _: 'there', ops)
    assert (found.value, found.state) == ('compiled, CUDA 12.8', 'ok')
    found = mmcv_ops(tool, monkeypatch, lambda _: 'there', None)
    assert found.state == 'missing'
    assert 'MMCV_WITH_OPS=1 ' in found.remedy
    ops.get_compiling_cuda_version = lambda: 'not available'
    found = mmcv_ops(tool, monkeypatch, lambda _: 'there', ops, True)
    assert found.state == 'missing'
    assert found.remedy.startswith('export FORCE_CUDA=1; ')


def test_a_module_that_fails_to_load(tool, tmp_path, monkeypatch):
    (tmp_path / 'damaged_one.py').write_text('import not_there')
    (tmp_path / 'damaged_two.py').write_text('raise OSError("a\\nb")')
    monkeypatch.syspath_prepend(str(tmp_path))
    load = tool.environment.load
    assert load('not_there') == (None, 'not installed')
    assert load('damaged_one') == (None, 'broken: it needs not_there')
    assert load('damaged_two') == (None, 'broken: OSError: a b')


def test_shared_memory_of_a_container(tool, tmp_path, monkeypatch):
    usage = SimpleNamespace(total=64 * 2**20)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage)
    check = tool.environment.check_shared_memory
    # 8 workers, 2 batches of 32 images: 2 views of 3 * 224 * 224 bytes and 8
    # of 3 * 96 * 96 each make 268 MB; docker gives 64.
    assert tool.environment.SHARED == 512 * (2 * 150_528 + 8 * 27_648)
    (found,) = check(str(tmp_path))
    assert found.state == 'missing'
    assert '--shm-size=8g' in found.remedy
    usage.total = tool.environment.SHARED
    (found,) = check(str(tmp_path))
    assert found.state == 'ok'
    assert not [*check(str(tmp_path / 'none'))]


@pytest.mark.parametrize(
    ('cuda', 'hidden', 'state', 'remedy'),
    [
        (None, None, 'missing', 'pip install --force-reinstall --no-deps'),
        ('13.0', None, 'missing', 'update the driver'),
        ('13.0', '', 'note', 'unset CUDA_VISIBLE_DEVICES'),
    ],
)
def test_a_gpu_that_torch_does_not_see(
    tool, monkeypatch, cuda, hidden, state, remedy
):
    torch = SimpleNamespace(
        __version__='2.11.0+cpu',
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(is_available=lambda: False),
    )
    monkeypatch.setattr(tool.environment, 'load', lambda _: (torch, ''))
    monkeypatch.setattr(tool.environment, 'find_gpu', lambda: 'A100')
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if hidden is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', hidden)
    (found,) = tool.environment.check_gpu()
    assert found.state == state
    assert 'A100' in found.value
    assert remedy in found.remedy


def test_what_fits(tool, monkeypatch):
    rule = tool.config.Memory(1 * GIB, 0.5 * GIB)
    monkeypatch.setattr(tool.config, 'free_memory', lambda: 20 * GIB)
    # 0.85 * 20 = 17 GiB: 16 beside what is fixed, two images in each.
    found = tool.config.check_fit(rule, 'fp16', 32)
    assert found.state == 'ok'
    assert 'up to 32 images fit' in found.value
    found = tool.config.check_fit(rule, 'fp16', 33)
    assert found.state == 'note'
    assert 'train_dataloader.batch_size=32' in found.remedy
    monkeypatch.setattr(tool.config, 'free_memory', lambda: GIB)
    found = tool.config.check_fit(rule, 'fp16', 32)
    assert 'up to 0 images' in found.value
    assert 'model.checkpoint_activations=True' in found.remedy


@pytest.fixture
def config(tiny_run, tmp_path):
    """A file of the shrunken recipe."""
    path = tmp_path / 'tiny.py'
    tiny_run.dump(path)
    return path


def test_a_config_that_runs(tool, config, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Of this machine, which may be a container with little.
    monkeypatch.setattr(tool.doctor, 'check_machine', list)
    assert tool.doctor.main([str(config), '--json', 'report.json']) == 0
    assert capsys.readouterr().out.endswith('All that is needed is there.\n')
    findings = json.loads(Path('report.json').read_text())['config']
    found = {finding['name']: finding['value'] for finding in findings}
    assert found['data'] == '16 images to train'
    assert found['model'].startswith('SCFS, ')
    assert 'the config has 4 (' in found['batch size']
    assert not (tmp_path / 'work').exists()  # nothing was trained


@pytest.mark.parametrize(
    ('settings', 'problem'),
    [
        (['dataset.data_root=none'], 'FileNotFoundError: ImageFiles: no fold'),
        (
            ['batch_size=17', 'drop_last=True'],
            'ValueError: train_dataloader.batch_size=17: the data set has '
            'only 16 images',
        ),
    ],
)
def test_a_config_without_its_data(tool, config, capsys, settings, problem):
    options = [f'train_dataloader.{setting}' for setting in settings]
    assert tool.doctor.main([str(config), '--cfg-options', *options]) == 1
    assert f'missing: data: {problem}' in capsys.readouterr().out


def test_counted_memory(tool, config):
    from mmpretrain.registry import MODELS

    cfg = Config.fromfile(config)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model)
    rule = tool.config.count_memory(model, cfg, is_half=False)
    # Weights and buffers of both networks; the student's gradient and
    # momentum, all of it with the margin.
    student = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    both = sum(t.nbytes for t in model.state_dict().values())
    least = 1.2 * (both + 2 * student)
    assert least <= rule.fixed < 1.1 * least
    # An image of 2 + 2 views is kept at least as it enters the network.
    assert rule.image > 1.2 * 4 * 3 * 32 * 32 * 4
    cfg.optim_wrapper.optimizer.type = 'AdamW'
    larger = tool.config.count_memory(model, cfg, is_half=False)
    assert larger.fixed - rule.fixed == pytest.approx(1.2 * student, rel=0.01)
    assert larger.image == pytest.approx(rule.image, rel=0.01)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['none.py'], "no config file 'none.py'"),
        (['mmscfs::none.py'], "no config file 'mmscfs::none.py'"),
        (['--cfg-options', 'a=1'], 'name it first'),
        (['--json', 'none/report.json'], 'make it first'),
        (['configs/scfs_r50.py', '--cfg-options', 'a'], 'is not KEY=VALUE'),
    ],
)
def test_wrong_calls(tool, words, message, capsys):
    with pytest.raises(SystemExit) as end:
        tool.doctor.main(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    args = tool.doctor.parse_args(['mmscfs::scfs_r50.py'])
    assert Path(args.config) == ROOT / 'configs/scfs_r50.py'
