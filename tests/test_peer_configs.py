# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Algorithms of mmpretrain, and CO2, from configs to a loaded backbone."""

import copy
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import mmpretrain
import pytest
import torch
from classification_data import draw
from commands import ROOT
from digit_runs import plain
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS, TRANSFORMS

from mmscfs.checkpoint import load_backbone, read_checkpoint
from mmscfs.engine import prepare_config
from mmscfs.engine.pretrained import INPUT, pretraining_input
from mmscfs.results import read_origin

THEIRS = Path(mmpretrain.__file__).parent / '.mim/configs'
# Their names in the paper's tables, by the folders of mmpretrain's configs.
METHODS = {
    'barlowtwins': 'Barlow Twins',
    'byol': 'BYOL',
    'densecl': 'DenseCL',
    'mocov1': 'MoCo',
    'mocov2': 'MoCo v2',
    'mocov3': 'MoCo v3',
    'simclr': 'SimCLR',
    'simsiam': 'SimSiam',
    'swav': 'SwAV',
}
CO2 = {'mocov1-co2': 'MoCo + CO2', 'mocov2-co2': 'MoCo v2 + CO2'}
# The paper's weights and temperatures of CO2, and those of InfoNCE.
TERMS = {'mocov1-co2': (10, 0.04, 0.07), 'mocov2-co2': (0.3, 0.05, 0.2)}
FILES = {
    path.name.split('_')[0]: path
    for folder in ('peers', 'co2')
    for path in (ROOT / 'configs' / folder).glob('*.py')
}
THEIR_FILES = {
    peer: THEIRS / peer / path.name
    for peer, path in FILES.items()
    if peer in METHODS and peer != 'mocov1'
}
LENGTH = 3  # iterations of an epoch
# As after --cfg-options: a small network, on small images.
SMALL = {
    'train_dataloader.batch_size': 4,
    'train_dataloader.num_workers': 0,
    'train_dataloader.dataset.pipeline.1.global_size': 32,
    'train_dataloader.dataset.serialize_data': False,  # it collects garbage
    'model.backbone.depth': 18,
    'model.backbone.stem_channels': 16,
    'model.backbone.base_channels': 16,
    'model.neck.in_channels': 128,
    'optim_wrapper.optimizer.lr': 0.01,
    'train_cfg.max_epochs': 2,
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.logger.interval': 1,
    'log_level': 'ERROR',
}
PREDICTOR = {
    'model.neck.hid_channels': 32,
    'model.neck.out_channels': 16,
    'model.head.predictor.in_channels': 16,
    'model.head.predictor.hid_channels': 32,
    'model.head.predictor.out_channels': 16,
}
QUEUE = {'model.queue_len': 16}
SMALLER = {
    'barlowtwins': {
        'model.neck.hid_channels': 32,
        'model.neck.out_channels': 32,
        'model.head.in_channels': 32,
    },
    'byol': PREDICTOR,
    'densecl': QUEUE | {'model.neck.hid_channels': 32},
    'mocov1': QUEUE,
    'mocov1-co2': QUEUE,
    'mocov2': QUEUE | {'model.neck.hid_channels': 32},
    'mocov2-co2': QUEUE | {'model.neck.hid_channels': 32},
    'mocov3': PREDICTOR,
    'simclr': {'model.neck.hid_channels': 32},
    'simsiam': PREDICTOR,
    'swav': {
        'train_dataloader.dataset.pipeline.1.local_size': 32,
        'train_dataloader.dataset.pipeline.1.num_local': 2,
        'model.neck.hid_channels': 32,
        'model.head.loss.num_prototypes': 8,
        'model.head.loss.num_crops': [2, 2],
        # Frozen for an epoch; a queue from the second one on.
        'custom_hooks.0.frozen_layers_cfg.prototypes': LENGTH,
        'custom_hooks.0.epoch_queue_starts': 1,
        'custom_hooks.0.batch_size': 4,
        'custom_hooks.0.queue_length': 8,
    },
}


@cache
def read(path):
    return Config.fromfile(path)


def load(peer):
    return copy.deepcopy(read(FILES[peer]))


