# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import errno
from pathlib import Path

import pytest
from mmengine.dataset import DefaultSampler, pseudo_collate
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from toy_runs import (
    ToyData,
    ToyModel,
    assert_same_state,
    in_processes,
    run,
    toy_cfg,
)

import mmscfs.engine.resume.files as files
from mmscfs.checkpoint import read_checkpoint
from mmscfs.checkpoint.writing import room_named
from mmscfs.engine.resume.files import AtomicBackend


def names(folder, pattern='*.pth'):
    return sorted(p.name for p in Path(folder).glob(pattern))


def hub_of(path):
    return read_checkpoint(path)['message_hub']['runtime_info']


@pytest.fixture
def cfg(tmp_path):
    return toy_cfg(
        tmp_path / 'work', **{'default_hooks.checkpoint.max_keep_ckpts': 2}
    )


class Full:
    """Puts that fail as on a full disk, for some checkpoints."""

    def __init__(self, monkeypatch, *fails):
        self.seen = {}
        original, write = AtomicBackend.put, files.write_atomically

        def put(backend, obj, filepath):
            path = Path(filepath)
            self.seen[path.name] = names(path.parent)
            original(backend, obj, filepath)

        def write_some(path, content):
            with room_named(Path(path), len(content)):
                if Path(path).name in fails:
                    raise OSError(errno.ENOSPC, 'No space left on device')
            write(path, content)

        monkeypatch.setattr(AtomicBackend, 'put', put)
        monkeypatch.setattr(files, 'write_atomically', write_some)


class Listen(Hook):
    """Keeps what is logged at a level."""

    def __init__(self, level):
        self.level, self.messages = level, []

    def before_train(self, runner):
        setattr(runner.logger, self.level, self.messages.append)


def test_full_disk_is_loud_and_the_run_continues(cfg, monkeypatch):
    disk = Full(monkeypatch, 'iter_6.pth', 'iter_8.pth')
    errors = Listen('error')
    run(cfg, errors)
    assert disk.seen['iter_10.pth'] == ['iter_2.pth', 'iter_4.pth']
    assert names(cfg.work_dir) == ['iter_14.pth', 'iter_15.pth']
    assert len(errors.messages) == 2
    for part in (
        'NO CHECKPOINT WAS SAVED',
        'No space left on device',
        'bytes were not written',
        f"'{cfg.work_dir}/iter_6.pth'",
        f'newest: {cfg.work_dir}/iter_4.pth',
    ):
        assert part in errors.messages[0]


def test_run_whose_last_save_fails_fails(cfg, monkeypatch):
    Full(monkeypatch, 'iter_15.pth')
    with pytest.raises(OSError, match='No space left on device.*iter_15'):
        run(cfg)
    assert names(cfg.work_dir) == ['iter_12.pth', 'iter_14.pth']
    last = Path(cfg.work_dir, 'last_checkpoint').read_text()
    assert last.endswith('iter_14.pth')
    assert hub_of(last)['last_ckpt'] == last


def test_disk_that_is_really_full(cfg, small_disk):
    """It fills up, log and all, and has room again two iterations later."""
    ballast = small_disk / 'ballast'
    work = small_disk / 'work'

    class Fill(Hook):
        def after_train_iter(self, runner, batch_idx, *_, **__):
            if runner.iter + 1 == 5:
                with pytest.raises(OSError, match='No space'):
                    ballast.write_bytes(bytes(2**20))
            if runner.iter + 1 == 7:
                assert names(work) == ['iter_2.pth', 'iter_4.pth']
                assert not [*work.glob('.*tmp*')]
                ballast.unlink()

    expected, _ = run(cfg)
    cfg.work_dir = str(work)
    done, _ = run(cfg, Fill())
    # iter_6 did not fit; what was learnt went on.
    assert_same_state(done, expected)
    assert names(work) == ['iter_14.pth', 'iter_15.pth']
    last = (work / 'last_checkpoint').read_text()
    assert last == f'{work}/iter_15.pth'


def test_what_a_killed_process_left_is_removed(cfg):
    folder = Path(cfg.work_dir)
    folder.mkdir()
    left = folder / '.iter_8.pth.tmp-4711'
    other = folder / '.hidden'
    for path in (left, other):
        path.write_bytes(b'half')
    run(cfg)
    assert not left.exists()
    assert other.exists()


def test_saves_wait_for_the_end_of_a_window(cfg, tmp_path):
    """Of three accumulated batches, 2, 4, 8 and 10 are within."""
    cfg.optim_wrapper.accumulative_counts = 3
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    whole, expected = run(cfg)
    assert names(cfg.work_dir) == [f'iter_{n}.pth' for n in (12, 15, 3, 6, 9)]
    cfg.work_dir = str(tmp_path / 'resumed')
    resumed, losses = run(cfg, resume=f'{whole.work_dir}/iter_9.pth')
    assert losses.values == expected.values[9:]
    assert_same_state(resumed, whole)


class ValModel(ToyModel):
    """The toy model, with an answer for each image."""

    def forward(self, inputs, mode='tensor', **kwargs):
        output = super().forward(inputs, mode, **kwargs)
        return [*output] if mode == 'predict' else output


class Scores(BaseMetric):
    """Scores that were decided before, in the order of the validations."""

    def __init__(self, **scores):
        super().__init__()
        self.scores = {name: iter(values) for name, values in scores.items()}

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {name: next(values) for name, values in self.scores.items()}


