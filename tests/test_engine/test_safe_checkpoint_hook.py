# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import errno
import subprocess
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from toy_runs import assert_same_state, run, toy_cfg

import mmscfs.engine.saving as saving
from mmscfs.checkpoint import read_checkpoint
from mmscfs.engine.saving import AtomicBackend


def names(folder):
    return sorted(p.name for p in Path(folder).glob('*.pth'))


@pytest.fixture
def cfg(tmp_path):
    return toy_cfg(
        tmp_path / 'work', **{'default_hooks.checkpoint.max_keep_ckpts': 2}
    )


class Full:
    """Puts that fail as on a full disk, for some checkpoints."""

    def __init__(self, monkeypatch, *fails):
        self.fails = fails
        self.seen = {}
        original = AtomicBackend.put

        def put(backend, obj, filepath):
            path = Path(filepath)
            self.seen[path.name] = names(path.parent)
            original(backend, obj, filepath)

        def write(path, content, write=saving.write_atomically):
            if Path(path).name in self.fails:
                raise OSError(errno.ENOSPC, 'No space left on device')
            write(path, content)

        monkeypatch.setattr(AtomicBackend, 'put', put)
        monkeypatch.setattr(saving, 'write_atomically', write)


def test_outdated_checkpoints_go_after_the_new_one_is_there(cfg, monkeypatch):
    disk = Full(monkeypatch)
    run(cfg)
    # As each was written, both of those before were there.
    assert disk.seen['iter_8.pth'] == ['iter_4.pth', 'iter_6.pth']
    assert names(cfg.work_dir) == ['iter_14.pth', 'iter_15.pth']
    last = Path(cfg.work_dir, 'last_checkpoint').read_text()
    assert last == f'{cfg.work_dir}/iter_15.pth'


def test_kill_between_save_and_removal_leaves_nothing_behind(cfg, tmp_path):
    run(cfg)
    folder = Path(cfg.work_dir)
    # As if the run had been killed just after it had written iter_14.
    (folder / 'iter_15.pth').unlink()
    for iteration in (10, 12):  # 10 was outdated
        (folder / f'iter_{iteration}.pth').touch()
    run(cfg, resume=folder / 'iter_14.pth')
    assert names(folder) == ['iter_14.pth', 'iter_15.pth']


def test_full_disk_is_loud_and_the_run_goes_on(cfg, monkeypatch, caplog):
    disk = Full(monkeypatch, 'iter_6.pth', 'iter_8.pth')
    whole, losses = run(cfg)
    assert len(losses.values) == 15
    assert disk.seen['iter_10.pth'] == ['iter_2.pth', 'iter_4.pth']
    assert names(cfg.work_dir) == ['iter_14.pth', 'iter_15.pth']
    assert not [*Path(cfg.work_dir).glob('.*tmp*')]


def test_failed_save_says_what_to_do(cfg, monkeypatch):
    Full(monkeypatch, 'iter_6.pth')
    messages = []

    class Listen(Hook):
        def before_train(self, runner):
            runner.logger.error = messages.append

    run(cfg, Listen())
    (message,) = messages
    for part in (
        'NO CHECKPOINT WAS SAVED',
        'No space left on device',
        'bytes were not written',
        f"'{cfg.work_dir}/iter_6.pth'",
        'iter_4.pth is kept',
        'max_keep_ckpts',
    ):
        assert part in message


def test_run_whose_last_save_fails_fails(cfg, monkeypatch):
    Full(monkeypatch, 'iter_15.pth')
    with pytest.raises(OSError, match='No space left on device.*iter_15'):
        run(cfg)
    assert names(cfg.work_dir) == ['iter_12.pth', 'iter_14.pth']
    last = Path(cfg.work_dir, 'last_checkpoint').read_text()
    assert last.endswith('iter_14.pth')
    hub = read_checkpoint(last)['message_hub']['runtime_info']
    assert hub['last_ckpt'] == last


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 512 KiB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    done = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip('no right to mount a small disk')
    yield folder
    subprocess.run(['umount', '--lazy', str(folder)], check=True)


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
                found.extend(names(work))
                left.extend(work.glob('.*tmp*'))
                ballast.unlink()

    found, left = [], []
    expected, _ = run(cfg)
    cfg.work_dir = str(work)
    done, losses = run(cfg, Fill())
    assert found == ['iter_2.pth', 'iter_4.pth']
    assert left == []
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


def test_checkpoints_of_epochs_resume_exactly(cfg, tmp_path):
    cfg.default_hooks.checkpoint.update(by_epoch=True, interval=1)
    whole, expected = run(cfg)
    cfg.work_dir = str(tmp_path / 'resumed')
    resumed, losses = run(cfg, resume=f'{whole.work_dir}/epoch_2.pth')
    assert losses.values == expected.values[10:]
    assert_same_state(resumed, whole)
