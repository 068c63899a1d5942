# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Several processes, some of them killed; several nodes, one of them lost."""

import copy
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from commands import ROOT, load_tool
from mmengine.runner import Runner
from processes_that_meet import become_rank, free_port, two_nodes

from mmscfs.checkpoint import read_checkpoint
from mmscfs.engine import prepare_config

torchrun_options = load_tool('processes').torchrun_options
NAMES = ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'MAX_RESTARTS', 'PORT')
# Ends as train.py does after a signal. Without torch, which takes long.
WORKER = """
import os, signal, sys, time
from pathlib import Path

for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: sys.exit(75))
Path(sys.argv[1], os.environ['RANK']).write_text(str(os.getpid()))
time.sleep(600)
"""


def wait_for(condition, seconds):
    """Wait until something is true; return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise TimeoutError(f'not within {seconds} s')


def marked(mark):
    """Return the ids of living processes that have a mark."""
    found = []
    for path in Path('/proc').glob('[0-9]*'):
        try:
            state = (path / 'stat').read_text().rpartition(')')[2].split()[0]
            if mark.encode() in (path / 'environ').read_bytes():
                found += [int(path.name)] * (state != 'Z')
        except OSError:  # it has ended, or is not ours
            continue
    return found


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a command with its own mark."""
    started = []

    def run(command, **environment):
        mark = f'mark-{uuid.uuid4().hex}'
        log = open(tmp_path / f'{len(started)}.log', 'w')  # noqa: SIM115
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                'OMP_NUM_THREADS': '1',
                'PYTHON': sys.executable,
                'MARK': mark,
                **environment,
            },
        )
        process.mark, process.log = mark, Path(log.name)
        started.append(process)
        log.close()
        return process

    yield run
    for process in started:
        for pid in marked(process.mark):
            os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def two_processes(start, tmp_path):
    """The launcher and the ids of its two processes, at work."""
    script = tmp_path / 'worker.py'
    script.write_text(WORKER)
    launcher = start(
        [sys.executable, 'tools/processes.py', '2', script, tmp_path]
    )
    files = [tmp_path / rank for rank in '01']
    wait_for(lambda: all(file.is_file() for file in files), 120)
    wait_for(lambda: all(file.read_text() for file in files), 5)
    return launcher, [int(file.read_text()) for file in files]


def test_a_killed_process_ends_all_in_bounded_time(two_processes):
    launcher, pids = two_processes
    os.kill(pids[1], signal.SIGKILL)
    assert launcher.wait(45) == 128 + signal.SIGKILL
    assert (
        f'error: process 1 (pid {pids[1]}) was killed by SIGKILL, and all '
        'others were ended with it' in launcher.log.read_text()
    )
    assert not marked(launcher.mark)


@pytest.mark.parametrize('to', ['launcher', 'process'])
def test_a_signal_ends_the_run_in_good_order(two_processes, to):
    """Sent to the launcher, or by a cluster to one process alone."""
    launcher, pids = two_processes
    if to == 'launcher':
        launcher.send_signal(signal.SIGUSR1)
    else:
        os.kill(pids[0], signal.SIGTERM)
    assert launcher.wait(45) == 75
    assert not marked(launcher.mark)


def test_two_runs_start_on_one_node_at_once(start, tmp_path):
    script = tmp_path / 'worker.py'
    script.write_text(WORKER)
    folders = [tmp_path / 'a', tmp_path / 'b']
    launchers = []
    for folder in folders:
        folder.mkdir()
        launchers.append(
            start([sys.executable, 'tools/processes.py', '1', script, folder])
        )
    wait_for(lambda: all((f / '0').is_file() for f in folders), 120)
    assert [launcher.poll() for launcher in launchers] == [None, None]


@pytest.mark.parametrize(('note', 'code'), [('1', 1), ('0', 75)])
def test_a_run_that_could_not_save_is_not_started_again(
    note, code, start, tmp_path
):
    """What a process exits with is not known after a signal."""
    ended = f"(Path(os.environ['MMSCFS_SAVE_FAILED']).write_text({note!r})"
    script = tmp_path / 'worker.py'
    script.write_text(
        WORKER.replace('sys.exit(75)', f'{ended}, sys.exit({code}))')
    )
    launcher = start(
        [sys.executable, 'tools/processes.py', '1', script, tmp_path]
    )
    started = tmp_path / '0'
    wait_for(lambda: started.is_file() and started.read_text(), 120)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(45) == code
    told = 'error: ended by SIGTERM, and not saved' in launcher.log.read_text()
    assert told is (code == 1)


