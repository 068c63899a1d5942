# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/detect.py, from a trained detector to new images."""

import json

import cv2
import numpy as np
import pytest
import torch
from commands import ROOT, call, refusal
from detection_data import HEIGHT, WIDTH, draw_image
from digit_runs import save_checkpoint
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.registry import MODELS as PRETRAINED_MODELS
from pycocotools.mask import decode

from mmscfs.visualization import detections

TOOL = 'tools/detect.py'
CONFIG = ROOT / 'configs/detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py'
NAMES = tuple('abcdefghij')  # of the checkpoint; the config has digits
STEP = 'test_dataloader.dataset.pipeline.0'


def save_detector(path, names=NAMES, **backbone):
    """Save a detector of the demo that finds its class 7 everywhere."""
    model = Config.fromfile(CONFIG).model
    model.backbone.update(backbone)
    state = MODELS.build(dict(model, _scope_='mmdet')).state_dict()
    state['roi_head.bbox_head.fc_cls.bias'][7] = 3
    meta = dict(dataset_meta=dict(classes=names)) if names else {}
    torch.save(dict(state_dict=state, meta=meta), path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two images at two depths, and a detector."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    draw_image(tmp_path / 'new/a.jpg', 0)
    draw_image(tmp_path / 'new/day/b.jpg', 1)
    save_detector(tmp_path / 'det.pth')
    return tmp_path


def detect(folder, *words):
    done = call(TOOL, CONFIG, *words, '--out', 'out', cwd=folder)
    results = json.loads((folder / 'out/results.json').read_text())
    return done, results


def test_new_images(folder):
    whole = (folder / 'new/a.jpg').read_bytes()
    (folder / 'new/torn.jpg').write_bytes(whole[:500])
    (folder / 'new/empty.png').touch()
    cv2.imwrite(str(folder / 'new/line.png'), np.zeros((1, 20_000), np.uint8))
    (folder / 'new/notes.txt').touch()
    done, results = detect(folder, 'det.pth', 'new', 'new/day/b.jpg')
    assert done.returncode == 0, done.output
    for name in ('torn.jpg', 'empty.png'):
        assert done.stderr.count(f'skipped: cannot read image new/{name}') == 1
    assert (
        'image new/line.png: the test pipeline cannot scale its 20000 x'
        in (done.stderr)
    )
    assert f'2 images, 3 skipped: {len(results)} objects' in done.stdout
    assert "5 images in 'new'; ignored 1 file (1 .txt). To read a" in (
        done.stderr
    )
    assert 'dataloader' not in done.stderr  # has no such setting here
    found = folder / 'out/pictures'
    pictures = [p for p in found.rglob('*') if p.is_file()]
    assert {*pictures} == {found / 'a.png', found / 'day/b.png'}
    # 300 px, and a margin of 16 at both sides.
    assert cv2.imread(str(pictures[0])).shape[1] == 332
    assert {r['file'] for r in results} == {'new/a.jpg', 'new/day/b.jpg'}
    assert {r['class'] for r in results} == {'h'}
    for result in results:
        left, top, width, height = result['bbox']
        assert 0 <= left < left + width <= WIDTH + 0.01
        assert 0 <= top < top + height <= HEIGHT + 0.01
        assert 0.3 <= result['score'] <= 1
        mask = decode(result['segmentation'])
        assert mask.shape == (HEIGHT, WIDTH)
        x, y, w, h = (round(v) for v in result['bbox'])
        assert not mask[:, : max(x - 1, 0)].any()
        assert not mask[y + h + 1 :].any()

    certain = max(r['score'] for r in results) - 1e-6
    _, best = detect(folder, 'det.pth', 'new', '--min-score', certain)
    assert best == [r for r in results if r['score'] >= certain]


def test_ctrl_c_keeps_what_was_found(folder, monkeypatch):
    found = detections.find_objects

    def stop_at_second(detector, path, min_score):
        if path.endswith('b.jpg'):
            raise KeyboardInterrupt
        return found(detector, path, min_score)

    monkeypatch.setattr(detections, 'find_objects', stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        detect(folder, 'det.pth', 'new')
    results = json.loads((folder / 'out/results.json').read_text())
    assert {r['file'] for r in results} == {'new/a.jpg'}


def test_the_same_as_mmdet_finds(folder):
    from mmdet.apis import inference_detector, init_detector

    import mmscfs.engine

    cfg = Config.fromfile(CONFIG)
    mmscfs.engine.prepare_config(cfg)
    model = init_detector(cfg, 'det.pth', device='cpu')
    objects = inference_detector(model, 'new/a.jpg').pred_instances
    kept = objects[objects.scores >= 0.3]
    done, results = detect(folder, 'det.pth', 'new/a.jpg')
    assert done.returncode == 0, done.output
    assert len(results) == len(kept) > 0
    for result, box, score, mask in zip(
        results, kept.bboxes, kept.scores, kept.masks, strict=True
    ):
        x, y, w, h = result['bbox']
        assert [x, y, x + w, y + h] == pytest.approx(box.tolist(), abs=0.02)
        assert result['score'] == pytest.approx(float(score), abs=1e-4)
        ours = decode(result['segmentation']).astype(bool)
        assert np.array_equal(ours, mask.numpy())


def test_deep_images_are_read_as_the_config_says(folder):
    """The same values in 12 bits and in 8 give the same objects."""
    gray, found = cv2.imread('new/a.jpg', cv2.IMREAD_GRAYSCALE), []
    for name, image, words in (
        ('eight.png', gray, ()),
        (
            'deep.png',
            100 + gray.astype(np.uint16) * 15,
            ('--cfg-options', f'{STEP}.value_range=(100,3925)'),
        ),
    ):
        assert cv2.imwrite(name, image)
        done, results = detect(folder, 'det.pth', name, *words)
        assert done.returncode == 0, done.output
        found.append([{**r, 'file': ''} for r in results])
    assert found[0] == found[1] != []
    done, results = detect(folder, 'det.pth', 'deep.png')  # without a range
    assert 'skipped: cannot read image deep.png: it has values of uint16' in (
        done.stderr
    )
    assert 'error: none of 1 images could be read' in done.stderr
    assert (done.returncode, results) == (1, [])


def test_pictures_of_one_name(folder):
    draw_image(folder / 'old/a.jpg', 2)
    assert cv2.imwrite('new/a.png', cv2.imread('new/a.jpg'))
    done, _ = detect(folder, 'det.pth', 'new', 'old')
    assert done.returncode == 0, done.output
    names = sorted(p.name for p in (folder / 'out/pictures').glob('*'))
    assert names == ['a.png', 'a_.png', 'a__.png', 'day']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([CONFIG, 'det.pth', 'none'], "no folder 'none'"),
        ([CONFIG, 'det.pth', 'void'], "no images in 'void'. To read"),
        ([ROOT / 'configs/scfs_r50.py', 'det.pth', 'new'], 'of a detector'),
        ([CONFIG, 'det.pth', 'new', '--min-score', '30'], 'from 0 to 1'),
        ([CONFIG, 'det.pth', 'new', '--out', 'new/x'], "lies in 'new'"),
        (
            [CONFIG, 'pre.pth', 'new'],
            "'pre.pth' is not a detector: it holds backbone, head, neck",
        ),
        (
            [CONFIG, 'two.pth', 'new'],
            "bbox_head.num_classes=10, but checkpoint 'two.pth' has 2 classes "
            "('x', 'y'). Name the config that wrote it",
        ),
        (
            [CONFIG, 'bare.pth', 'new', '--cfg-options']
            + ['model.roi_head.bbox_head.num_classes=3'],
            'num_classes=3, but test_dataloader.dataset has 10 classes',
        ),
    ],
)
def test_refusals_before_a_model_is_built(folder, monkeypatch, words, message):
    (folder / 'void').mkdir()
    if 'pre.pth' in words:
        save_checkpoint(folder / 'pre.pth')
    for name, classes in (('two', ('x', 'y')), ('bare', None)):
        if f'{name}.pth' in words:
            save_detector(folder / f'{name}.pth', classes)
    for models in (MODELS, PRETRAINED_MODELS):
        monkeypatch.setattr(models, 'build', None)
    if '--out' not in words:
        words = [*words, '--out', 'out']
    assert message in refusal(TOOL, *words, cwd=folder)
    assert not (folder / 'out/results.json').exists()


def test_another_detector_is_refused(folder):
    save_detector(folder / 'wide.pth', base_channels=24)
    words = (CONFIG, 'wide.pth', 'new', '--out', 'out')
    assert "'wide.pth': the checkpoint is not one of this MaskRCNN" in refusal(
        TOOL, *words, cwd=folder
    )
