#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Run a list of pre-trainings, evaluate each, and compare with the paper.

Runs tools/train.py for each variant of a list (see configs/sweeps) and each
seed, in a folder below the work directory, then the evaluations on its last
checkpoint. All scores go into one table (sweep.md, .csv and .json), with the
paper's rows where the data are the paper's. Run the same command again to
continue: what is done is not repeated, what was interrupted is resumed. A
variant that fails is named with its log, and the others continue.

A list is a Python file with ``variants``, each a dict of name, config and
cfg_options (what the variant is about: no --cfg-options change it), the
configs of their ``evaluations`` and ``detection``, and the paper's ``table``.
Of --cfg-options, a setting below a part that only some configs have goes to
these alone: model.search_neck.mid_channels to SCFS, not to DINO.

With --slurm every variant is a job that runs this tool on one node; run it
again with --table-only for the table. sbatch reads SBATCH_ACCOUNT, _TIMELIMIT,
_QOS and the like from the environment, and CPUS_PER_TASK (default: 9) is the
number of cores for each GPU.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from command_line import make_parser, setting
from launch import TOOLS, add_run_options, commanded, run_steps

EXAMPLES = """
examples:
  # the contrast modes of Table 7 on 8 GPUs; first only the commands
  python tools/sweep.py configs/sweeps/contrast-modes_in100.py --gpus 8 --dry-run
  python tools/sweep.py configs/sweeps/contrast-modes_in100.py --gpus 8
  # two of them with three seeds: the table has their mean as well
  ... --variants dino scfs --seeds 0 1 2
  # as Slurm jobs, then the table
  ... --gpus 8 --slurm gpu
  python tools/sweep.py configs/sweeps/contrast-modes_in100.py --table-only
  # small, on the demo's scenes: minutes a variant on a CPU
  python tools/sweep.py configs/sweeps/contrast-modes_digits.py
  # your own images; k-NN has a bank that linear probing lacks
  ... --cfg-options train_dataloader.dataset.data_root=my/images \\
      train_cfg.max_epochs=100 --eval-cfg-options \\
      test_dataloader.dataset.data_root=my/images \\
      test_cfg.bank_dataloader.dataset.data_root=my/images
"""  # noqa: E501


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'list', help='list of variants, e.g. one of configs/sweeps'
    )
    add_run_options(parser, 'sweep_<list>')
    parser.add_argument(
        '--variants', nargs='+', metavar='NAME', help='run only these'
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0],
        metavar='N',
        help='run each variant with each of these seeds (default: 0)',
    )
    parser.add_argument(
        '--slurm',
        metavar='PARTITION',
        help='submit one job for each variant; needs --gpus',
    )
    parser.add_argument(
        '--eval-cfg-options',
        nargs='+',
        type=setting,
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='more settings of every evaluation and detector',
    )
    parser.add_argument(
        '--skip-evaluations', action='store_true', help='only pre-train'
    )
    parser.add_argument(
        '--table-only',
        action='store_true',
        help='run nothing, write the table of what there is',
    )
    args = parser.parse_args(argv)
    if not Path(args.list).is_file():
        parser.error(
            f'no list {args.list!r}: name one, e.g. of configs/sweeps'
        )
    for seed in args.seeds:
        if seed < 0:
            parser.error(f'--seeds {seed} must be 0 or more')
    if args.slurm and not args.gpus:
        parser.error('--slurm needs --gpus: the number of GPUs of a job')
    if args.slurm and args.table_only:
        parser.error('--table-only runs nothing: leave out --slurm')
    args.work_dir = args.work_dir or Path(
        'work_dirs', f'sweep_{Path(args.list).stem}'
    )
    return args


def make_jobs(
    args: argparse.Namespace, variants: Sequence[str]
) -> dict[str, list[str]]:
    """Return the sbatch command of every variant, which runs this tool.

    Args:
        args (argparse.Namespace): Those of the sweep.
        variants (Sequence[str]): Names of those that are not done.
    """
    cores = int(os.environ.get('CPUS_PER_TASK', 9)) * args.gpus
    jobs = {}
    for name in variants:
        job = [sys.executable, str(TOOLS / 'sweep.py'), args.list]
        job += ['--work-dir', str(args.work_dir), '--variants', name]
        job += ['--seeds', *map(str, args.seeds), '--gpus', str(args.gpus)]
        if args.skip_evaluations:
            job.append('--skip-evaluations')
        if args.cfg_options:
            job += ['--cfg-options', *args.cfg_options]
        if args.eval_cfg_options:
            job += ['--eval-cfg-options', *args.eval_cfg_options]
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
        ValueError: sbatch is missing.
    """
    refused = 0
    for name, command in jobs.items():
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ValueError(
                '--slurm: no sbatch on the PATH: run this on a login node'
            ) from error
        if done.returncode:
            refused = 1
            print(f'{name}: {done.stderr.strip()}', file=sys.stderr)
        else:
            print(f'{name}: job {done.stdout.strip()}')
    if not jobs:
        print('nothing to submit: everything is done')
    return refused


@commanded
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: everything is done (or submitted), 1: something failed, 2: the sweep
    cannot start, 130: stopped.
    """
    args = parse_args(argv)

    # After parsing, so that --help and a wrong option answer at once.
    from sweep_list import read_list
    from sweep_report import recall, report
    from sweep_steps import make_steps

    sweep = read_list(args.list)
    names = [variant.name for variant in sweep.variants]
    for name in args.variants or ():
        if name not in names:
            raise ValueError(
                f'--variants {name}: {args.list} has {", ".join(names)}'
            )
    recall(sweep, args)
    steps = make_steps(sweep, args)
    wanted = [
        step
        for step in steps
        if step.origin.seed in args.seeds
        and step.origin.variant.name in (args.variants or names)
    ]
    pending = [step for step in wanted if step.missing()]
    commands = [step.command(args.gpus) for step in pending]
    if args.slurm:
        left = dict.fromkeys(step.origin.variant.name for step in pending)
        jobs = make_jobs(args, [*left])
        if not args.dry_run:
            return submit(jobs)
        commands = [*jobs.values()]
    if args.dry_run:
        for command in commands:
            print(shlex.join(command))
        return 0

    def write(is_last: bool = False) -> int:
        # Other calls may have started more.
        shown = [s for s in steps if s in wanted or s.origin.folder.is_dir()]
        return report(sweep, shown, args.work_dir, is_last)

    if not args.table_only:
        write()
        run_steps(pending, args.gpus, write)
    code = write(is_last=True)
    return code or int(any(step.missing() for step in wanted))


if __name__ == '__main__':
    raise SystemExit(main())