@pytest.fixture
def settings(monkeypatch):
    """Set the variables that the launcher reads, and no others of them."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)

    def settings(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return settings


@pytest.mark.parametrize('words', [['--resume'], ['--resume=a.pth']])
def test_restarts_take_any_way_to_resume(words, settings):
    settings(MAX_RESTARTS='2')
    assert '--max-restarts=2' in torchrun_options('2', words)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (dict(NNODES='two'), "NNODES='two' must be a whole number from 1"),
        (dict(NNODES='2'), 'NNODES=2 needs MASTER_ADDR'),
        (dict(NODE_RANK='1'), 'NODE_RANK=1 must be below NNODES=1'),
        (dict(MAX_RESTARTS='1'), 'MAX_RESTARTS=1 .* add --resume'),
        (
            dict(MASTER_ADDR='no.such.host.invalid', NNODES='2'),
            "MASTER_ADDR='no.such.host.invalid' cannot be reached",
        ),
    ],
)
def test_wrong_settings_are_named(values, message, settings):
    settings(**values)
    with pytest.raises(ValueError, match=message):
        torchrun_options('2', [])


def train_part(rank, cfg, port):
    """Train as one of two processes."""
    become_rank(rank, port)
    prepare_config(cfg)
    Runner.from_cfg(cfg).train()
    torch.distributed.destroy_process_group()


@pytest.fixture
def nodes():
    """Two nodes, see two_nodes."""
    with two_nodes() as nodes:
        yield nodes


def test_a_lost_node_comes_back_and_the_run_ends_as_if_it_had_not(
    tiny_run, nodes, start, tmp_path
):
    tiny_run.launcher = 'pytorch'
    tiny_run.sync_bn = 'torch'
    tiny_run.log_level = 'INFO'  # says what was resumed
    tiny_run.train_cfg.max_epochs = 8
    whole = copy.deepcopy(tiny_run)
    whole.work_dir = str(tmp_path / 'whole')
    mp.start_processes(
        train_part, (whole, free_port()), 2, start_method='fork'
    )
    config = tmp_path / 'config.py'
    tiny_run.dump(config)
    port = str(free_port())

    def start_node(rank):
        return start(
            [*nodes[rank].command, 'bash', ROOT / 'tools/dist_train.sh',
             config, '1', '--resume', '--work-dir', tiny_run.work_dir],
            NNODES='2',
            NODE_RANK=str(rank),
            MASTER_ADDR=nodes[0].name,
            PORT=port,
            MAX_RESTARTS='3',
        )  # fmt: skip

    kept, lost = start_node(0), start_node(1)
    work = Path(tiny_run.work_dir)
    wait_for((work / 'epoch_1.pth').is_file, 300)
    for pid in marked(lost.mark):
        os.kill(pid, signal.SIGKILL)
    assert not (work / 'epoch_8.pth').exists()
    back = start_node(1)
    assert kept.wait(300) == 0, kept.log.read_text()
    assert back.wait(60) == 0, back.log.read_text()
    for process in (kept, lost, back):
        assert not marked(process.mark)
    # By process 0, on the node whose address comes first as text.
    assert 'resumed epoch' in kept.log.read_text() + back.log.read_text()
    found, expected = (
        read_checkpoint(f'{folder}/epoch_8.pth')
        for folder in (work, whole.work_dir)
    )
    assert found['meta']['iter'] == expected['meta']['iter'] == 16
    for key, value in expected['state_dict'].items():
        assert torch.equal(found['state_dict'][key], value), key
    states = found['optimizer']['state'], expected['optimizer']['state']
    assert states[0].keys() == states[1].keys()
    for index, state in states[1].items():
        for name, value in state.items():
            assert torch.equal(states[0][index][name], value), (index, name)
