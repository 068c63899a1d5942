# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import csv
import json
import shutil

import pytest
import torch
from commands import call, load_tool, refusal
from mmengine.runner import Runner

from mmscfs.evaluation import DSETerms, normalized_dse

TOOL = 'tools/score_checkpoints.py'
FEW = ('--number', '20', '--views', '3')
TERMS = dict(dse_inter='M_inter', dse_intra='M_intra', dse_dim='M_dim')
NAMES = dict(rankme='RankMe', alpha='alpha-ReQ', lidar='LiDAR', **TERMS)


@pytest.fixture
def run_folder(tiny_run, tmp_path):
    """A run of two epochs that has logged its figures."""
    tiny_run.default_hooks.representation = dict(
        type='RepresentationHook', interval=1, num_images=20, num_views=3
    )
    Runner.from_cfg(tiny_run).train()
    return tmp_path / 'work'


def read_table(folder):
    """Return the CSV's rows by table and checkpoint."""
    with open(folder / 'checkpoint_scores.csv', newline='') as file:
        return {
            (row['table'], row['checkpoint']): row
            for row in csv.DictReader(file)
        }


def test_scores_are_those_that_the_hook_logs(run_folder, tmp_path):
    # A damaged file, a diverged one, and the only copy of a ninth epoch.
    (run_folder / 'epoch_3.pth').write_bytes(b'torn')
    checkpoint = torch.load(run_folder / 'epoch_1.pth', weights_only=True)
    name = 'teacher.backbone.layer3.0.bn1.weight'
    checkpoint['state_dict'][name].fill_(torch.nan)
    torch.save(checkpoint, run_folder / 'epoch_4.pth')
    for epoch in (2, 9):
        shutil.copy(
            run_folder / 'epoch_2.pth',
            run_folder / f'best_x_epoch_{epoch}.pth',
        )
    done = call(TOOL, run_folder, *FEW, '--out', tmp_path / 'out')
    assert done.returncode == 1, done.output
    rows = read_table(tmp_path / 'out')
    stems = ['epoch_1', 'epoch_2', 'best_x_epoch_9']
    layers = ['layer2', 'layer3', 'layer4']
    assert [*rows] == [
        *((layer, stem) for layer in layers for stem in stems),
        ('not scored', ''),
    ]
    assert f'not scored: {run_folder}/epoch_3.pth' in done.stdout
    assert 'tensor layer3.0.bn1.weight is not finite' in done.stdout
    (file,) = run_folder.glob('*/vis_data/scalars.json')
    lines = map(json.loads, file.read_text().splitlines())
    logged = {
        f'epoch_{line["step"]}': line
        for line in lines
        if 'representation/alpha_layer2' in line
    }
    for stem in stems[:2]:
        for layer in layers:
            for name, column in NAMES.items():
                expected = logged[stem].get(f'representation/{name}_{layer}')
                text = rows[layer, stem][column]
                if expected is None:  # layers of less than 9 patches
                    assert text == '-'
                else:
                    assert float(text) == pytest.approx(expected, abs=6e-4)
    terms = [
        DSETerms(*(logged[s][f'representation/{t}_layer2'] for t in TERMS))
        for s in stems[:2]
    ]
    # The third is the second once more.
    expected = normalized_dse([*terms, terms[1]])
    found = [float(rows['layer2', stem]['DSE']) for stem in stems]
    assert found == pytest.approx(expected, abs=2e-3)


def test_marks():
    tool = load_tool('score_checkpoints')
    columns = dict(
        rankme=(5.0, 7.0, 6.0),
        alpha=(0.4, 1.7, 1.5),
        lidar=(float('nan'), 3.0, 4.0),
        dse_inter=(1.0, 2.0, 3.0),
        dse_intra=(0.5, 0.4, 0.1),
        dse_dim=(0.1, 0.1, 0.3),
        dse=(0.0, 0.0, 0.0),
    )
    found = {
        tool.Path(f'run/epoch_{i}.pth'): {n: v[i] for n, v in columns.items()}
        for i in range(3)
    }
    table = tool.make_table('layer3', found)
    assert [sorted(row.best) for row in table.rows] == [
        [],
        ['RankMe'],
        ['DSE', 'LiDAR', 'M_dim', 'M_inter', 'M_intra', 'alpha-ReQ'],
    ]
    cells = [row.cells(['RankMe', 'LiDAR'])[1:3] for row in table.rows[:2]]
    assert cells == [['5.000', '-'], ['7.000 *', '3.000']]


def test_one_checkpoint_and_then_none(run_folder, image_folder, tmp_path):
    """By images of another folder."""
    (run_folder / 'epoch_1.pth').unlink()
    other = tmp_path / 'other' / 'train'
    other.mkdir(parents=True)
    for path in sorted(image_folder.rglob('*.jpg'))[:8]:
        shutil.copy(path, other)
    root = f'train_dataloader.dataset.data_root={tmp_path / "other"}'
    done = call(TOOL, run_folder, '--views', 2, '--cfg-options', root)
    assert done.returncode == 0, done.output
    row = read_table(run_folder)['layer2', 'epoch_2']
    assert row['DSE'] == '-'
    # Eight images have seven directions at most.
    assert 1 < float(row['LiDAR']) < 7.01

    (run_folder / 'epoch_2.pth').write_bytes(b'torn')
    assert 'no checkpoint can be scored: ' in refusal(TOOL, run_folder, *FEW)
    options = ('--cfg-options', 'train_dataloader=None')
    error = refusal(TOOL, run_folder, *options)
    assert 'has no model or no train_dataloader.dataset' in error
    (run_folder / 'epoch_2.pth').unlink()
    assert 'has no checkpoint epoch_*.pth' in refusal(TOOL, run_folder)
    error = refusal(TOOL, tmp_path)
    assert 'is not the work directory of a run' in error
