# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""A sweep as Slurm jobs: one a variant, which runs tools/sweep.py for it."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch import TOOLS
from sweep_runs import Step


def make_jobs(
    args: argparse.Namespace, pending: Sequence[Step]
) -> dict[str, list[str]]:
    """Return the sbatch command of every variant that is not done.

    Args:
        args (argparse.Namespace): Those of the sweep.
        pending (Sequence[Step]): What there is to do.
    """
    cores = int(os.environ.get('CPUS_PER_TASK', 9)) * args.gpus
    jobs = {}
    for name in dict.fromkeys(step.run.variant.name for step in pending):
        job = [sys.executable, str(TOOLS / 'sweep.py'), args.list]
        job += ['--work-dir', str(args.work_dir), '--variants', name]
        job += ['--seeds', *map(str, args.seeds), '--gpus', str(args.gpus)]
        if args.skip_evaluations:
            job.append('--skip-evaluations')
        for option in ('cfg_options', 'eval_cfg_options'):
            if words := getattr(args, option):
                job += [f'--{option.replace("_", "-")}', *words]
        jobs[name] = [
            'sbatch',
            '--parsable',
            f'--partition={args.slurm}',
            f'--job-name={Path(args.list).stem}_{name}',
            '--nodes=1',
            '--ntasks=1',
            f'--gres=gpu:{args.gpus}',
            f'--cpus-per-task={cores}',
            f'--output={args.work_dir}/slurm_{name}_%j.log',
            f'--wrap=exec {shlex.join(job)}',
        ]
    return jobs


def submit(jobs: Mapping[str, Sequence[str]]) -> int:
    """Submit jobs; return 0, or 1 if Slurm refused one.

    Raises:
        ValueError: There is no sbatch.
    """
    refused = 0
    for name, command in jobs.items():
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ValueError(
                '--slurm: no sbatch on the PATH; call it on a login node'
            ) from error
        if done.returncode:
            refused = 1
            print(f'{name}: {done.stderr.strip()}', file=sys.stderr)
        else:
            print(f'{name}: job {done.stdout.strip()}')
    if not jobs:
        print('nothing to submit: everything is done')
    return refused
