# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import errno
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from classification_data import make_colors, ordered_loader
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from sklearn.neighbors import KNeighborsClassifier
from toy_runs import in_processes, run, set_weights

from mmscfs.engine.loops import knn_loop
from mmscfs.engine.loops.feature_files import FeatureWriter
from mmscfs.engine.loops.features import extract_features, layer_names
from mmscfs.evaluation import train_linear

VIT = dict(
    arch=dict(
        embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=32
    ),
    img_size=32,
    patch_size=16,
    out_indices=(0, 2),
)


@pytest.fixture
def labeled_folder(tmp_path):
    """Six classes of colors, 8 images each to learn, 3 to test."""
    make_colors(tmp_path / 'labeled')
    return tmp_path / 'labeled'


@pytest.fixture
def knn_cfg(labeled_folder, tmp_path):
    """A k-NN test of a tiny ResNet."""
    return Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(tmp_path / 'work'),
            model=dict(
                type='ImageClassifier',
                backbone=dict(
                    type='ResNet',
                    depth=18,
                    stem_channels=8,
                    base_channels=8,
                    out_indices=(1, 2, 3),
                ),
            ),
            data_preprocessor=dict(
                mean=[120.0, 110, 100], std=[60.0, 60, 60], to_rgb=True
            ),
            test_dataloader=ordered_loader(labeled_folder, 'val'),
            test_evaluator=[],
            test_cfg=dict(
                type='KNNLoop',
                bank_dataloader=ordered_loader(labeled_folder, 'train'),
                ks=[3, 10],
                layers='all',
                # Of a network that is random, float32 cannot tell some
                # features apart.
                precision='fp64',
            ),
            randomness=dict(seed=0),
            log_level='WARNING',
        )
    )


def run_test(cfg):
    """Run a test of a network that is always the same."""
    runner = Runner.from_cfg(cfg)
    set_weights(runner.model)
    return runner, runner.test()


def plain_features(runner, folder):
    """Features of one image at a time, by layer, and the labels."""
    features, labels = {}, []
    runner.model.eval()
    for path in sorted(folder.glob('*/*.png')):
        rgb = cv2.imread(str(path))[:, :, ::-1].astype(np.float32)
        image = (rgb - [120, 110, 100]) / 60
        image = torch.from_numpy(image).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            outputs = runner.model.backbone(image)
        for i, output in enumerate(outputs):
            pooled = output.mean((2, 3))[0].numpy()
            features.setdefault(f'layer{i + 2}', []).append(pooled)
        labels.append(int(path.parent.name))
    return {name: np.stack(f) for name, f in features.items()}, labels


def test_accuracies_of_every_layer_equal_scikit_learn(knn_cfg, labeled_folder):
    runner, metrics = run_test(knn_cfg)
    bank, bank_labels = plain_features(runner, labeled_folder / 'train')
    queries, labels = plain_features(runner, labeled_folder / 'val')
    for layer, features in queries.items():
        for k in (3, 10):
            classifier = KNeighborsClassifier(
                n_neighbors=k,
                metric='cosine',
                algorithm='brute',
                weights=lambda distance: np.exp((1 - distance) / 0.07),
            ).fit(bank[layer], bank_labels)
            shares = classifier.predict_proba(features)
            right = shares.argmax(1) == labels
            name = f'knn/{layer}_k{k}'
            assert metrics[f'{name}_top1'] == pytest.approx(100 * right.mean())
            ranks = (shares > shares[range(18), labels][:, None]).sum(1)
            assert metrics[f'{name}_top5'] >= 100 * (ranks < 4).mean()
    assert 20 < metrics['knn/top1'] <= 100  # chance is 17
    best = max((3, 10), key=lambda k: metrics[f'knn/layer4_k{k}_top1'])
    assert metrics['knn/k'] == best
    assert metrics['knn/top1'] == metrics[f'knn/layer4_k{best}_top1']
    picture = cv2.imread(f'{knn_cfg.work_dir}/knn_layers.png')
    assert picture.std() > 5


