# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Each patch of the stack is needed: these fail when one no longer is."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import load_from_local
from mmpretrain import FeatureExtractor
from mmpretrain.models.utils import res_layer_extra_norm

from mmscfs import patches
from mmscfs.hub import find_config
from mmscfs.registry import INITIALIZERS

ROOT = Path(__file__).parents[1]
RELEASE = 'mmscfs::scfs/scfs_r50_release.py'
HEAVY = ('matplotlib', 'mmdet', 'pandas', 'scipy', 'sklearn', 'torchvision')
# Prints which of these a fresh process has, and from where a registry takes
# what configs name.
LOADED = """
import sys
import mmscfs
print(*(name for name in sys.argv[1].split() if name in sys.modules))
from mmpretrain import registry
for word in sys.argv[2:]:
    kind, name = word.split('.')
    print(getattr(registry, kind).get(name).__module__.split('.')[0])
"""
NAMES = (
    'MODELS.SCFS',
    'DATASETS.ImageFiles',
    'DATA_SAMPLERS.KeyedSampler',
    'TRANSFORMS.MultiCrop',
    'HOOKS.SafeCheckpointHook',
    'LOOPS.KNNLoop',
    'OPTIM_WRAPPERS.PerParamClipOptimWrapper',
    'OPTIM_WRAPPER_CONSTRUCTORS.DecayGroupConstructor',
    'VISBACKENDS.SafeLocalVisBackend',
)


def test_mmengine_does_not_know_our_configs():
    with pytest.raises(AssertionError, match='mmscfs'):
        patches._mmengines_path(RELEASE, 'child.py')
    found = Config._get_cfg_path(RELEASE, 'child.py')
    assert found == (find_config(RELEASE), None)


def test_mmengines_loader_keeps_the_text_that_mmengine_executes(tmp_path):
    path = str(tmp_path / 'old.pth')
    torch.save(dict(state_dict={}, meta=dict(config='x = 1', epoch=3)), path)
    assert load_from_local(path, 'cpu')['meta']['config'] == 'x = 1'
    for _ in range(2):
        found = CheckpointLoader.load_checkpoint(path)
        assert found == dict(state_dict={}, meta=dict(epoch=3))
        patches.install()


def test_a_runner_prints_nothing_when_it_loads(tmp_path, capsys, caplog):
    """It asks with logger=None, for which mmengine prints."""
    path = str(tmp_path / 'any.pth')
    torch.save(dict(state_dict={}), path)
    patches._mmengines_load(path, logger=None)
    line = f'Loads checkpoint by local backend from path: {path}'
    assert line in capsys.readouterr().out
    CheckpointLoader.load_checkpoint(path, logger=None)
    assert line not in capsys.readouterr().out


def test_mmpretrains_models_import_mmdet():
    """Which is why ours wait until a registry is asked for them."""
    assert res_layer_extra_norm.ResLayer.__module__.startswith('mmdet.')


def test_importing_is_quick_and_registers_all_the_same():
    done = subprocess.run(
        [sys.executable, '-c', LOADED, ' '.join(HEAVY), *NAMES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded, *found = done.stdout.splitlines()
    assert loaded == ''
    assert found == ['mmscfs'] * len(NAMES)


def test_the_list_of_locations_is_complete():
    """Every registry that a package of ours writes to."""
    for module, names in patches.LOCATIONS.items():
        folder = ROOT.joinpath(*module.split('.'))
        text = ''.join(path.read_text() for path in folder.rglob('*.py'))
        for name in dir(patches.registry):
            # mmengine's, which mmscfs.engine imports where it is used.
            if name != 'MODEL_WRAPPERS' and f'@{name}.register_' in text:
                assert name in names, f'{module} registers {name}'


def test_a_pretraining_config_tells_mmpretrain_no_images():
    """Those that mmpretrain reads by name itself."""
    path = find_config(
        'mmscfs::dino/dino_resnet18-w16_1xb64-mcrop-coslr-14e_digits'
    )
    with pytest.raises(AttributeError, match='test_dataloader'):
        FeatureExtractor(Config.fromfile(path))


def test_mmengine_finds_the_scope_without_a_warning(monkeypatch):
    said = []
    monkeypatch.setattr(
        'mmengine.logging.print_log', lambda text, **_: said.append(text)
    )
    with WEIGHT_INITIALIZERS.switch_scope_and_registry('mmscfs') as found:
        assert found is INITIALIZERS
    assert said == []
