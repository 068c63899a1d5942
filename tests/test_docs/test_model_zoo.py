# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The model zoo has the paper's figures, and configs that exist."""

import re

import pytest
from documents import ROOT

from mmscfs.results.paper import PAPER

PAGE = (ROOT / 'docs/en/model_zoo.md').read_text(encoding='utf-8')


def tables():
    """Return the rows of each section's table, their cells as text."""
    sections = {}
    for section in re.split(r'^## ', PAGE, flags=re.M)[1:]:
        rows = [
            [cell.strip().strip('`') for cell in line.strip('|').split('|')]
            for line in section.splitlines()
            if line.startswith('|')
        ]
        sections[section.splitlines()[0]] = rows[2:]  # head and rule
    return sections


def numbers(cells):
    """Return cells as numbers, None for a dash."""
    return tuple(None if cell == '–' else float(cell) for cell in cells)


def printed(number):
    """Return the scores of a table of the paper by its labels."""
    rows = PAPER[number].table.rows
    return {row.labels: tuple(row.scores.values()) for row in rows}


def transferred(name):
    """Return the scores of a detection table by its methods."""
    rows = printed(name).items()
    return {method: scores for (method, _), scores in rows}


def test_pre_training():
    paper = printed('1')
    rows = tables()['Pre-training on ImageNet']
    assert len(rows) == 9
    for method, _, batch, epochs, *scores, ours in rows:
        assert numbers(scores) == paper[method, batch, epochs]
        assert ours == '–'


def test_few_labels():
    paper = {method: row for (method, *_), row in printed('2').items()}
    rows = tables()['Few labels']
    assert len(rows) == 4
    for method, labels, config, *scores, _ in rows:
        one = labels == '1%'
        top1, top1_10, top5, top5_10 = paper[method]
        wanted = (top1, top5) if one else (top1_10, top5_10)
        assert numbers(scores) == wanted
        assert ('1percent' in config) == one


def test_small_data_sets():
    columns = PAPER['5'].table.columns
    paper = {method: row for (method, *_), row in printed('5').items()}
    rows = tables()['Small data sets']
    assert [row[0] for row in rows] == columns
    for i, (_, _, dino, scfs, _) in enumerate(rows):
        assert numbers([dino, scfs]) == (paper['DINO*'][i], paper['SCFS'][i])


@pytest.mark.parametrize(
    ('section', 'number'),
    [('Pre-trained on COCO', '6 1x'), ('Detection on VOC', '3')],
)
def test_detection(section, number):
    paper = transferred(number)
    rows = tables()[section]
    assert {'DINO', 'SCFS'} <= {row[0] for row in rows}
    for method, *scores, _ in rows:
        assert numbers(scores) == paper[method]


def test_coco():
    rows = tables()['Detection on COCO']
    assert len(rows) == 12
    for method, epochs, config, *scores, _ in rows:
        name = f'4 {re.search(r"_(.x)_", config)[1]}'
        assert numbers(scores) == transferred(name)[method]
        paper = printed(name)
        assert (method, epochs.replace('–', '-')) in paper


def test_ablations():
    paper = {method: row for (method, *_), row in printed('7').items()}
    for number in ('8', '10'):
        for (method, variant, *_), row in printed(number).items():
            paper[f'{method}, {variant}'] = row
    rows = tables()['Ablations on ImageNet-100']
    # Of Table 8 all three layers are Table 7's SCFS.
    assert {row[0] for row in rows} == set(paper) - {'SCFS, Res2, Res3, Res4'}
    for name, _, *scores, _ in rows:
        assert numbers(scores) == paper[name]


def test_configs_exist():
    named = re.findall(r'`(configs/[^`]+\.py)`', PAGE)
    assert len(set(named)) > 30
    missing = [name for name in named if not (ROOT / name).is_file()]
    assert not missing


def test_every_recipe_is_named():
    """By its path, or by what the path has in common with others."""
    named = set(re.findall(r'configs/[^`]+\.py', PAGE))
    folders = ('scfs', 'dino', 'classification/semi_supervised')
    for folder in (*folders, 'classification/finetune'):
        for path in (ROOT / 'configs' / folder).glob('*.py'):
            name = str(path.relative_to(ROOT))
            assert name in named or '-w16' in name, name