def test_maps_of_a_transformers_blocks_and_then_its_class_token(knn_cfg):
    knn_cfg.model.backbone = ConfigDict(type='SearchVisionTransformer', **VIT)
    knn_cfg.test_cfg.ks = [3]
    runner, metrics = run_test(knn_cfg)
    layers = [name for name in metrics if name.endswith('_k3_top1')]
    assert layers == [
        f'knn/{layer}_k3_top1' for layer in ('layer1', 'layer3', 'cls_token')
    ]
    assert metrics['knn/top1'] == metrics['knn/cls_token_k3_top1']
    last, every = (
        extract_features(runner, runner.test_dataloader, 'queries', layers)
        for layers in ('last', 'all')
    )
    samples = [s['inputs'] for s in runner.test_dataloader.dataset]
    mean = torch.tensor([120.0, 110, 100])[:, None, None]
    with torch.no_grad():
        *maps, token = runner.model.backbone(
            (torch.stack(samples).flip(1) - mean) / 60
        )
    torch.testing.assert_close(last.layers, dict(cls_token=token))
    expected = dict(
        layer1=sum(maps[0].flatten(2).unbind(-1)) / 4,
        layer3=sum(maps[1].flatten(2).unbind(-1)) / 4,
        cls_token=token,
    )
    torch.testing.assert_close(every.layers, expected)


def sweep(cfg, **settings):
    """Test by linear classifiers in place of k-NN."""
    bank = cfg.test_cfg.bank_dataloader
    cfg.test_cfg = ConfigDict(
        type='LinearSweepLoop', bank_dataloader=bank, **settings
    )


def test_linear_sweep_reports_every_rate(knn_cfg, labeled_folder):
    rates = [0.01, 3.0]
    settings = dict(learning_rates=rates, epochs=50, batch_size=16)
    sweep(knn_cfg, **settings)
    runner, metrics = run_test(knn_cfg)
    bank, bank_labels = plain_features(runner, labeled_folder / 'train')
    queries, labels = plain_features(runner, labeled_folder / 'val')
    weight, bias = train_linear(
        torch.from_numpy(bank['layer4']),
        torch.tensor(bank_labels),
        6,
        **settings,
    )
    for i, rate in enumerate(rates):
        scores = queries['layer4'] @ weight[i].numpy().T + bias[i].numpy()
        right = 100 * np.mean(scores.argmax(1) == labels)
        name = f'linear/layer4_lr{rate:g}'
        assert metrics[f'{name}_top1'] == pytest.approx(right)
        # One of six classes is not among the five.
        right = 100 * np.mean(scores.argmin(1) != labels)
        assert metrics[f'{name}_top5'] == pytest.approx(right)
    best = max(rates, key=lambda r: metrics[f'linear/layer4_lr{r:g}_top1'])
    assert metrics['linear/lr'] == best
    assert metrics['linear/top1'] == metrics[f'linear/layer4_lr{best:g}_top1']
    assert not any('layer2' in name for name in metrics)


def test_a_rate_that_diverges_is_left_out(knn_cfg):
    sweep(knn_cfg, learning_rates=[0.1, 1e39], epochs=3)
    _, metrics = run_test(knn_cfg)
    assert not any('lr1e+39' in name for name in metrics)
    assert metrics['linear/lr'] == 0.1
    knn_cfg.test_cfg.learning_rates = [1e39]
    with pytest.raises(RuntimeError, match='all diverged. Add smaller ones'):
        run_test(knn_cfg)


