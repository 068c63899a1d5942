import json
import math
from pathlib import Path

import pytest
import scored_runs
import torch
from mmengine.config import Config
from mmpretrain.models import BaseSelfSupervisor
from scored_runs import Toy

from mmscfs.results import read_result
from mmscfs.results.origin import ORIGINS

STEM = 'linear_toy'
BACKBONE = dict(type='ResNet', depth=50)
NOTHING = dict(method=None, epochs=None, batch_size=None, dataset=None)


class ToyPretraining(Toy, BaseSelfSupervisor):
    """The same as a self-supervised algorithm."""

    def loss(self, inputs, data_samples):
        raise NotImplementedError


@pytest.fixture(autouse=True)
def _no_survey(monkeypatch, tmp_path):
    """Every runner would ask the compilers for their versions."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)
    monkeypatch.chdir(tmp_path)
    ORIGINS.clear()


@pytest.fixture
def pretrained():
    """A pre-training checkpoint of ours: 8 x 32 images, 200 epochs."""
    path = Path('scfs_r50/epoch_200.pth')
    path.parent.mkdir()
    cfg = (
        "model = dict(type='SCFS', search_neck=dict(type='N'), "
        'backbone=dict(out_indices=(1, 2, 3)))\n'
        'train_dataloader = dict(batch_size=32, '
        "dataset=dict(data_root='data/imagenet'))\n"
    )
    weight = torch.zeros(2, 3, 7, 7)
    names = 'teacher.backbone.conv1.weight', 'backbone.conv1.weight'
    state = dict.fromkeys(names, weight)
    meta = dict(epoch=200, world_size=8, cfg=cfg)
    torch.save(dict(state_dict=state, meta=meta), path)
    return str(path)


def starting_from(checkpoint, **kwargs):
    """What tools/train.py --pretrained sets."""
    init_cfg = dict(type='Pretrained', _scope_='mmscfs', **kwargs)
    return dict(BACKBONE, init_cfg=dict(init_cfg, checkpoint=checkpoint))


def make_runner(
    scores=(50.0, 70.0, 60.0),
    backbone=BACKBONE,
    model=None,
    folder='work',
    train_cfg=None,
    filename=f'configs/{STEM}.py',
    **settings,
):
    """A run of three epochs, of three batches of two images each."""
    train_cfg = train_cfg or dict(by_epoch=True, max_epochs=3, val_interval=1)
    by_epoch = 'max_epochs' in train_cfg
    cfg = Config(
        dict(
            model=dict(type='Toy', backbone=backbone),
            evaluation=dict(protocol='linear', dataset='digits'),
            train_cfg=train_cfg,
            train_dataloader=dict(
                batch_size=2, dataset=dict(data_root='data/digits')
            ),
            optim_wrapper=dict(
                optimizer=dict(type='SGD', lr=0.1, weight_decay=0.0)
            ),
        ),
        cfg_text='#',
        filename=filename,
    )
    cfg.merge_from_dict(settings)
    return scored_runs.make_runner(
        cfg,
        [dict(top1=v, loss=v / 2, classwise=[v]) for v in scores],
        'accuracy',
        folder,
        model,
        batches=3,
        result=dict(type='ResultFileHook'),
        plain=dict(type='PlainCheckpointHook'),
        checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch),
    )


def found():
    """The names of all results below the current folder."""
    return sorted(
        str(path)
        for path in Path.cwd().rglob('*.json')
        if '"mmscfs-result' in path.read_text()
    )


def only_result(path):
    assert found() == [str(Path.cwd() / path)]
    return read_result(path)


BESIDE = f'scfs_r50/epoch_200.{STEM}.json'


# After a training


def test_the_last_validation_counts(pretrained):
    """And the best of all stands beside it."""
    make_runner(backbone=starting_from(pretrained)).train()
    content = json.loads(Path(BESIDE).read_text())
    work_dir = content.pop('work_dir')
    assert Path(work_dir).name == 'work'
    assert content == {
        'format': 'mmscfs-result-1',
        'protocol': 'linear',
        'dataset': 'digits',
        'config': STEM,
        'checkpoint': 'epoch_200.pth',
        'network': 'teacher',
        'pretraining': {
            'method': 'SCFS',
            'epochs': 200,
            'batch_size': 256,
            'dataset': 'imagenet',
            'search_layers': [1, 2, 3],
            'search': 'SoftFeatureSearch',
            'search_views': 'all',
        },
        'backbone': 'ResNet-50',
        'metrics': {
            'accuracy/top1': 60.0,
            'accuracy/loss': 30.0,
            'best/accuracy/top1': 70.0,
        },
        'settings': {
            'max_epochs': 3,
            'val_images': 5,
            'lr': 0.1,
            'weight_decay': 0.0,
            'batch_size': 2,
            'train_images': 6,
        },
        'epoch': 3,
    }
    assert found() == [str(Path(BESIDE).resolve())]


def test_by_iterations_from_random_weights():
    """A score that is not a number is null."""
    train_cfg = dict(by_epoch=False, max_iters=6, val_interval=4)
    make_runner((50.0, math.nan), train_cfg=train_cfg, filename=None).train()
    result = only_result('work/config.json')
    assert (result.checkpoint, result.network) == (None, None)
    assert result.pretraining == NOTHING | dict(method='random')
    assert result.config == 'config'
    assert result.metrics['accuracy/top1'] is None
    assert result.metrics['accuracy/loss'] is None
    assert result.epoch == 6
    assert result.settings['max_iters'] == 6


def test_no_result_without_a_validation_at_the_end(monkeypatch):
    train_cfg = dict(by_epoch=True, max_epochs=2, val_begin=9)
    runner = make_runner(train_cfg=train_cfg)
    lines = []
    monkeypatch.setattr(runner.logger, 'warning', lines.append)
    runner.train()
    assert found() == []
    assert 'no validation at the end' in lines[-1]


# Resumed, tested


BESIDE_STUDENT = f'scfs_r50/epoch_200.student.{STEM}.json'


def test_a_resumed_run_and_a_test_know_the_start(pretrained):
    """Without --pretrained, by a plain note in the checkpoint."""
    runner = make_runner(
        (90.0, 50.0),
        backbone=starting_from(pretrained, network='student'),
        model=Toy(fails_at=8),
    )
    with pytest.raises(KeyboardInterrupt):  # in the third epoch
        runner.train()
    assert found() == []  # of an unfinished run
    content = torch.load('work/epoch_2.pth', weights_only=True)
    start = content['meta']['pretrained']
    assert (start['checkpoint'], start['network']) == (pretrained, 'student')

    tested = dict(folder='test', load_from='work/epoch_2.pth')
    make_runner((33.0,), **tested).test()
    result = only_result(BESIDE_STUDENT)
    assert result.metrics == {'accuracy/top1': 33.0, 'accuracy/loss': 16.5}
    assert result.epoch == 2
    assert result.pretraining['batch_size'] == 256
    assert result.settings == {'max_epochs': 3, 'val_images': 5}
    Path(BESIDE_STUDENT).unlink()

    # Resumed twice; and it knows its best validation.
    with pytest.raises(KeyboardInterrupt):
        make_runner((), model=Toy(fails_at=1), resume=True).train()
    make_runner((60.0,), resume=True).train()
    result = only_result(BESIDE_STUDENT)
    assert result.network == 'student'
    assert result.pretraining['method'] == 'SCFS'
    assert result.metrics['accuracy/top1'] == 60
    assert result.metrics['best/accuracy/top1'] == 90
    Path(BESIDE_STUDENT).unlink()

    # The pre-training checkpoint is gone since.
    Path(pretrained).unlink()
    make_runner((34.0,), **tested).test()
    result = only_result(f'test/{STEM}.json')
    assert result.checkpoint == 'epoch_200.pth'
    assert result.pretraining['epochs'] == 200


def test_a_whole_model_of_another_program():
    """It is not a random network; its name is not believed."""
    torch.save(dict(state_dict=Toy().state_dict()), 'byol_300ep.pth')
    make_runner((33.0,), load_from='byol_300ep.pth').test()
    result = only_result(f'work/{STEM}.json')
    assert result.checkpoint is None
    assert result.pretraining == NOTHING


def test_a_test_of_a_backbone(pretrained):
    """As k-NN: nothing is trained, and what is tested is whole."""
    for settings in (
        dict(backbone=starting_from(pretrained)),
        dict(model=ToyPretraining(), load_from=pretrained),
    ):
        make_runner((33.0,), **settings).test()
        result = only_result(BESIDE)
        assert (result.checkpoint, result.network) == (
            'epoch_200.pth',
            'teacher',
        )
        assert result.pretraining['epochs'] == 200
        assert result.metrics['accuracy/top1'] == 33
        Path(BESIDE).unlink()


# On the way of a pre-training


def test_a_pretraining_tells_itself():
    runner = make_runner(
        model=ToyPretraining(),
        filename='configs/scfs_r50.py',
        **{'model.type': 'SCFS', 'model.search_neck': dict(type='N')},
    )
    runner.train()
    result = only_result('work/scfs_r50.json')
    assert result.checkpoint is None
    assert result.pretraining == dict(
        method='SCFS',
        epochs=3,
        batch_size=2,
        dataset='digits',
        search='SoftFeatureSearch',
        search_views='all',
    )


# Before the long work


@pytest.mark.parametrize(
    ('mode', 'evaluation', 'error', 'message'),
    [
        (
            'train',
            None,
            ValueError,
            r'protocol \(knn, linear, linear-sw',
        ),
        (
            'test',
            dict(protocol='kmeans', dataset='in1k'),
            ValueError,
            'leave default_hooks.result out',
        ),
        (
            'train',
            dict(protocol='knn', dataset='in1k'),
            OSError,
            r"'scfs_r50'.* is a folder; remove it",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(
    pretrained, mode, evaluation, error, message
):
    Path(BESIDE).mkdir()
    model = Toy()
    runner = make_runner(
        model=model, backbone=starting_from(pretrained), evaluation=evaluation
    )
    with pytest.raises(error, match=message):
        getattr(runner, mode)()
    assert model.count == 0
