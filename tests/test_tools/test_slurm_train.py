# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/slurm_train.sh with stand-ins for Slurm's commands."""

import json
import os
import subprocess
import sys

import pytest
from commands import ROOT

from mmscfs.engine.resume.preemption import REQUEUE

SCRIPT = ROOT / 'tools/slurm_train.sh'
STAND_IN = f"""#!{sys.executable}
import json, os, sys
name = os.path.basename(sys.argv[0])
with open(os.environ['CALLS'], 'a') as file:
    file.write(json.dumps([name, *sys.argv[1:]]) + '\\n')
if name == 'srun':
    sys.exit(int(os.environ.get('CODE', 0)))
if sys.argv[1:2] == ['show']:
    print('JobId=7 JobName=x\\n   JobState=' + os.environ['STATE'])
"""
ODD = ['my config; touch x.py', "work '$(touch y)' dir"]


@pytest.fixture
def slurm(tmp_path):
    """Call the script; return its exit code and the calls it made."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name in ('srun', 'sbatch', 'scontrol'):
        path = folder / name
        path.write_text(STAND_IN)
        path.chmod(0o755)
    calls = tmp_path / 'calls'
    (tmp_path / ODD[0]).touch()

    def call(*options, **environment):
        calls.write_text('')
        done = subprocess.run(
            ['bash', SCRIPT, 'part', 'job name', *ODD, *options],
            cwd=tmp_path,
            env={
                **os.environ,
                'PATH': f'{folder}:{os.environ["PATH"]}',
                'CALLS': str(calls),
                'GPUS': '16',
                'PYTHON': 'python3',
                **environment,
            },
            check=False,
        )
        lines = calls.read_text().splitlines()
        assert not (tmp_path / 'x.py').exists()
        assert not (tmp_path / 'y').exists()
        return done.returncode, [json.loads(line) for line in lines]

    return call


def test_outside_of_a_batch_job(slurm):
    code, ((srun, *words),) = slurm('--seed', '3', CODE='75')
    assert (srun, code) == ('srun', 75)
    assert words[:6] == [
        *('-p', 'part', '--job-name=job name', '--gres=gpu:8'),
        *('--ntasks=16', '--ntasks-per-node=8'),
    ]
    start = words.index('python3')
    assert words[start:] == [
        *('python3', '-u', str(SCRIPT.parent / 'train.py'), ODD[0]),
        *(f'--work-dir={ODD[1]}', '--launcher=slurm', '--seed', '3'),
    ]


def test_batch_job_is_told_before_its_end(slurm, tmp_path):
    code, ((sbatch, *words),) = slurm(
        '--seed', '3', REQUEUE='1', SRUN_ARGS='--time=60 --qos=low'
    )
    assert (sbatch, code) == ('sbatch', 0)
    for word in (
        '--requeue',
        '--signal=USR1@120',
        '--open-mode=append',
        '--ntasks=16',
        '--time=60',
        '--qos=low',
        f'--output={ODD[1]}/slurm_%j.log',
    ):
        assert word in words
    # Slurm gives the script its own words again.
    own = ['part', 'job name', *ODD, '--seed', '3']
    assert words[words.index(str(SCRIPT)) + 1 :] == own
    assert (tmp_path / ODD[1]).is_dir()


@pytest.mark.parametrize('requeue', ['', '1'])
def test_a_config_that_is_not_there_is_not_queued(slurm, tmp_path, requeue):
    (tmp_path / ODD[0]).unlink()
    assert slurm(REQUEUE=requeue) == (2, [])
    assert not (tmp_path / ODD[1]).exists()


JOB = dict(REQUEUE='job', SLURM_JOB_ID='7', STATE='RUNNING')


SHOW, QUEUE = (['scontrol', *w, '7'] for w in (['show', 'job'], ['requeue']))


@pytest.mark.parametrize(
    ('code', 'state', 'asked'),
    [
        (REQUEUE, 'RUNNING', [SHOW, QUEUE]),
        # Of shells for a process that USR1 or TERM has ended.
        (128 + 10, 'RUNNING', [SHOW, QUEUE]),
        (128 + 15, 'RUNNING', [SHOW, QUEUE]),
        (REQUEUE, 'CANCELLED', [SHOW]),
        (0, 'RUNNING', []),
        (1, 'RUNNING', []),
        (137, 'RUNNING', []),
    ],
)
def test_a_job_that_was_asked_to_end_is_queued_again(
    slurm, code, state, asked
):
    found, (words, *calls) = slurm(**{**JOB, 'STATE': state}, CODE=str(code))
    assert found == code
    assert words[0] == 'srun'
    assert '--kill-on-bad-exit=0' in words
    assert words[-1] == '--resume'
    assert calls == asked


@pytest.mark.parametrize(
    'options', [['--resume', 'mine.pth'], ['--resume=mine.pth'], ['--resume']]
)
def test_checkpoint_of_the_user_stays_named(slurm, options):
    """train.py takes the newest in its place, if the run has saved one."""
    for restart in (dict(), dict(SLURM_RESTART_COUNT='1')):
        _, (words,) = slurm(*options, **JOB, **restart)
        start = words.index('--launcher=slurm') + 1
        assert words[start:] == options
