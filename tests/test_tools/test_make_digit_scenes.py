# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Tests of tools/dataset_converters/make_digit_scenes.py."""

import json
import sys
from collections import defaultdict
from xml.etree import ElementTree

import numpy as np
import pytest
from commands import call, load_tool

SCRIPT = 'tools/dataset_converters/make_digit_scenes.py'
COUNTS = {'train': 12, 'val': 6}
VOC_LISTS = {'train': 'trainval', 'val': 'test'}
SMALL = ['--train', '12', '--val', '6', '--size', '96', '--workers', '0']
FEW = ['--train', '2', '--val', '1', '--size', '64', '--workers', '0']
of_both_splits = pytest.mark.parametrize('split', COUNTS)


tool = load_tool('dataset_converters/make_digit_scenes')
scenes = sys.modules['scenes']  # which it is made of


def make(out, *words):
    """Run the tool, by default small; return its exit code."""
    return tool.main([*(words or SMALL), '--out', str(out)])


def tree(root):
    """Return {relative path: bytes} of every file below a folder."""
    files = (path for path in root.rglob('*') if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def rasterize(polygons, size):
    """Fill polygons by the even-odd rule at pixel centers."""
    mask = np.zeros((size, size), bool)
    ys, xs = np.mgrid[:size, :size] + 0.5
    for polygon in polygons:
        points = np.reshape(polygon, (-1, 2))
        inside = np.zeros_like(mask)
        ends = np.roll(points, -1, axis=0)
        for (x0, y0), (x1, y1) in zip(points, ends, strict=True):
            if y0 != y1:
                crosses = (y0 > ys) != (y1 > ys)
                inside ^= crosses & (
                    xs < x0 + (ys - y0) * (x1 - x0) / (y1 - y0)
                )
        mask |= inside
    return mask


def read_coco(root, split):
    """Return the COCO file of a split and its annotations per image id."""
    path = root / 'annotations' / f'instances_{split}.json'
    coco = json.loads(path.read_text())
    grouped = defaultdict(list)
    for item in coco['annotations']:
        grouped[item['image_id']].append(item)
    return coco, grouped


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp('digits') / 'scenes'
    assert make(out) == 0
    return out


@pytest.fixture
def few(tmp_path):
    """Three scenes in tmp_path/out."""
    assert make(tmp_path / 'out', *FEW) == 0
    return tmp_path / 'out'


@of_both_splits
def test_coco_boxes_and_masks_agree(made, split):
    coco, _ = read_coco(made, split)
    ids = [item['id'] for item in coco['annotations']]
    assert ids == [*range(1, len(ids) + 1)]
    names = {item['id']: item['name'] for item in coco['categories']}
    assert names == {i + 1: str(i) for i in range(10)}
    for item in coco['annotations']:
        x, y, w, h = item['bbox']
        assert min(x, y, w - 1, h - 1) >= 0
        assert max(x + w, y + h) <= 96
        assert item['iscrowd'] == 0
        assert all(len(p) >= 6 for p in item['segmentation'])
        mask = rasterize(item['segmentation'], 96)
        rows, columns = np.where(mask)
        bounds = columns.min(), rows.min(), columns.max(), rows.max()
        np.testing.assert_allclose(
            bounds, (x, y, x + w - 1, y + h - 1), atol=1
        )
        # Only the outline may differ: polygons are simplified.
        assert abs(int(mask.sum()) - item['area']) <= 0.12 * item['area'] + 3


@of_both_splits
def test_the_largest_digit_is_the_label_and_none_overlap(made, split):
    coco, grouped = read_coco(made, split)
    assert len(coco['images']) == COUNTS[split]
    for image in coco['images']:
        assert (made / split / image['file_name']).is_file()
        assert (image['height'], image['width']) == (96, 96)
        objects = grouped[image['id']]
        assert 1 <= len(objects) <= 4
        largest = max(objects, key=lambda item: item['area'])
        label = image['file_name'].split('/')[0]
        assert label == str(largest['category_id'] - 1)
        assert 0.35 * 96 <= max(largest['bbox'][2:]) <= 0.8 * 96
        masks = [rasterize(item['segmentation'], 96) for item in objects]
        smallest = min(item['area'] for item in objects)
        overlap = (np.sum(masks, axis=0) > 1).sum()
        assert overlap <= 0.2 * smallest + 4


@of_both_splits
def test_voc_matches_coco(made, split):
    voc = made / 'VOC2007'
    listing = voc / 'ImageSets/Main' / f'{VOC_LISTS[split]}.txt'
    stems = listing.read_text().split()
    coco, grouped = read_coco(made, split)
    assert len(stems) == len(set(stems)) == COUNTS[split]
    for stem, image in zip(stems, coco['images'], strict=True):
        top = ElementTree.parse(voc / 'Annotations' / f'{stem}.xml').getroot()
        picture = voc / 'JPEGImages' / top.findtext('filename')
        assert picture.stem == stem
        twin = made / split / image['file_name']
        assert picture.read_bytes() == twin.read_bytes()
        assert [int(node.text) for node in top.find('size')] == [96, 96, 3]
        found = [
            (
                node.findtext('name'),
                node.findtext('difficult'),
                [int(side.text) for side in node.find('bndbox')],
            )
            for node in top.iter('object')
        ]
        wanted = []
        for item in grouped[image['id']]:
            x, y, w, h = item['bbox']
            box = [x + 1, y + 1, x + w, y + h]
            wanted.append((str(item['category_id'] - 1), '0', box))
        assert found == wanted


def test_splits_share_no_digit_and_no_background(made):
    used = {}
    for split in COUNTS:
        coco, _ = read_coco(made, split)
        used[split] = {item['sample_id'] for item in coco['annotations']}
    sources = tool.load_sources()
    pools = {name: set(s.samples.tolist()) for name, s in sources.items()}
    assert pools['train'].isdisjoint(pools['val'])
    assert len(pools['train'] | pools['val']) == 1797
    assert all(used[split] <= pools[split] for split in COUNTS)
    for source in sources.values():
        assert set(source.labels.tolist()) == set(range(10))
    pairs = zip(sources['train'].photos, sources['val'].photos, strict=True)
    for left, right in pairs:
        assert left.shape[1] + right.shape[1] == 640


def test_same_bytes_with_worker_processes(made, tmp_path):
    (tmp_path / 'out').mkdir()  # an empty folder is used
    done = call(SCRIPT, *SMALL[:-1], '2', '--out', tmp_path / 'out')
    assert done.returncode == 0, done.output
    counts = [line.split(' scenes')[0] for line in done.stdout.splitlines()]
    assert counts == ['train: 12', 'val: 6']
    assert tree(tmp_path / 'out') == tree(made)


def test_a_scene_depends_on_seed_and_place_alone(made, tmp_path):
    few, other = tmp_path / 'few', tmp_path / 'other'
    assert make(few, *FEW, '--size', '96') == 0
    assert make(other, *FEW, '--size', '96', '--seed', '1') == 0
    for name in ('train/0/00000.jpg', 'train/1/00001.jpg', 'val/0/00000.jpg'):
        assert (few / name).read_bytes() == (made / name).read_bytes()
        assert (other / name).read_bytes() != (made / name).read_bytes()


def test_holes_are_not_filled():
    mask = np.zeros((20, 20), np.uint8)
    mask[2:18, 3:17] = 1
    mask[6:9, 6:9] = mask[11:15, 8:14] = 0
    polygons = scenes.mask_to_polygons(mask)
    assert len(polygons) == 1
    # A simplified outline may cut a corner, never a hole.
    differing = rasterize(polygons, 20) != mask.astype(bool)
    assert differing.sum() <= 8
    assert not rasterize(polygons, 20)[12:14, 9:13].any()


def test_second_run_does_no_work(made, capsys, monkeypatch):
    monkeypatch.setattr(scenes, 'build', lambda *_: pytest.fail('did work'))
    before = {p: p.stat().st_mtime_ns for p in made.rglob('*')}
    assert make(made) == 0
    assert 'already' in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in made.rglob('*')}


