# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Configs that are written for own data: built, and run as from Python."""

import re
import threading

import pytest
import torch
from classification_data import draw
from commands import call, refusal
from detection_data import make_coco
from mmengine import fileio
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS

import mmscfs
from mmscfs.recipes import (
    GIB,
    Machine,
    StepMemory,
    departures,
    pretraining,
    write_detector,
    write_pretraining,
)
from mmscfs.recipes.table import Images
from mmscfs.results import read_result

CPU = Machine(cores=2)
GPU = Machine(gpus=1, memory=80 * GIB, cores=16)
IMAGENET = 1_281_167
KNN = 'configs/classification/knn/folders_knn.py'
CLASSES = ('bag', 'coat')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """100 images, 20 and 4 labeled ones, and 60 with annotations."""
    root = tmp_path_factory.mktemp('data')
    for i in range(100):
        draw(root / f'images/{i}.jpg', i % 2, i)
    for split, count in (('train', 20), ('val', 4)):
        for i in range(count):
            draw(root / f'labeled/{split}/{i % 2}/{i}.jpg', i % 2, i)
    make_coco(root / 'boxes', root / 'boxes.json', CLASSES, count=60)
    return root


@pytest.fixture(scope='module')
def run(data):
    """A pre-training of 8 steps, in a thread as some notebooks have it."""
    runs = []

    def work():
        runs.append(
            mmscfs.pretrain(
                data / 'images',
                data / 'my_scfs.py',
                steps=8,
                labeled=data / 'labeled',
                work_dir=data / 'run',
                cfg_options={
                    'train_cfg.val_interval': 4,
                    'train_dataloader.num_workers': 0,
                    'val_dataloader.num_workers': 0,
                    'val_cfg.bank_dataloader.num_workers': 0,
                    'default_hooks.pictures.interval': 100,
                    'log_level': 'WARNING',
                },
            )
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, 'is_available', lambda: False)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert runs, 'the thread failed'
    return runs[0]


@pytest.fixture
def pretend(data, monkeypatch):
    """Return what gives the folder other images, of which any batch fits."""

    def pretend(count, side):
        found = Images(data / 'images', count, side)
        memory = StepMemory(0, torch.zeros(1), torch.ones(1))
        monkeypatch.setattr(pretraining, 'look_at_images', lambda _: found)
        monkeypatch.setattr(pretraining, 'step_memory', lambda *_: memory)

    return pretend


@pytest.mark.parametrize(
    ('count', 'side', 'machine', 'labeled'),
    [
        (404, 160, CPU, True),
        (404, 96, GPU, False),
        (5_000, 160, GPU._replace(gpus=2), True),
    ],
)
def test_every_config_builds(
    data, tmp_path, pretend, count, side, machine, labeled
):
    pretend(count, side)
    path = tmp_path / 'my.py'
    write_pretraining(
        data / 'images',
        path,
        machine=machine,
        labeled=data / 'labeled' if labeled else None,
    )
    cfg = Config.fromfile(path)
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.end == cosine.begin < cosine.end == cfg.train_cfg.max_epochs
    assert cfg.default_hooks.frozen_prototypes.epochs <= cosine.end
    batch = cfg.train_dataloader.batch_size
    total = batch * max(machine.gpus, 1)
    assert cfg.auto_scale_lr.base_batch_size == total
    assert cfg.multi_crop == cfg.train_dataloader.dataset.pipeline[1]
    assert [*departures(cfg, count)] == []
    assert (cfg.get('val_cfg') is not None) == labeled
    if machine.gpus:
        optimizer = cfg.optim_wrapper.optimizer
        assert optimizer.lr == pytest.approx(0.1 * total / 256)
        assert cosine.eta_min == pytest.approx(0.0048 * total / 256)


def test_a_million_images_get_the_papers_recipe(data, tmp_path, pretend):
    pretend(IMAGENET, 400)
    path = tmp_path / 'my.py'
    machine = Machine(gpus=8, memory=80 * GIB, cores=72)
    write_pretraining(data / 'images', path, machine=machine)
    cfg, paper = Config.fromfile(path), Config.fromfile('configs/scfs_r50.py')
    paper.train_dataloader.dataset.update(
        data_root=str(data / 'images'), data_prefix='', on_error='skip'
    )
    paper.model.neck.norm_cfg = None
    paper.model.head.center_momentum = 0.9
    paper.model.backbone.update(stem_channels=64, base_channels=64)
    paper.default_hooks.teacher_temp.update(
        start=0.04, end=0.07, warmup_epochs=50
    )
    paper.default_hooks.pictures.interval = 20
    paper.default_hooks.collapse_monitor.update(begin=1000, window=200)
    assert cfg.to_dict() == paper.to_dict()


