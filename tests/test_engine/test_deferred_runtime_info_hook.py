# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils._python_dispatch import TorchDispatchMode

from mmscfs.checkpoint import read_checkpoint
from mmscfs.engine import prepare_config
from mmscfs.engine.hooks import DeferredRuntimeInfoHook
from mmscfs.engine.hooks.deferred_runtime_info_hook import read_hub
from mmscfs.models.selfsup import dino

# What differs: times, and mmengine's second learning rate.
TIMES = {'time', 'data_time', 'eta', 'memory', 'base_lr'}


@pytest.fixture
def log(tmp_path):
    """A hook, and a run's hub of which it is the only one."""
    hook = DeferredRuntimeInfoHook()
    hub = MessageHub(str(tmp_path))
    return hook, SimpleNamespace(hooks=[hook], message_hub=hub)


def contents(hub):
    """Names in order, values and counts of every history."""
    return [
        (name, *(part.tolist() for part in history.data))
        for name, history in hub.log_scalars.items()
    ]


def length(hub):
    """How many values of "a" were read."""
    return len(hub.get_scalar('a').data[0])


def row(step, *names):
    """Scalars of a step, some narrower, wider or with a graph."""
    values = [
        torch.tensor(step + 1 / 3, requires_grad=True),
        torch.tensor(-step / 7, dtype=torch.bfloat16),
        torch.tensor([step / 11], dtype=torch.float64),
    ]
    return dict(zip(names, values, strict=False))


def test_histories_equal_mmengines(log, tmp_path):
    hook, runner = log
    plain = MessageHub(f'{tmp_path}/plain')
    for step in range(40):
        names = 'abc' if step % 9 else 'ca'
        for name, value in row(step, *names).items():
            plain.update_scalar(name, value)
        hook.keep(runner.message_hub, row(step, *names))
        if step % 10 == 5:
            assert read_hub(runner).get_scalar('a').mean(4) == (
                plain.get_scalar('a').mean(4)
            )
            assert length(runner.message_hub) == step + 1
    assert length(runner.message_hub) < 40  # some wait
    assert contents(read_hub(runner)) == contents(plain)


def test_a_scalar_may_change_after_it_was_logged(log):
    """And a long history loses its beginning."""
    hook, runner = log
    hub, value = runner.message_hub, torch.zeros(())
    hub.update_scalar('a', 9.0)
    hub.get_scalar('a').max_length = 5
    for step in range(4):
        value.fill_(step)
        hook.keep(hub, dict(a=value))
    assert read_hub(runner).get_scalar('a').data[0].tolist() == [9, 0, 1, 2, 3]
    # What is not a float on one device is read at once.
    for a in (1.5, torch.tensor(2)):
        hook.keep(hub, dict(a=a))
    assert hub.get_scalar('a').data[0].tolist() == [1, 2, 3, 1.5, 2]
    assert hub.get_scalar('a').data[1].tolist() == [1] * 5


def run(cfg, folder, hook='DeferredRuntimeInfoHook', hooks=(), **changes):
    """Run a copy of a config, which logs every third iteration."""
    cfg = copy.deepcopy(cfg)
    cfg.merge_from_dict(
        {
            'work_dir': str(folder),
            'default_hooks.runtime_info.type': hook,
            'default_hooks.logger.interval': 3,
            **changes,
        }
    )
    runner = Runner.from_cfg(cfg)
    for extra in hooks:
        runner.register_hook(extra)
    runner.train()
    return runner


def logged(runner):
    """The lines of scalars.json without what depends on the clock."""
    (path,) = Path(runner.log_dir).glob('vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        [(k, v) for k, v in line.items() if k not in TIMES] for line in lines
    ]


def saved(runner, epoch):
    """The histories of a checkpoint, in order, without the times."""
    checkpoint = read_checkpoint(f'{runner.work_dir}/epoch_{epoch}.pth')
    return {
        name: history['values'].tolist()
        for name, history in checkpoint['message_hub']['log_scalars'].items()
        if name.split('/')[1] not in TIMES
    }


def test_runs_log_and_save_what_mmengines_do(tiny_run, tmp_path):
    """A resumed run too, and with the same smoothing."""
    plain = run(tiny_run, tmp_path / 'plain', 'RuntimeInfoHook')
    deferred = run(tiny_run, tmp_path / 'deferred')
    rate = plain.message_hub.log_scalars.pop('train/base_lr')
    own = deferred.message_hub.log_scalars
    assert [*own] == [*plain.message_hub.log_scalars]
    assert own['train/lr'].data[0].tolist() == rate.data[0].tolist()
    assert len(logged(plain)) == 2
    assert logged(deferred) == logged(plain)
    for epoch in (1, 2):
        expected = saved(plain, epoch)
        assert len(expected['train/loss']) == 4 * epoch
        found = saved(deferred, epoch)
        assert [*found] == [*expected]
        assert found == expected
    resumed = run(
        tiny_run,
        tmp_path / 'resumed',
        resume=True,
        load_from=f'{plain.work_dir}/epoch_1.pth',  # as version 0.1 saved
    )
    assert saved(resumed, 2) == saved(plain, 2)
    assert logged(resumed) == logged(plain)[1:]
    assert 'train/base_lr' not in resumed.message_hub.log_scalars


