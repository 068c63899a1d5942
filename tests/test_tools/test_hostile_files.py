# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Every tool that takes a file, with files that would run code."""

import json
import os
import subprocess

import numpy as np
import pytest
import torch
from commands import ROOT, call, load_tool, refusal
from digit_runs import DETECT, KNN
from hostile_checkpoints import TRAPS, Trap
from mmengine.config import Config
from mmengine.registry import MODELS

from mmscfs.engine.loops.feature_files import FACTS, LABELS, read_features
from mmscfs.results import read_origin

EXPORT = 'tools/model_converters/export_backbone.py'


@pytest.fixture
def hostile(tmp_path):
    """A checkpoint that would make the folder ``marker``."""
    path = tmp_path / 'hostile.pth'
    path.write_bytes(TRAPS['meta.pth'](tmp_path / 'marker'))
    yield path
    assert not (tmp_path / 'marker').exists()


@pytest.mark.parametrize(
    'options',
    [
        ['--pretrained', '{path}'],
        ['--resume', '{path}'],
        ['--cfg-options', 'load_from={path}'],
        ['--cfg-options', 'model.backbone.init_cfg.checkpoint={path}'],
    ],
    ids=' '.join,
)
def test_training_refuses(options, hostile, tiny_run, tmp_path):
    tiny_run.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='')
    if 'init_cfg' not in options[-1]:
        del tiny_run.model.backbone.init_cfg
    tiny_run.dump(tmp_path / 'config.py')
    words = [option.format(path=hostile) for option in options]
    try:
        error = refusal('tools/train.py', tmp_path / 'config.py', *words)
    except ValueError as raised:  # by the model that the runner built
        error = str(raised)
    assert 'refused' in error
    assert 'hostile.pth' in error


@pytest.mark.parametrize(
    'words',
    [[KNN, '--pretrained', '{path}'], [KNN, '{path}'], [DETECT, '{path}']],
    ids=['backbone', 'bare backbone', 'detector'],
)
def test_testing_refuses(words, hostile, tmp_path):
    words = [word.format(path=hostile) for word in words]
    error = refusal('tools/test.py', *words, f'--work-dir={tmp_path}/work')
    assert 'refused' in error
    assert 'hostile.pth' in error


@pytest.mark.parametrize('scope', ['mmengine', 'mmscfs'])
def test_detectors_of_mmdet_refuse(hostile, scope):
    """That name a checkpoint in their config, with no tool of ours."""
    cfg = Config.fromfile(ROOT / DETECT).model
    cfg.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(hostile), _scope_=scope
    )
    cfg._scope_ = 'mmdet'
    with pytest.raises(ValueError, match=r'refused.*hostile\.pth'):
        MODELS.build(cfg).init_weights()


@pytest.mark.parametrize('name', ['zip.pth', 'old.pth', 'pickle.pkl'])
def test_exporting_refuses(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(TRAPS[name](tmp_path / 'marker'))
    assert name in refusal(EXPORT, path, tmp_path / 'out.pth')
    assert {p.name for p in tmp_path.iterdir()} == {name}


def test_tables_look_into_no_pickle(hostile):
    """A checkpoint that they cannot read goes by its file."""
    origin = read_origin(str(hostile))
    assert origin.method is None
    assert origin.label.endswith(f'/{hostile.name}')


def test_tables_run_no_config(tmp_path):
    log = tmp_path / 'run' / '20260101_000000' / 'vis_data'
    log.mkdir(parents=True)
    (log / 'config.py').write_text(
        f'import os\nos.mkdir({str(tmp_path / "marker")!r})\nmodel = dict()\n'
    )
    (log / 'scalars.json').write_text('{"step": 1}\n')
    tool = 'tools/analysis_tools/compare_transfer.py'
    done = call(tool, tmp_path / 'run', cwd=tmp_path)
    assert str(tmp_path / 'run') in done.output
    assert not (tmp_path / 'marker').exists()


def test_deep_json_is_refused_by_name(tmp_path):
    report = tmp_path / 'deep.json'
    report.write_text('{"format": "mmscfs-result-1", "a": ' + '[' * 10**5)
    with pytest.raises(ValueError, match='deep.json is damaged'):
        load_tool('plan').Plan(report, {}, [], None)
    error = refusal('tools/analysis_tools/results_table.py', report)
    assert 'deep.json' in error


@pytest.mark.parametrize('name', [LABELS, 'last.npy'])
def test_features_are_arrays_alone(tmp_path, name):
    facts = dict(outputs=['last'], layers=['last'])
    (tmp_path / FACTS).write_text(json.dumps(facts))
    for file in (LABELS, 'last.npy'):
        np.save(tmp_path / file, np.zeros(2))
    content = np.array([Trap(tmp_path / 'marker')], dtype=object)
    np.save(tmp_path / name, content, allow_pickle=True)
    message = f'features: {str(tmp_path)!r}.*([Pp]ickle|Python objects)'
    with pytest.raises(ValueError, match=message):
        read_features(tmp_path, {}, 'last')
    assert not (tmp_path / 'marker').exists()


def test_no_word_of_the_user_reaches_a_shell(tmp_path):
    """Names with spaces, quotes and commands arrive as they are."""
    names = ['a b', "it's", '"q"', '$(touch x)', '`touch x`', ';touch x', '*']
    bin_folder = tmp_path / 'bin'
    bin_folder.mkdir()
    for command in ('srun', 'sbatch', 'python'):
        script = bin_folder / command
        script.write_text('#!/bin/sh\nfor w; do echo "word:$w"; done\n')
        script.chmod(0o755)
    environment = {
        **os.environ,
        'PATH': f'{bin_folder}:{os.environ["PATH"]}',
        'PYTHON': str(bin_folder / 'python'),
    }
    environment.pop('SRUN_ARGS', None)
    work = tmp_path / 'work'
    work.mkdir()
    (work / 'my $(touch x).py').touch()
    for script, first in (
        ('slurm_train.sh', ['gpu $(touch x)', 'job;touch x']),
        ('dist_train.sh', []),
        ('dist_test.sh', []),
    ):
        words = [*first, 'my $(touch x).py', '2', *names]
        process = subprocess.run(
            ['bash', ROOT / 'tools' / script, *words],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        given = [line[5:] for line in process.stdout.splitlines()]
        assert [word for word in given if word in names][-6:] == names[-6:]
        assert any('my $(touch x).py' in word for word in given)
    assert [*work.iterdir()] == [work / 'my $(touch x).py']


def test_good_checkpoints_pass(tmp_path):
    """The tests above are not of tools that refuse all."""
    state = {'conv1.weight': torch.ones(2, 3, 3, 3)}
    torch.save(state, tmp_path / 'good.pth')
    done = call(EXPORT, tmp_path / 'good.pth', tmp_path / 'out.pth')
    assert done.returncode == 0, done.output