def test_python_pre_trains_and_measures(run, data):
    # 100 // 48 = 2 steps an epoch, four epochs.
    assert (run.steps, run.checkpoint) == (8, data / 'run/epoch_4.pth')
    assert run.work_dir == data / 'run'
    assert 0 < run.figures['train/loss'] < 40
    assert 0 <= run.figures['val/knn/top1'] <= 100
    assert run.seconds > 0
    with pytest.raises(ValueError, match='my_scfs.py.* exists: name another'):
        mmscfs.pretrain(data / 'images', data / 'my_scfs.py')


def test_a_finished_run_says_so(run, data, capsys):
    before = {*data.rglob('*')}
    again = mmscfs.pretrain(
        data / 'images',
        data / 'my_scfs.py',
        work_dir=run.work_dir,
        resume=True,
    )
    text = capsys.readouterr().out
    assert text.startswith('This run has finished already: 4 of 4 epochs.')
    assert f'  checkpoint   {run.checkpoint}\n' in text
    assert again[:4] == run[:4]
    assert again.figures['train/loss'] == run.figures['train/loss']
    assert {*data.rglob('*')} == before


def test_a_stop_ends_no_notebook(run, data, monkeypatch):
    """PreemptionHook ends the process; here it is as after Ctrl-C."""
    longer = {'train_cfg.max_epochs': 5}

    def stop(runner):
        assert runner.cfg.resume
        raise SystemExit(130)

    monkeypatch.setattr(Runner, 'train', stop)
    with pytest.raises(KeyboardInterrupt, match='with resume=True'):
        mmscfs.pretrain(
            data / 'images',
            data / 'my_scfs.py',
            work_dir=run.work_dir,
            resume=True,
            cfg_options=longer,
        )


SMALL_DETECTOR = {
    'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'log_level': 'WARNING',
}


def test_python_trains_a_detector_from_it(run, data):
    path = data / 'my_det.py'
    found = mmscfs.finetune(
        data / 'boxes.json',
        path,
        images=data / 'boxes',
        pretrained=run.checkpoint,
        steps=4,
        work_dir=data / 'det',
        cfg_options=SMALL_DETECTOR | {'train_cfg.val_interval': 4},
    )
    assert (found.steps, found.checkpoint) == (4, data / 'det/iter_4.pth')
    assert -1 <= found.figures['val/coco/bbox_mAP'] <= 1
    cfg = Config.fromfile(path)
    assert cfg.metainfo.classes == CLASSES
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    assert cfg.model.roi_head.mask_head.num_classes == 2
    # Of the demo's network, whose first stage has 16 channels.
    assert cfg.model.backbone.depth == 18
    assert cfg.model.neck.in_channels == [16, 32, 64, 128]
    # 64 x 96 px; a fifth of 60 images is held out.
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (107, 64)
    names = [
        {image['file_name'] for image in load(cfg[f'{part}_dataloader'])}
        for part in ('train', 'val')
    ]
    assert [len(part) for part in names] == [48, 12]
    assert not names[0] & names[1]


def test_any_class_folders_by_one_setting(run, data):
    root = f'test_dataloader.dataset.data_root={data / "labeled"}'
    words = (KNN, '--pretrained', run.checkpoint, '--cfg-options', root)
    error = refusal('tools/test.py', *words, 'log_level=ERROR')
    # What the error says to set is what fits.
    (settings,) = re.findall(r'Set (depth=.*?) there', error)
    options = [f'model.backbone.{word}' for word in settings.split(', ')]
    options += ['test_dataloader.num_workers=0', f'work_dir={data / "knn"}']
    options += ['test_cfg.bank_dataloader.num_workers=0', 'log_level=ERROR']
    done = call('tools/test.py', *words, *options)
    assert not done.returncode, done.output
    (path,) = run.work_dir.glob('*.folders_knn.json')
    # Four images, of classes that differ in brightness.
    assert read_result(path).metrics['knn/top1'] in (25, 50, 75, 100)


def load(loader):
    return fileio.load(loader.dataset.ann_file)['images']