def test_two_processes_find_what_one_finds(knn_cfg, tmp_path):
    """One of them writes the features of all images."""
    knn_cfg.test_cfg.features = str(tmp_path / 'features')
    knn_cfg.test_dataloader.dataset.indices = list(range(17))  # an odd number
    found = in_processes(lambda: run_test(knn_cfg)[1], 2, tmp_path)
    kept = np.load(tmp_path / 'features/bank/layer3.npy')
    knn_cfg.test_cfg.features = None
    runner, expected = run_test(knn_cfg)
    assert found == [expected, expected]
    bank, _ = plain_features(runner, tmp_path / 'labeled' / 'train')
    np.testing.assert_allclose(kept, bank['layer3'], rtol=1e-4, atol=1e-6)


def test_kept_features(knn_cfg, tmp_path, labeled_folder):
    """They are used again; those of others are refused."""
    folder = tmp_path / 'features'
    knn_cfg.test_cfg.features = str(folder)
    _, first = run_test(knn_cfg)
    knn_cfg.test_cfg.layers = ['layer2']
    _, second = run_test(knn_cfg)
    assert second['knn/top1'] == first[f'knn/layer2_k{second["knn/k"]}_top1']
    with pytest.raises(ValueError, match='other backbone, .*name another f'):
        Runner.from_cfg(knn_cfg).test()  # of other weights
    bank = knn_cfg.test_cfg.bank_dataloader.dataset
    bank.indices = 40
    with pytest.raises(ValueError, match='other images'):
        run_test(knn_cfg)
    del bank['indices']
    # Pictures are not opened again, only counted.
    for path in labeled_folder.glob('*/*/*.png'):
        path.write_bytes(b'')
    assert run_test(knn_cfg)[1] == second
    shutil.copy(folder / 'bank/labels.npy', folder / 'bank/layer2.npy')
    (folder / 'bank/labels.npy').write_bytes(b'torn')
    with pytest.raises(ValueError, match='delete'):
        run_test(knn_cfg)


def test_room_for_features_is_taken_first(small_disk):
    """A page of a file that finds none would kill the process."""
    writer = FeatureWriter(small_disk / 'bank', total=10**4)
    message = r"No space left.*: 4,000,000 bytes were not written.*/bank'"
    with pytest.raises(OSError, match=message):
        writer.write('last', 0, torch.ones(2, 100))
    assert not [*small_disk.iterdir()]
    writer = FeatureWriter(small_disk / 'bank', total=100)
    writer.write('last', 0, torch.ones(2, 100))
    assert writer.files['last'].sum() == 200


def test_a_full_disk_costs_only_the_plot(knn_cfg, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(knn_loop, 'draw_knn_by_layer', no_space)
    runner, metrics = run_test(knn_cfg)
    assert metrics['knn/top1'] > 0
    log = Path(runner.logger.log_file).read_text()
    assert 'The plot of the scores was not written: [Errno 28]' in log


def test_an_unfinished_folder_is_made_again(knn_cfg, tmp_path, monkeypatch):
    knn_cfg.test_cfg.features = str(tmp_path / 'features')
    runner = Runner.from_cfg(knn_cfg)

    def fail(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.model.backbone, 'forward', fail)
    with pytest.raises(KeyboardInterrupt):
        runner.test()
    assert not (tmp_path / 'features/bank').exists()
    knn_cfg.test_cfg.layers = 'last'
    _, metrics = run_test(knn_cfg)
    assert (tmp_path / 'features/bank/layer4.npy').exists()
    knn_cfg.test_cfg.layers = 'all'
    with pytest.raises(ValueError, match=r"only the layers \['layer4'\]"):
        run_test(knn_cfg)
    knn_cfg.test_cfg.layers = 'last'
    knn_cfg.test_cfg.features = None
    assert run_test(knn_cfg)[1] == metrics


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'test_cfg.ks': [10, 49]}, r'ks=\[10, 49\] .* the 48 images'),
        ({'test_cfg.temperature': 0}, 'temperature=0 must be >= 0.002'),
        ({'test_cfg.layers': 'res4'}, "layers='res4' must be 'last', 'all'"),
        ({'test_cfg.network': 'teacher'}, 'ImageClassifier has no teacher'),
        ({'test_evaluator': [dict(type='Accuracy')]}, r'test_evaluator=\[\]'),
        (
            {'test_cfg.bank_dataloader.sampler.shuffle': True},
            'loader of the bank must keep the order',
        ),
        (
            {'test_dataloader.sampler.round_up': False},
            'loader of the queries must .* without round_up=False',
        ),
        (
            {'test_dataloader.dataset.with_label': False},
            'an image of the queries has no label .*/0.png',
        ),
        (
            {'test_cfg.bank_dataloader.dataset.indices': list(range(16))},
            r'4 classes of the queries have no image .* \[2, 3, 4, 5\]',
        ),
    ],
)
def test_bad_settings_are_refused(knn_cfg, change, message):
    knn_cfg.merge_from_dict(change)
    with pytest.raises(ValueError, match=message):
        run_test(knn_cfg)


