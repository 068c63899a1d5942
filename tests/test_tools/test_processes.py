# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Several processes, some of them killed; several nodes, one of them lost."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from commands import ROOT, load_tool
from processes_that_meet import free_port, two_nodes

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
# Counts steps, each of which all processes take, and resumes as train.py does.
STEPS = 30
COUNTER = f"""
import os, sys, time
from pathlib import Path
import torch, torch.distributed as dist

dist.init_process_group('gloo')
saved = Path(sys.argv[2], 'steps')
step = int(saved.read_text()) if saved.is_file() else 0
print('resumed from step', step, flush=True)
while step < {STEPS}:
    sum = torch.tensor([step, 1])
    dist.all_reduce(sum)
    assert sum.tolist() == [2 * step, 2]
    step += 1
    if dist.get_rank() == 0:
        saved.with_name('new').write_text(str(step))
        saved.with_name('new').replace(saved)
    time.sleep(0.1)
dist.destroy_process_group()
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
def launch(start, tmp_path):
    """Start runs of two processes at once.

    Returns each one's launcher and the ids of its processes, at work.
    """

    def launch(count=1, script=WORKER):
        worker = tmp_path / 'worker.py'
        worker.write_text(script)
        folders = [tmp_path / str(number) for number in range(count)]
        launchers = []
        for folder in folders:
            folder.mkdir()
            words = ['tools/processes.py', '2', worker, folder]
            launchers.append(start([sys.executable, *words]))
        files = [[folder / rank for rank in '01'] for folder in folders]
        every = sum(files, [])
        wait_for(lambda: all(file.is_file() for file in every), 120)
        wait_for(lambda: all(file.read_text() for file in every), 5)
        ids = [[int(file.read_text()) for file in own] for own in files]
        return [*zip(launchers, ids, strict=True)]

    return launch


def test_two_runs_on_a_node_end_each_by_itself(launch):
    """All of one if a process is killed, the other after a notice."""
    (killed, pids), (notified, others) = launch(2)
    os.kill(pids[1], signal.SIGKILL)
    assert killed.wait(45) == 128 + signal.SIGKILL
    assert (
        f'error: process 1 (pid {pids[1]}) was killed by SIGKILL, and all '
        'others were ended with it' in killed.log.read_text()
    )
    assert not marked(killed.mark)
    assert {*others} < {*marked(notified.mark)}
    notified.send_signal(signal.SIGUSR1)
    assert notified.wait(45) == 75
    assert not marked(notified.mark)
    assert 'not saved' not in notified.log.read_text()


def test_a_signal_to_one_process_alone_ends_the_run_in_good_order(launch):
    ((launcher, pids),) = launch()
    os.kill(pids[0], signal.SIGTERM)
    assert launcher.wait(45) == 75
    assert not marked(launcher.mark)


def test_a_run_that_could_not_save_is_not_started_again(launch):
    """What a process exits with is not known after a signal."""
    ended = "(Path(os.environ['MMSCFS_SAVE_FAILED']).write_text('1')"
    script = WORKER.replace('sys.exit(75)', f'{ended}, sys.exit(1))')
    ((launcher, _),) = launch(script=script)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(45) == 1
    told = 'error: ended by SIGTERM, and not saved'
    assert told in launcher.log.read_text()


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


def test_a_lost_node_comes_back_and_the_run_resumes(start, tmp_path):
    """The other's processes fail, and wait for it."""
    worker, saved = tmp_path / 'counter.py', tmp_path / 'steps'
    worker.write_text(COUNTER)
    port = str(free_port())

    def start_node(rank):
        return start(
            [*nodes[rank].command, sys.executable, ROOT / 'tools/processes.py',
             '1', worker, '--resume', tmp_path],
            NNODES='2',
            NODE_RANK=str(rank),
            MASTER_ADDR=nodes[0].name,
            PORT=port,
            MAX_RESTARTS='3',
            GLOO_SOCKET_IFNAME='eth0' if nodes[0].pid else 'lo',
        )  # fmt: skip

    with two_nodes() as nodes:
        kept, lost = start_node(0), start_node(1)
        wait_for(lambda: saved.is_file() and int(saved.read_text()) > 5, 120)
        for pid in marked(lost.mark):
            os.kill(pid, signal.SIGKILL)
        before = int(saved.read_text())
        back = start_node(1)
        assert kept.wait(300) == 0, kept.log.read_text()
        assert back.wait(60) == 0, back.log.read_text()
    for process in (kept, lost, back):
        assert not marked(process.mark)
    assert 5 < before < STEPS == int(saved.read_text())
    steps = re.findall(r'resumed from step (\d+)', kept.log.read_text())
    assert steps[0] == '0'
    assert before <= int(steps[-1]) < STEPS