@pytest.fixture
def resnet50(tmp_path):
    """A ResNet-50 as a pre-training leaves it, but for the rest."""
    backbone = MODELS.build(dict(type='ResNet', depth=50))
    state = backbone.state_dict()
    path = tmp_path / 'epoch_200.pth'
    state = {f'teacher.backbone.{k}': v for k, v in state.items()}
    torch.save(dict(state_dict=state), path)
    return path


def test_a_detector_without_masks_on_gpus(resnet50, data, tmp_path):
    content = fileio.load(data / 'boxes.json')
    for annotation in content['annotations']:
        del annotation['segmentation']
    fileio.dump(content, tmp_path / 'boxes.json')
    cfg, values = write_detector(
        tmp_path / 'boxes.json',
        tmp_path / 'det.py',
        pretrained=resnet50,
        images=data / 'boxes',
        val=tmp_path / 'boxes.json',
        machine=GPU._replace(gpus=8),
    )
    assert values['steps'] == 3_000  # 12 epochs of 60 images are 45
    assert cfg.model.roi_head.mask_head is None
    assert cfg.val_evaluator.metric == ['bbox']
    assert cfg.model.neck.in_channels == [256, 512, 1024, 2048]
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.optim_wrapper.optimizer.lr == 0.02
    # 0.9 GB of libraries, 41.4 million parameters of 12 bytes, and two images
    # of 107 x 64 px, 0.6 percent of COCO's.
    assert values['memory'] == pytest.approx(1.42e9, rel=0.02)
    assert not [*tmp_path.glob('det_*.json')]


@pytest.mark.parametrize(
    ('change', 'error', 'message'),
    [
        (dict(pretrained='none.pth'), FileNotFoundError, 'none.pth'),
        (dict(annotations='none.json'), FileNotFoundError, 'no annotations'),
        (
            dict(images=None),
            FileNotFoundError,
            r"\('boxes/0.*1\.jpg' is there",
        ),
        (dict(out='det.txt'), ValueError, 'ends with .py'),
        (dict(out='none/det.py'), OSError, 'the folder does not exist'),
        (dict(val='none.json'), FileNotFoundError, 'none.json'),
    ],
)
def test_what_does_not_fit_is_refused(
    resnet50, data, tmp_path, monkeypatch, change, error, message
):
    monkeypatch.chdir(tmp_path)
    arguments = dict(
        annotations=data / 'boxes.json',
        out='det.py',
        pretrained=resnet50,
        images=data / 'boxes',
    )
    with pytest.raises(error, match=message):
        write_detector(**arguments | change)
    assert [*tmp_path.iterdir()] == [resnet50]


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (dict(bbox=[200, 0, 5, 5]), r'outside of the image \(96x64\)'),
        # Pycocotools cannot evaluate it.
        (dict(segmentation=[[5, 6, 25, 16]]), 'fewer than three points'),
    ],
)
def test_errors_name_the_file_before_its_split(
    resnet50, data, tmp_path, values, message
):
    content = fileio.load(data / 'boxes.json')
    for annotation in content['annotations']:
        annotation.update(values)
    path = tmp_path / 'boxes.json'
    fileio.dump(content, path)
    with pytest.raises(ValueError, match=message) as caught:
        write_detector(
            path,
            tmp_path / 'det.py',
            pretrained=resnet50,
            images=data / 'boxes',
            machine=CPU,
        )
    assert f'dataset.ann_file={str(path)!r}' in str(caught.value)
    assert 'det_' not in str(caught.value)
    assert {*tmp_path.iterdir()} == {path, resnet50}


def test_a_refused_run_leaves_no_config(data, tmp_path, monkeypatch):
    """The corrected call is not in its own way; another folder is named."""
    monkeypatch.chdir(tmp_path)
    images = data / 'images'
    wrong = {'train_dataloader.batchsize': 3}
    with pytest.raises(ValueError, match='did you mean batch_size'):
        mmscfs.pretrain(images, 'a.py', steps=2, cfg_options=wrong)
    assert not (tmp_path / 'a.py').exists()
    cfg, _, _ = write_pretraining(images, 'a.py', steps=2)
    # The monitor looks as late as in the shortest run known to learn.
    monitor = cfg.default_hooks.collapse_monitor
    assert (monitor.begin, monitor.window) == (644 // 3, 644 // 10)
    with pytest.raises(ValueError, match='written for other images'):
        mmscfs.pretrain(images.parent, 'a.py', steps=2, resume=True)
    assert (tmp_path / 'a.py').exists()