class SaveWithin(Hook):
    """Save between two lines of the log, as a signal does."""

    priority = 'LOWEST'

    def after_train_iter(self, runner, *_, **__):
        if runner.iter + 1 == 6:
            runner.save_checkpoint(runner.work_dir, 'within.pth')


def test_a_checkpoint_between_two_lines_has_every_value(tiny_run, tmp_path):
    runner = run(tiny_run, tmp_path / 'work', hooks=(SaveWithin(),))
    hub = read_checkpoint(f'{runner.work_dir}/within.pth')['message_hub']
    found = hub['log_scalars']['train/loss']['values'].tolist()
    assert len(found) == 6
    assert found == saved(runner, 2)['train/loss'][:6]


class ReadsRecorder(TorchDispatchMode):
    """Record operations for whose result the host must wait."""

    READS = ('_local_scalar_dense', 'nonzero', 'masked_select', '_unique2')

    def __init__(self):
        super().__init__()
        self.reads = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in ('index', 'index_put_') and any(
            index is not None and index.dtype == torch.bool
            for index in args[1]
        )
        if name in self.READS or masks:
            self.reads.append(name)
        return func(*args, **kwargs or {})


def count_reads(cfg, folder, monkeypatch, **settings):
    """Reads by iteration, from its first hook to its last."""
    recorder, counts = ReadsRecorder(), {}
    # On the CPU these reach no dispatcher.
    for name in ('cpu', 'tolist', 'numpy'):
        original = getattr(torch.Tensor, name)

        def recorded(*args, name=name, original=original, **kwargs):
            if args[0].dtype != torch.uint8:  # marks of files, in memory
                recorder.reads.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, recorded)
    run_iter = EpochBasedTrainLoop.run_iter

    def counted(loop, *args):
        recorder.reads.clear()
        with recorder:
            run_iter(loop, *args)
        counts[loop.iter] = len(recorder.reads)

    monkeypatch.setattr(EpochBasedTrainLoop, 'run_iter', counted)
    # On a CPU, and only there, clipping looks at the norms, and the model
    # whether the step was skipped.
    monkeypatch.setattr(dino, 'is_free_to_read', lambda _: False)
    run(cfg, folder, **{'optim_wrapper.clip_grad': None, **settings})
    return counts


@pytest.mark.parametrize(('precision', 'epochs'), [('fp32', 2), ('fp16', 1)])
def test_steps_between_logs_never_wait_for_the_device(
    tiny_run, tmp_path, monkeypatch, precision, epochs
):
    """Epochs of 4 iterations, logged at the third of each."""
    settings = {
        'optim_wrapper.precision': precision,
        'optim_wrapper.optimizer.fused': True,
        'train_cfg.max_epochs': epochs,
    }
    reads = count_reads(tiny_run, tmp_path, monkeypatch, **settings)
    assert len(reads) == 4 * epochs
    # In the first one the names of what is logged are new.
    assert not any(n for i, n in reads.items() if i not in (1, 3, 7))
    if precision == 'fp32':
        # The check's list; the log's transfer, and from there into a list.
        assert reads[3] == reads[7] == 3


def test_the_recorder_sees_mmengines_reads(tiny_run, tmp_path, monkeypatch):
    settings = {'hook': 'RuntimeInfoHook', 'train_cfg.max_epochs': 1}
    reads = count_reads(tiny_run, tmp_path, monkeypatch, **settings)
    assert len(reads) == 4
    assert all(count > 10 for count in reads.values())


def test_tensorboard_has_what_the_log_has(tiny_run, tmp_path):
    """By the two lines that the guide names."""
    events = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    kinds = ('LocalVisBackend', 'TensorboardVisBackend')
    tiny_run.visualizer.vis_backends = [dict(type=kind) for kind in kinds]
    prepare_config(tiny_run)
    runner = run(tiny_run, tmp_path / 'work')
    folder = runner.visualizer.get_backend(kinds[1])._save_dir
    runner.visualizer.close()
    found = events.EventAccumulator(folder).Reload()
    lines = [dict(line) for line in logged(runner)]
    assert len(lines) == 2
    for name in ('loss', 'lr', 'feature_std'):
        assert {e.step: e.value for e in found.Scalars(name)} == pytest.approx(
            {line['step']: line[name] for line in lines}, rel=1e-6
        )