@pytest.mark.parametrize('meta', [None, '[1]', 'a file'])
def test_foreign_folder_is_left_alone(tmp_path, capsys, meta):
    out = tmp_path / 'mine'
    if meta == 'a file':
        out.write_text('keep me')
    else:
        out.mkdir()
        (out / 'precious.txt').write_text('keep me')
        if meta is not None:
            (out / 'meta.json').write_text(meta)
    before = tree(tmp_path)
    assert make(out, *FEW, '--overwrite') == 2
    assert f'--out {out} was not made by' in capsys.readouterr().err
    assert tree(tmp_path) == before


def test_other_settings_need_overwrite(few, tmp_path, capsys):
    before = tree(tmp_path)
    words = [*FEW, '--seed', '7']
    assert make(few, *words) == 2
    message = capsys.readouterr().err
    for part in (str(few), 'seed 0', 'not 7', '--overwrite'):
        assert part in message
    assert tree(tmp_path) == before
    assert make(few, *words, '--overwrite') == 0
    assert [path.name for path in tmp_path.iterdir()] == ['out']
    assert json.loads((few / 'meta.json').read_text())['seed'] == 7


@pytest.mark.parametrize(
    ('error', 'code'), [(OSError('disk full'), 1), (KeyboardInterrupt(), 130)]
)
def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch, error, code):
    write = scenes.write_scene

    def fail(index, **kwargs):
        if index == 3:
            raise error
        return write(index, **kwargs)

    monkeypatch.setattr(scenes, 'write_scene', fail)
    assert make(tmp_path / 'out') == code
    assert [*tmp_path.iterdir()] == []