def test_features_that_are_not_finite_are_refused(knn_cfg):
    runner = Runner.from_cfg(knn_cfg)
    set_weights(runner.model)
    runner.model.backbone.layer3[0].conv1.weight.data[0] = float('nan')
    with pytest.raises(
        ValueError, match=r'48 features of the bank \(layer3\) are not finite'
    ):
        runner.test()


def test_layers_count_from_one():
    backbone = torch.nn.Module()
    backbone.out_indices = (1, 3)
    assert layer_names(backbone, 2) == ['layer2', 'layer4']
    backbone.out_indices = [-1]
    backbone.layers = [0] * 12
    assert layer_names(backbone, 1) == ['layer12']
    backbone.out_indices = 3
    assert layer_names(backbone, 1) == ['output1']
    backbone.out_indices = (11, 3)  # a network's outputs come in its order
    assert layer_names(backbone, 2) == ['layer4', 'layer12']
    backbone.extra_outputs = ('cls_token',)
    assert layer_names(backbone, 3) == ['layer4', 'layer12', 'cls_token']
    assert layer_names(backbone, 2) == ['output1', 'output2']


def add_knn(cfg, folder, **kwargs):
    """Validate by k-NN after every epoch."""
    cfg.val_dataloader = ordered_loader(folder, 'val')
    cfg.val_evaluator = []
    cfg.val_cfg = dict(
        type='KNNLoop',
        bank_dataloader=ordered_loader(folder, 'train'),
        ks=[3, 5],
        **kwargs,
    )


def test_knn_adds_no_drift_to_pretraining(tiny_run, labeled_folder):
    tiny_run.model.backbone.drop_path_rate = 0.5  # draws random numbers
    plain_runner, plain = run(tiny_run)
    add_knn(tiny_run, labeled_folder, layers='all')
    tiny_run.default_hooks.checkpoint.update(
        save_best='knn/top1', rule='greater'
    )
    tiny_run.work_dir += '_knn'
    runner, validated = run(tiny_run)
    assert validated.values == plain.values
    for name, value in plain_runner.model.state_dict().items():
        assert torch.equal(value, runner.model.state_dict()[name]), name
    # Logged, drawn, and the best checkpoint kept.
    log = Path(runner._log_dir, 'vis_data/scalars.json')
    lines = map(json.loads, log.read_text().splitlines())
    logged = [line for line in lines if 'knn/layer4_k5_top1' in line]
    assert [line['step'] for line in logged] == [1, 2]
    folder = Path(tiny_run.work_dir)
    best = max(range(2), key=lambda i: logged[i]['knn/top1']) + 1
    assert (folder / f'best_knn_top1_epoch_{best}.pth').exists()
    assert cv2.imread(str(folder / 'knn.png')).std() > 5


def test_features_of_a_training_are_not_kept(tiny_run, labeled_folder):
    add_knn(tiny_run, labeled_folder, features='features')
    runner = Runner.from_cfg(tiny_run)
    with pytest.raises(ValueError, match="val_cfg.features='features'"):
        runner.train()
    assert runner.iter == 0
