# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Processes that meet, under the variables of each launcher, and agree."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.dist import get_rank
from processes_that_meet import free_port, two_nodes
from toy_runs import in_processes, run, toy_cfg

from mmscfs.checkpoint import loading, read_checkpoint
from mmscfs.engine import meeting
from mmscfs.engine.resume import chooser

MADE = (
    *('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'),
    'GLOO_SOCKET_IFNAME',
)


@pytest.fixture
def variables(monkeypatch):
    """Set variables of a launcher; those made of them end with the test."""
    for name in MADE:
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)

    def set_them(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_them


def task(rank, job, nodes='here', local=0):
    """Slurm's variables of one of two tasks."""
    return dict(
        SLURM_PROCID=str(rank),
        SLURM_NTASKS='2',
        SLURM_LOCALID=str(local),
        SLURM_JOB_ID=str(job),
        SLURM_STEP_ID='2',
        SLURM_STEP_NODELIST=nodes,
    )


@pytest.mark.parametrize(
    ('nodes', 'first'),
    [
        ('gpu7,gpu9', 'gpu7'),
        ('gpu[007-012,020]', 'gpu007'),
        ('rack[2-3]gpu[1,4],login', 'rack2gpu1'),
        ('n[10-11]-ib,n12', 'n10-ib'),
    ],
)
def test_slurms_tasks_meet_at_the_first_node(nodes, first, variables):
    variables(**task(1, 123456, nodes, 3))
    meeting.set_variables('slurm')
    found = {name: os.environ.get(name) for name in MADE[:5]}
    assert found == dict(
        RANK='1',
        WORLD_SIZE='2',
        LOCAL_RANK='3',
        MASTER_ADDR=first,
        MASTER_PORT='15456',  # 10000 + 125456 - 6 x 20000
    )


@pytest.mark.parametrize(('gpus', 'own'), [(0, 3), (1, 0), (2, 1), (4, 3)])
def test_a_task_takes_a_gpu_that_it_sees(gpus, own, variables, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    variables(**task(1, 7, local=3))
    meeting.set_variables('slurm')
    assert os.environ['LOCAL_RANK'] == str(own)


def test_what_is_set_stays(variables):
    variables(**task(0, 7), MASTER_ADDR='there', MASTER_PORT='5')
    meeting.set_variables('slurm')
    assert os.environ['MASTER_ADDR'] == 'there'
    assert os.environ['MASTER_PORT'] == '5'
    meeting.set_variables('slurm', 6)  # env_cfg.dist_cfg.port
    assert os.environ['MASTER_PORT'] == '6'


MPI = dict(
    OMPI_COMM_WORLD_RANK='0',
    OMPI_COMM_WORLD_SIZE='1',
    OMPI_COMM_WORLD_LOCAL_RANK='0',
)


@pytest.mark.parametrize('seconds', ['9 s', 0, 1e9])
def test_a_time_limit_is_a_number_of_seconds(seconds):
    options = dict(dist_cfg=dict(timeout=seconds))
    with pytest.raises(ValueError, match=f'timeout={seconds!r} must be'):
        meeting.time_limit(Config(dict(env_cfg=options)))


@pytest.mark.parametrize(
    ('launcher', 'values', 'message'),
    [
        ('pytorch', {}, 'RANK is not set: start the run by tools/dist_t'),
        ('slurm', {}, 'SLURM_PROCID is not set: .* tools/slurm_train.sh'),
        ('mpi', MPI, '--launcher=mpi: set MASTER_ADDR to the address'),
        (
            'mpi',
            MPI | dict(MASTER_ADDR='no.such.host.invalid'),
            'not meet at MASTER_ADDR=no.such.host.invalid MASTER_PORT=29500',
        ),
    ],
)
def test_what_is_missing_is_named(launcher, values, message, variables):
    variables(**values)
    options = dict(dist_cfg=dict(timeout=9))
    with pytest.raises(ValueError, match=message):
        meeting.meet(Config(dict(launcher=launcher, env_cfg=options)))


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_settings_of_the_group(device, variables, monkeypatch):
    chosen = []
    monkeypatch.setattr(meeting, 'get_device', lambda: device)
    monkeypatch.setattr(torch.cuda, 'set_device', chosen.append)
    port = free_port()
    variables(**MPI, MASTER_ADDR='127.0.0.1')
    options = dict(backend='gloo', timeout=77, port=port)
    cfg = Config(dict(launcher='mpi', env_cfg=dict(dist_cfg=options)))
    meeting.meet(cfg)
    try:
        assert cfg.launcher == 'pytorch'
        assert chosen == [0] * (device == 'cuda')
        assert 'GLOO_SOCKET_IFNAME' not in os.environ
        assert timeout_of(dist.group.WORLD) == timedelta(seconds=77)
    finally:
        dist.destroy_process_group()


def timeout_of(group):
    """How long a group of gloo waits."""
    return group._get_backend(torch.device('cpu')).options._timeout


def meet_as_task(rank, nodes, job):
    """Meet as one of two tasks of a step, each on its node, and add up."""
    nodes[rank].enter()
    is_here = nodes[0].pid is None
    os.environ |= task(rank, job, nodes[0].name if is_here else 'node[0-1]')
    options = dict(dist_cfg=dict(backend='gloo', timeout=60))
    meeting.meet(Config(dict(launcher='slurm', env_cfg=options)))
    assert is_here or os.environ['GLOO_SOCKET_IFNAME'] == 'eth0'
    given = torch.tensor(10**rank)
    dist.all_reduce(given)
    assert given == 11
    dist.destroy_process_group()


@pytest.mark.parametrize('version', [4, 6])
def test_two_nodes_whose_own_names_are_loopback_addresses(version):
    """Under Slurm's variables."""
    with two_nodes(version) as nodes:
        mp.start_processes(
            meet_as_task, (nodes, os.getpid()), 2, start_method='fork'
        )


def add_up(number, first_job):
    """Meet as a task of one of two jobs, and add up what its tasks give."""
    job, rank = divmod(number, 2)
    os.environ |= task(rank, first_job + job, '127.0.0.1', rank)
    meeting.meet(Config(dict(launcher='slurm')))
    given = torch.tensor(10**number)
    dist.all_reduce(given)
    assert given == (11 if job == 0 else 1100)
    dist.barrier()
    dist.destroy_process_group()


def test_two_jobs_start_on_one_node_at_once():
    mp.start_processes(add_up, (2 * os.getpid(),), 4, start_method='fork')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A run's folder of checkpoints."""
    return run(toy_cfg(tmp_path_factory.mktemp('whole')))[0].work_dir


@pytest.fixture
def choose(saved, tmp_path):
    """Return a function: what each of two processes resumes from."""

    def in_process(change):
        """The checkpoint, or why there is none, and the files it checked."""
        checked = []
        check = loading.check_archive
        for module in (chooser, loading):
            module.check_archive = lambda path: (
                checked.append(Path(path).name),
                check(path),
            )
        if get_rank() and change:
            chooser.file_state = change
        cfg = Config(dict(resume=True, work_dir=saved))
        try:
            chooser.choose_checkpoint(cfg)
        except ValueError as error:
            return [str(error), checked]
        read_checkpoint(cfg.load_from)
        return [cfg.load_from, checked]

    return lambda change=None: in_processes(in_process, 2, tmp_path, change)


def test_one_process_checks_the_checkpoint_of_all(choose, saved):
    first, second = choose()
    newest = f'{saved}/iter_15.pth'
    assert first == [newest, ['iter_15.pth']]
    assert second == [newest, []]


def test_a_process_that_does_not_see_the_checkpoint_is_named(choose):
    first, second = choose(lambda path: None)
    assert 'the processes [1] do not see it, or another file: all' in first[0]
    assert second[0] == first[0]


def test_a_copy_on_another_disk_is_checked_there(choose, saved):
    _, second = choose(lambda path: (Path(path).stat().st_size, 7))
    assert second == [f'{saved}/iter_15.pth', ['iter_15.pth']]


def test_all_are_refused_in_the_same_words(choose, saved):
    """The last test: it spoils the checkpoints."""
    for path in Path(saved).glob('*.pth'):
        path.write_bytes(path.read_bytes()[:-100])
    first, second = choose()
    assert first[0].startswith(f'--resume: no whole checkpoint in {saved!r}')
    assert second == [first[0], []]
