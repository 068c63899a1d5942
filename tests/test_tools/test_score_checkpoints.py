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
    # A damaged file, a diverged one, and the only copy of a third epoch.
    (run_folder / 'epoch_3.pth').write_bytes(b'torn')
    checkpoint = torch.load(run_folder / 'epoch_1.pth', weights_only=True)
    shutil.copy(
        run_folder / 'epoch_2.pth', run_folder / 'best_knn_top1_epoch_9.pth'
    )
    shutil.copy(
        run_folder / 'epoch_2.pth', run_folder / 'best_knn_top1_epoch_2.pth'
    )
    for name, value in checkpoint['state_dict'].items():
        if name == 'teacher.backbone.layer3.0.bn1.weight':
            value.fill_(torch.nan)
    torch.save(checkpoint, run_folder / 'epoch_4.pth')
    done = call(TOOL, run_folder, *FEW, '--out', tmp_path / 'out')
    assert done.returncode == 0, done.output
    rows = read_table(tmp_path / 'out')
    stems = ['epoch_1', 'epoch_2', 'best_knn_top1_epoch_9']
    assert [*rows] == [
        *((f'layer{i}', stem) for i in (2, 3, 4) for stem in stems),
        ('not scored', ''),
    ]
    assert f'not scored: {run_folder}/epoch_3.pth' in done.stdout.replace(
        '\n', ''
    )
    assert 'layer3: rankme: 48 of 48 features are not finite' in done.stdout
    (file,) = run_folder.glob('*/vis_data/scalars.json')
    lines = map(json.loads, file.read_text().splitlines())
    logged = {
        f'epoch_{line["step"]}': line
        for line in lines
        if 'representation/alpha_layer2' in line
    }
    names = dict(
        rankme='RankMe',
        alpha='alpha-ReQ',
        lidar='LiDAR',
        dse_inter='M_inter',
        dse_intra='M_intra',
        dse_dim='M_dim',
    )
    terms = []
    for stem in stems[:2]:
        line = logged[stem]
        for layer in ('layer2', 'layer3', 'layer4'):
            for name, column in names.items():
                expected = line.get(f'representation/{name}_{layer}')
                text = rows[layer, stem][column]
                if expected is None:
                    assert text == '-'
                else:
                    assert float(text) == pytest.approx(expected, abs=6e-4)
        terms.append(
            DSETerms(
                *(
                    line[f'representation/dse_{t}_layer2']
                    for t in DSETerms._fields
                )
            )
        )
    # The third is the second once more.
    expected = normalized_dse([*terms, terms[1]])
    found = [float(rows['layer2', stem]['DSE']) for stem in stems]
    assert found == pytest.approx(expected, abs=2e-3)


def test_marks_and_sentence():
    tool = load_tool('score_checkpoints')
    paths = [tool.Path(f'run/epoch_{i}.pth') for i in (1, 2, 3)]
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
        path: {'layer3': {name: v[i] for name, v in columns.items()}}
        for i, path in enumerate(paths)
    }
    (table,), picks = tool.make_tables(found)
    best = [sorted(row.best) for row in table.rows]
    assert best == [
        [],
        ['RankMe'],
        ['DSE', 'LiDAR', 'M_dim', 'M_inter', 'M_intra', 'alpha-ReQ'],
    ]
    assert picks == [
        'epoch_2 by RankMe (layer3)',
        'epoch_3 by alpha-ReQ (layer3)',
        'epoch_3 by LiDAR (layer3)',
        'epoch_3 by DSE (layer3)',
    ]
    assert table.rows[1].cells(['RankMe', 'LiDAR'])[1:3] == [
        '7.000 *',
        '3.000',
    ]


def test_images_of_another_folder_and_a_single_checkpoint(
    run_folder, image_folder, tmp_path
):
    (run_folder / 'epoch_1.pth').unlink()
    other = tmp_path / 'other' / 'a'
    other.mkdir(parents=True)
    for path in sorted(image_folder.rglob('*.jpg'))[:8]:
        shutil.copy(path, other)
    done = call(TOOL, run_folder, '--views', 2, '--images', tmp_path / 'other')
    assert done.returncode == 0, done.output
    assert 'no two checkpoints to choose from' in done.stdout
    rows = read_table(run_folder)
    assert rows['layer2', 'epoch_2']['DSE'] == '-'
    # Eight images have seven directions at most.
    assert 1 < float(rows['layer2', 'epoch_2']['LiDAR']) < 7.01


def test_refusals(run_folder, tmp_path):
    error = refusal(TOOL, tmp_path)
    assert 'is not the work directory of a run' in error
    error = refusal(TOOL, run_folder, '--device', 'moon')
    assert '--device moon: ' in error
    error = refusal(TOOL, run_folder, '--images', tmp_path / 'none')
    assert 'none' in error
    for path in run_folder.glob('*.pth'):
        path.write_bytes(b'torn')
    assert 'no checkpoint can be scored: ' in refusal(TOOL, run_folder, *FEW)
    for path in run_folder.glob('*.pth'):
        path.unlink()
    assert 'has no checkpoint epoch_*.pth' in refusal(TOOL, run_folder)
