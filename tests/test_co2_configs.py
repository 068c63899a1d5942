# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""CO2 from its configs to everything that takes a checkpoint."""

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from peer_runs import draw_images, train, train_small

from mmscfs.engine import start_from
from mmscfs.results import read_origin

ROOT = Path(__file__).parent.parent
V1 = 'mocov1-co2_resnet50_8xb32-steplr-200e_in1k.py'
V2 = 'mocov2-co2_resnet50_8xb32-coslr-200e_in1k.py'
# The paper's weights and temperatures, and the temperatures of InfoNCE.
PAPER = {V1: (10, 0.04, 0.07), V2: (0.3, 0.05, 0.2)}
both = pytest.mark.parametrize('run', [V1, V2], indirect=True, scope='module')
v2 = pytest.mark.parametrize('run', [V2], indirect=True, scope='module')


@cache
def read(name):
    return Config.fromfile(ROOT / 'configs' / name)


def load(name):
    return copy.deepcopy(read(name))


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp('data'))


@pytest.fixture(scope='module')
def run(request, images, tmp_path_factory):
    """Two epochs of five iterations of a config made small."""
    return train_small(
        load(f'co2/{request.param}'),
        images,
        tmp_path_factory.mktemp(request.param.split('_')[0]),
        {'model.queue_len': 16},
    )


@pytest.mark.parametrize('name', PAPER)
def test_configs_are_mocos_with_the_papers_term(name):
    cfg = load(f'co2/{name}')
    peer = load(f'peers/{name.replace("-co2", "")}')
    weight, temperature, contrast_temperature = PAPER[name]
    assert cfg.model.pop('consistency') == dict(
        type='ConsistencyLoss', weight=weight, temperature=temperature
    )
    assert cfg.model.type == 'MoCoCO2'
    peer.model.type = cfg.model.type
    # The same steps; those that are not finite are skipped.
    assert cfg.optim_wrapper.type == 'PerParamClipOptimWrapper'
    assert cfg.optim_wrapper.pop('precision') == 'fp32'
    assert 'clip_grad' not in cfg.optim_wrapper
    cfg.optim_wrapper.type = peer.optim_wrapper.type
    assert cfg.to_dict() == peer.to_dict()
    assert cfg.model.head.temperature == contrast_temperature
    assert cfg.model.queue_len == 65536
    assert cfg.train_dataloader.batch_size * 8 == 256
    assert cfg.optim_wrapper.optimizer.lr == 0.03
    assert cfg.train_cfg.max_epochs == 200
    # Built at full size, with the term that was taken out above.
    init_default_scope('mmpretrain')
    model = MODELS.build(load(f'co2/{name}').model)
    assert model.queue.shape == (128, 65536)
    assert model.consistency.weight == weight
    assert model.consistency.temperature == temperature
    with torch.no_grad():
        features = model.neck(model.backbone(torch.zeros(2, 3, 32, 32)))[0]
    assert features.shape == (2, 128)


@both
def test_trains_saves_and_resumes(run, tmp_path):
    assert len(run.losses) == 10
    for values in run.losses:
        parts = values['loss_contrast'] + values['loss_consistency']
        assert values['loss'] == pytest.approx(parts)
    assert any(values['loss_consistency'] > 0 for values in run.losses)
    assert run.model.queue_ptr.item() == 10 * 4 % 16
    resumed, losses = train(
        run.cfg,
        work_dir=str(tmp_path / 'resumed'),
        resume=True,
        load_from=str(run.folder / 'epoch_1.pth'),
    )
    assert losses == run.losses[5:]
    for key, value in run.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key
    origin = read_origin(str(run.checkpoint))
    version = ' v2' * ('mocov2' in run.cfg.filename)
    assert origin.method == f'MoCo{version} + CO2'
    assert origin.epochs == 2


@v2
@pytest.mark.parametrize(
    'config',
    [
        'classification/linear/resnet18-w16_1xb64-linear-coslr-30e_digits.py',
        'detection/digits/faster-rcnn_r18-w16-c4_demo_digits-voc.py',
    ],
)
def test_trainings_start_from_the_query_encoder(run, config):
    cfg = load(config)
    start_from(cfg, str(run.checkpoint))
    model = MODELS.build(cfg.model)
    model.init_weights()
    wanted = run.model.backbone.state_dict()
    own = model.backbone.state_dict()
    shared = getattr(getattr(model, 'roi_head', None), 'shared_head', None)
    if shared is not None:  # C4 keeps the last stage there
        own |= {
            key: value
            for key, value in shared.state_dict().items()
            if key in wanted
        }
    assert own.keys() == wanted.keys()
    for key, value in own.items():
        assert torch.equal(value, wanted[key]), key
