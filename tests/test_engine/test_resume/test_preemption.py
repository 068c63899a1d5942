# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from processes_that_meet import become_rank, run_pair
from toy_runs import ToyData, assert_same_state, run, toy_cfg

from mmscfs.checkpoint import read_checkpoint
from mmscfs.engine.resume import PreemptionHook, preemption
from mmscfs.engine.resume.files import AtomicBackend


class Notice(Hook):
    """Send this process a signal in an iteration, counted from 1."""

    def __init__(self, iteration, number=signal.SIGUSR1):
        self.iteration, self.number = iteration, number

    def before_train_iter(self, runner, *_, **__):
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def handlers():
    """What the signals do before a run; conftest.py restores it."""
    # Else ignored where the tests are a shell's background job.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return {n: signal.getsignal(n) for n in preemption.SIGNALS}


@pytest.mark.parametrize(
    ('number', 'code'), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_signal_saves_and_the_run_goes_on_exactly(number, code, tmp_path):
    cfg = toy_cfg(tmp_path / 'whole')
    whole, expected = run(cfg)
    cfg.work_dir = str(tmp_path / 'ended')
    with pytest.raises(SystemExit) as end:
        run(cfg, Notice(8, number))
    assert end.value.code == code
    path = Path(cfg.work_dir, 'interrupted.pth')
    assert Path(cfg.work_dir, 'last_checkpoint').read_text() == str(path)
    assert read_checkpoint(path)['meta']['iter'] == 8
    resumed, losses = run(cfg, resume=path)
    assert losses.values == expected.values[8:]
    assert_same_state(resumed, whole)


def test_gradients_that_accumulate_are_not_lost(tmp_path):
    """The tests of the checkpoint hook resume from such an iteration."""
    cfg = toy_cfg(tmp_path, **{'optim_wrapper.accumulative_counts': 3})
    with pytest.raises(SystemExit):
        run(cfg, Notice(7))
    assert read_checkpoint(tmp_path / 'interrupted.pth')['meta']['iter'] == 9


def test_run_at_its_last_iteration_just_ends(tmp_path, handlers):
    runner, losses = run(toy_cfg(tmp_path / 'work'), Notice(15))
    assert len(losses.values) == 15
    assert not Path(runner.work_dir, 'interrupted.pth').exists()
    assert {n: signal.getsignal(n) for n in handlers} == handlers


def test_full_disk_does_not_ask_to_be_queued_again(tmp_path, monkeypatch):
    original = AtomicBackend.put

    def put(backend, obj, filepath):
        if 'interrupted' in str(filepath):
            raise OSError(28, 'No space left on device')
        original(backend, obj, filepath)

    cfg = toy_cfg(tmp_path / 'work')
    # What tools/processes.py reads.
    note = tmp_path / 'note'
    monkeypatch.setenv(preemption.SAVE_FAILED, str(note))
    monkeypatch.setattr(AtomicBackend, 'put', put)
    with pytest.raises(SystemExit) as end:
        run(cfg, Notice(5))
    assert end.value.code == 1
    assert note.read_text() == '1'
    last = Path(cfg.work_dir, 'last_checkpoint').read_text()
    assert last.endswith('iter_4.pth')


def test_second_signal_stops_at_once_but_an_echo_does_not(monkeypatch):
    sent, now = [], [100.0]
    monkeypatch.setattr(preemption.time, 'monotonic', lambda: now[0])
    monkeypatch.setattr(os, 'kill', lambda pid, n: sent.append((pid, n)))
    hook = PreemptionHook(echo=5)
    hook._receive(signal.SIGUSR1, None)
    now[0] = 104.0
    hook._receive(signal.SIGTERM, None)
    assert sent == []
    now[0] = 106.0
    hook._receive(signal.SIGTERM, None)
    assert sent == [(os.getpid(), signal.SIGTERM)]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_background_jobs_go_on_ignoring_ctrl_c(tmp_path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, losses = run(toy_cfg(tmp_path / 'work'), Notice(5, signal.SIGINT))
    assert len(losses.values) == 15


def test_ctrl_c_is_answered(capfd):
    PreemptionHook(echo=3)._receive(signal.SIGINT, None)
    told = capfd.readouterr().err
    assert 'Ctrl-C: saving after the iteration or validation' in told
    assert 'after 3 s to quit now' in told


def signal_run(number):
    """Send what a launcher does to the run that has forked this process."""
    os.killpg(os.getpgid(os.getppid()), number)


class Signals(ToyData):
    """A data set whose worker signals the run as it loads an image.

    It is the last of the first epoch: by then the run listens.
    """

    def __init__(self, number, **kwargs):
        super().__init__(**kwargs)
        self.number = number

    def __getitem__(self, index):
        if index == 4:
            signal_run(self.number)
        return super().__getitem__(index)


class Count(BaseMetric):
    """A validation's number of batches."""

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(batches=len(results))


def validate(cfg, dataset):
    """Have a config validate after each epoch, with a worker that stays."""
    cfg.val_dataloader = dict(
        batch_size=2,
        num_workers=1,
        persistent_workers=True,
        dataset=dataset,
        sampler=dict(type=DefaultSampler, shuffle=False),
    )
    cfg.val_cfg, cfg.val_evaluator = dict(), dict(type=Count)


class WarnedPool(Hook):
    """Have a pool at work after an epoch, as mmdet's VOC metric has one."""

    def __init__(self, number):
        self.number = number

    def after_train_epoch(self, runner):
        with multiprocessing.get_context('fork').Pool(2) as pool:
            pool.map(signal_run, [self.number] * 3)


def in_own_group(target, *args):
    """Call a function in a process of its own group; return its exit code."""

    def call():
        os.setpgid(0, 0)
        target(*args)

    process = multiprocessing.get_context('fork').Process(target=call)
    process.start()
    process.join(60)
    code = process.exitcode
    if code is None:  # it hangs
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return code


@pytest.mark.parametrize(
    ('place', 'number'),
    [
        ('train', signal.SIGTERM),
        ('iterations', signal.SIGUSR1),
        ('val', signal.SIGTERM),
        ('pool', signal.SIGUSR1),
        ('pool', signal.SIGTERM),
    ],
)
def test_signal_to_the_group_spares_what_the_run_needs(
    place, number, tmp_path
):
    """torchrun sends one to the group of each of its processes."""
    cfg = toy_cfg(tmp_path / 'work')
    dataset = dict(type=Signals, number=number)
    if place in ('train', 'iterations'):
        cfg.train_dataloader.update(num_workers=1, dataset=dataset)
        if place == 'iterations':
            cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=15)
    elif place == 'val':
        validate(cfg, dataset)
    hooks = [WarnedPool(number)] if place == 'pool' else []
    assert in_own_group(run, cfg, *hooks) == 75
    done = read_checkpoint(tmp_path / 'work/interrupted.pth')['meta']['iter']
    if place in ('val', 'pool'):  # the first iteration of the second epoch
        assert done == 6


class Killed(Hook):
    """Kill the run while a worker loads for it, and note the worker."""

    def __init__(self, path):
        self.path = path

    def after_train_iter(self, runner, *_, **__):
        (worker,) = multiprocessing.active_children()
        self.path.write_text(str(worker.pid))
        os.kill(os.getpid(), signal.SIGKILL)


def is_alive(pid):
    """Whether a process has neither ended nor waits to be reaped."""
    try:
        stat = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False
    return stat.rpartition(')')[2].split()[0] not in 'ZX'


def test_killed_run_leaves_no_worker_behind(tmp_path):
    """A launcher's SIGKILL to the run's group does not reach it."""
    cfg, path = toy_cfg(tmp_path / 'work'), tmp_path / 'pid'
    cfg.train_dataloader.num_workers = 1
    assert in_own_group(run, cfg, Killed(path)) == -signal.SIGKILL
    pid = int(path.read_text())
    end = time.monotonic() + 30
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(pid)


def test_processes_that_the_run_starts_can_be_ended(tmp_path):
    """As a pool does with its own, each in a fork of the run."""
    codes = []
    waits = {signal.SIGTERM: 20, signal.SIGUSR1: 0.5, signal.SIGINT: 0.5}

    class Pool(Hook):
        def after_train_iter(self, runner, batch_idx, *_, **__):
            if runner.iter:
                return
            context = multiprocessing.get_context('fork')
            for number, seconds in waits.items():
                process = context.Process(target=signal.pause)
                process.start()
                os.kill(process.pid, number)
                process.join(seconds)
                codes.append(process.exitcode)
                process.kill()

    _, losses = run(toy_cfg(tmp_path / 'work'), Pool())
    # What is sent to all must spare its loaders, which the run still needs.
    assert codes == [-signal.SIGTERM, None, None]
    assert len(losses.values) == 15  # the run itself heard nothing


def member(rank, port, work_dir, resume, notice):
    """Train as one of two; the second one alone gets a signal."""
    become_rank(rank, port)
    changes = {'train_dataloader.dataset.length': 20}
    cfg = toy_cfg(work_dir, **changes, launcher='pytorch')
    hooks = [Notice(notice)] if notice and rank == 1 else []
    run(cfg, *hooks, resume=resume)


def test_two_processes_end_together_if_one_is_asked(tmp_path):
    """And both go on with the draws that each of them would have made."""
    ended = tmp_path / 'ended'
    assert run_pair(member, tmp_path / 'whole', None, None) == [0, 0]
    assert run_pair(member, ended, None, 7) == [75, 75]
    path = ended / 'interrupted.pth'
    # The exchange is read one iteration after it began.
    assert read_checkpoint(path)['meta']['iter'] == 8
    assert run_pair(member, ended, path, None) == [0, 0]
    one, other = (
        read_checkpoint(tmp_path / name / 'iter_15.pth')
        for name in ('whole', 'ended')
    )
    for name, value in one['state_dict'].items():
        assert torch.equal(value, other['state_dict'][name]), name
    states = [
        checkpoint['message_hub']['runtime_info']['random_states']
        for checkpoint in (one, other)
    ]
    assert len(states[0]) == 2
    for one, other in zip(*states, strict=True):
        assert torch.equal(one['torch'], other['torch'])
        assert one['python'] == other['python']


def test_a_run_in_a_thread_trains_without_signals(tmp_path, handlers):
    texts, ended = [], []

    class Reader(Hook):
        def before_run(self, runner):
            runner.logger.warning = texts.append

    def work():
        ended.append(run(toy_cfg(tmp_path), Reader())[0].iter)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ended == [15]  # 3 epochs of 5
    assert [text for text in texts if 'trains in a thread' in text]
    assert {n: signal.getsignal(n) for n in handlers} == handlers