def val_cfg(work_dir, checkpoint, scores, **changes):
    """Three epochs of 5 iterations, validated after each."""
    cfg = toy_cfg(work_dir, **changes)
    cfg.model.type = ValModel
    cfg.val_dataloader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dict(type=ToyData, length=4),
        sampler=dict(type=DefaultSampler, shuffle=False),
        collate_fn=dict(type=pseudo_collate),
    )
    cfg.val_cfg = dict()
    cfg.val_evaluator = dict(type=Scores, **scores)
    cfg.default_hooks.checkpoint.update(
        dict(by_epoch=True, interval=1, save_best='acc') | checkpoint
    )
    return cfg


@pytest.fixture
def best_cfg(tmp_path):
    """Return a function: the config of a run with these scores."""

    def make(*scores, **checkpoint):
        return val_cfg(tmp_path / 'work', checkpoint, dict(acc=scores))

    return make


def test_the_best_before_goes_after_the_new_one_is_there(
    best_cfg, monkeypatch
):
    disk = Full(monkeypatch)
    cfg = best_cfg(1.0, 3.0, 2.0)
    run(cfg)
    assert disk.seen['best_acc_epoch_2.pth'] == [
        'best_acc_epoch_1.pth',
        'epoch_1.pth',
        'epoch_2.pth',
    ]
    assert names(cfg.work_dir, 'best*') == ['best_acc_epoch_2.pth']
    best = f'{cfg.work_dir}/best_acc_epoch_2.pth'
    # Both know of it, and a checkpoint that was saved before it does too.
    for name in (best, f'{cfg.work_dir}/epoch_2.pth'):
        hub = hub_of(name)
        assert (hub['best_score'], hub['best_ckpt']) == (3.0, best)
    content = read_checkpoint(best)
    assert (content['meta']['epoch'], content['meta']['iter']) == (2, 10)
    assert 'optimizer' not in content


@pytest.mark.parametrize(('full', 'last', 'kept'), [(2, 2.0, 3), (3, 4.0, 2)])
def test_a_best_that_cannot_be_written_leaves_the_one_before(
    best_cfg, monkeypatch, full, last, kept
):
    Full(monkeypatch, f'best_acc_epoch_{full}.pth')
    scores = [1.0, 3.0, last]
    cfg, errors = best_cfg(*scores), Listen('error')
    if full == 3:  # and no save since
        with pytest.raises(OSError, match='No space.*best_acc_epoch_3.pth'):
            run(cfg, errors)
    else:
        run(cfg, errors)
    # The next one that is better than what was kept takes its place.
    assert names(cfg.work_dir, 'best*') == [f'best_acc_epoch_{kept}.pth']
    assert (
        hub_of(f'{cfg.work_dir}/epoch_{full}.pth')['best_score']
        == (scores[full - 2])
    )
    (message,) = errors.messages
    assert 'No space left on device: ' in message
    assert f"best_acc_epoch_{full}.pth'" in message


def test_a_resumed_run_knows_the_best_before(best_cfg):
    cfg = best_cfg(1.0, 3.0, save_best='auto')
    cfg.train_cfg.max_epochs = 2
    run(cfg)
    folder = Path(cfg.work_dir)
    cfg.train_cfg.max_epochs = 4
    cfg.val_evaluator.acc = [2.0, 4.0]
    run(cfg, resume=folder / 'epoch_2.pth')
    assert names(folder, 'best*') == ['best_acc_epoch_4.pth']


def test_best_within_a_window_does_not_save_the_run(best_cfg):
    """Else a run that resumes there would lose the gradients that wait."""
    cfg = best_cfg(1.0, 2.0, 3.0, by_epoch=False, interval=9)
    cfg.optim_wrapper.accumulative_counts = 3
    # Validated at 5, 10 and 15; the windows end at 3, 6, ... 15.
    run(cfg)
    assert names(cfg.work_dir, 'iter*') == ['iter_15.pth', 'iter_9.pth']
    assert hub_of(f'{cfg.work_dir}/iter_9.pth')['best_score'] == 1.0
    assert hub_of(f'{cfg.work_dir}/iter_15.pth')['best_score'] == 3.0


def member(folder, fails, scores):
    """Run as one of two processes; return how it ended."""
    cfg = val_cfg(
        folder / 'work',
        {},
        dict(acc=scores),
        **{'train_dataloader.dataset.length': 20, 'launcher': 'pytorch'},
    )
    found = {}

    class Look(Hook):
        def before_train_epoch(self, runner):
            info = runner.message_hub.runtime_info
            entries = 'best_score', 'best_ckpt', 'last_ckpt'
            found[f'hub {runner.epoch}'] = [info.get(e) for e in entries]

    with pytest.MonkeyPatch.context() as patch:
        Full(patch, *fails)
        try:
            run(cfg, Look())
        except OSError as error:
            found['error'] = str(error)
    return found


def test_two_processes_continue_alike(tmp_path):
    fails = ['epoch_1.pth', 'best_acc_epoch_2.pth', 'best_acc_epoch_3.pth']
    arguments = tmp_path, fails, [1.0, 2.0, 3.0]
    one, other = in_processes(member, 2, tmp_path, *arguments)
    assert one == other
    assert one['hub 0'] == [None, None, None]
    # The first best was saved when no regular one was there yet.
    best = f'{tmp_path}/work/best_acc_epoch_1.pth'
    assert one['hub 1'] == [1.0, best, None]
    assert one['hub 2'] == [1.0, best, f'{tmp_path}/work/epoch_2.pth']
    assert 'best_acc_epoch_3.pth' in one['error']
    assert names(tmp_path / 'work') == [
        'best_acc_epoch_1.pth',
        'epoch_2.pth',
        'epoch_3.pth',
    ]