class Recorder(Hook):
    """Keep the losses, and let no iteration depend on those before it.

    MoCo encodes its keys in a random order, which moves the last bits, and
    PyTorch's generator is not in a checkpoint.
    """

    priority = 'LOWEST'

    def __init__(self):
        self.losses = []

    def before_train_iter(self, runner, *_, **__):
        torch.manual_seed(runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.losses.append({k: v.item() for k, v in outputs.items()})


def train(cfg, **changes):
    """Run a copy of a config as tools/train.py does."""
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict(changes)
    prepare_config(cfg)
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    return runner, recorder.losses


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Twelve images of two classes, dark and bright."""
    folder = tmp_path_factory.mktemp('data')
    for i in range(4 * LENGTH):
        draw(folder / f'train/{i % 2}/{i}.jpg', i % 2, i)
    return folder


@pytest.fixture(scope='module', params=sorted(METHODS | CO2))
def run(request, images, tmp_path_factory):
    """Two epochs of a config made small."""
    peer, cfg = request.param, load(request.param)
    init_default_scope('mmpretrain')
    cfg.merge_from_dict(SMALL | SMALLER[peer])
    cfg.train_dataloader.dataset.data_root = str(images)
    cfg.work_dir = str(tmp_path_factory.mktemp(peer))
    runner, losses = train(cfg)
    return SimpleNamespace(
        peer=peer, cfg=cfg, model=runner.model, losses=losses
    )


# The configs


def test_every_peer_has_a_config():
    assert set(FILES) == {*METHODS, *CO2}
    assert FILES['mocov1'].stem == 'mocov1_resnet50_8xb32-steplr-200e_in1k'
    for peer, path in THEIR_FILES.items():
        assert path.is_file(), f'{peer} is not named as in mmpretrain'


@pytest.mark.parametrize('peer', sorted(THEIR_FILES))
def test_all_but_the_loader_is_mmpretrains(peer):
    ours, theirs = (plain(c) for c in (load(peer), read(THEIR_FILES[peer])))
    if peer == 'mocov3':  # mixed precision by a wrapper that knows CPUs
        wrapper = theirs['optim_wrapper']
        assert wrapper.pop('loss_scale') == 'dynamic'
        wrapper |= dict(type='PerParamClipOptimWrapper', precision='auto')
    # What resumes exactly and survives a full disk.
    theirs['train_cfg']['type'] = 'ResumableEpochLoop'
    theirs['default_hooks']['checkpoint']['type'] = 'SafeCheckpointHook'
    for name in (
        'model',
        'optim_wrapper',
        'param_scheduler',
        'train_cfg',
        'custom_hooks',
        'data_preprocessor',
        'find_unused_parameters',
        'default_scope',
    ):
        assert ours.get(name) == theirs.get(name), name
    for name, hook in theirs['default_hooks'].items():
        assert ours['default_hooks'][name] == hook
    batch = theirs['train_dataloader']['batch_size']
    assert ours['train_dataloader']['batch_size'] == batch
    gpus = int(FILES[peer].stem.split('_')[2].split('xb')[0])
    assert ours['auto_scale_lr'] == dict(base_batch_size=gpus * batch)
    assert theirs.get('auto_scale_lr') in (None, ours['auto_scale_lr'])


@pytest.mark.parametrize('name', CO2)
def test_co2_is_moco_with_the_papers_term(name):
    weight, temperature, contrast_temperature = TERMS[name]
    cfg, peer = load(name), load(name.removesuffix('-co2'))
    assert cfg.model.type == 'MoCoCO2'
    assert cfg.model.head.temperature == contrast_temperature
    peer.model.update(
        type='MoCoCO2',
        consistency=dict(
            type='ConsistencyLoss', weight=weight, temperature=temperature
        ),
    )
    # The same steps; those that are not finite are skipped.
    peer.optim_wrapper.update(
        type='PerParamClipOptimWrapper', precision='fp32'
    )
    assert cfg.to_dict() == peer.to_dict()
    # Built at full size.
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model)
    assert model.queue.shape == (128, 65536)
    assert model.consistency.weight == weight
    assert model.consistency.temperature == temperature
    with torch.no_grad():
        features = model.neck(model.backbone(torch.zeros(2, 3, 32, 32)))[0]
    assert features.shape == (2, 128)


# The views


def their_views(cfg):
    """Return the settings of every view in a pipeline of mmpretrain."""
    loader = cfg.train_dataloader.dataset
    (multi_view,) = (t for t in loader.pipeline if t.type == 'MultiView')
    counts = multi_view.num_views
    counts = [counts] if isinstance(counts, int) else counts
    views = []
    for count, transforms in zip(counts, multi_view.transforms, strict=True):
        views += [their_view(transforms)] * count
    return views


# The transforms of a view, in their order, and what decides each.
READ = {
    'RandomResizedCrop': lambda t: dict(
        size=t.scale[0],
        scale=t.crop_ratio_range,
        ratio=t.aspect_ratio_range,
        attempts=t.max_attempts,
    ),
    'RandomFlip': lambda t: dict(flip_prob=t.prob, flip=t.direction),
    'RandomApply': lambda t: dict(
        jitter_prob=t.prob,
        jitter=[
            pytest.approx(getattr(t.transforms.transforms[0], name))
            for name in ('brightness', 'contrast', 'saturation', 'hue')
        ],
    ),
    'RandomGrayscale': lambda t: dict(grey_prob=t.prob),
    'GaussianBlur': lambda t: dict(
        blur_prob=t.prob, blur_sigma=t.magnitude_range, blur=t.magnitude_std
    ),
    'Solarize': lambda t: dict(solarize_prob=t.prob, threshold=t.thr),
}


def their_view(transforms):
    view = dict(solarize_prob=0.0, threshold=128)
    for settings in transforms:
        view |= READ[settings.type](TRANSFORMS.build(settings))
    # A flip commutes with all but the crop.
    order = [t.type for t in transforms if t.type != 'RandomFlip']
    assert order == [kind for kind in READ if kind in order]
    return view


def our_views(cfg):
    """Return the settings of every view that MultiCrop makes."""
    crop = TRANSFORMS.build(cfg.train_dataloader.dataset.pipeline[1])
    return [
        dict(
            size=crop.local_size if kind == 2 else crop.global_size,
            scale=crop.local_scale if kind == 2 else crop.global_scale,
            ratio=crop.ratio,
            attempts=10,
            flip_prob=crop.flip_prob,
            flip='horizontal',
            jitter_prob=crop.jitter_prob,
            jitter=list(crop.jitter_range),
            grey_prob=crop.grey_prob,
            blur_prob=crop.blur_prob[kind],
            blur_sigma=crop.blur_sigma,
            blur='inf',  # uniform in the range
            solarize_prob=crop.solarize_prob[kind],
            threshold=crop.solarize_threshold,
        )
        for kind in (0, 1, *[2] * crop.num_local)
    ]


@pytest.mark.parametrize('peer', sorted(THEIR_FILES))
def test_views_have_mmpretrains_distributions(peer):
    theirs = their_views(read(THEIR_FILES[peer]))
    assert our_views(load(peer)) == theirs
    assert len(theirs) == (8 if peer == 'swav' else 2)
    if peer == 'mocov2':  # v1 has no blur, and jitters always and more
        jitter = [(0.6, 1.4)] * 3 + [(-0.4, 0.4)]
        view = theirs[0] | dict(blur_prob=0.0, jitter_prob=1.0, jitter=jitter)
        assert our_views(load('mocov1')) == [view, view]


# From a few iterations to a backbone


def test_trains_resumes_and_exports(run, tmp_path):
    assert len(run.losses) == 2 * LENGTH
    # Another batch and another state each time.
    assert len({losses['loss'] for losses in run.losses}) == 2 * LENGTH

    # The second epoch again, from the end of the first.
    runner, losses = train(
        run.cfg,
        resume=True,
        load_from=f'{run.cfg.work_dir}/epoch_1.pth',
        work_dir=str(tmp_path),
    )
    assert losses == run.losses[LENGTH:]
    state = runner.model.state_dict()
    for name, value in run.model.state_dict().items():
        assert torch.equal(state[name], value), name

    # The online backbone, whole, and whose it is.
    checkpoint = f'{run.cfg.work_dir}/epoch_2.pth'
    backbone = MODELS.build(
        dict(type='ResNet', depth=18, stem_channels=16, base_channels=16)
    )
    assert 'loaded 120 tensors' in load_backbone(backbone, checkpoint)
    online = run.model.backbone.state_dict()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, online[name]), name
    assert pretraining_input(read_checkpoint(checkpoint)) == INPUT
    origin = read_origin(checkpoint)
    assert origin.method == (METHODS | CO2)[run.peer]
    assert (origin.epochs, origin.batch_size) == (2, 4)
