#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Run a list of pre-trainings, evaluate each, and set them beside the paper.

Runs tools/train.py for each variant of a list (see configs/sweeps) and each
seed, in a folder of its own below the work directory, then the evaluations on
its last checkpoint, and gathers the scores in one table, with the paper's
rows where the data are the paper's: sweep.md, .csv and .json. Called again it
goes on: what is done is not repeated, what was interrupted is resumed. A
variant that fails is named with its log, and the others go on.

A list is a Python file with ``variants``, each a dict of name, config and
cfg_options (what it is about, whatever --cfg-options say), the configs of
their ``evaluations`` and ``detection``, and the paper's ``table``. Of
--cfg-options, a setting below a part that only some configs have goes to
these alone: model.search_neck.mid_channels to SCFS, not to DINO.

With --slurm every variant is a job that runs this tool on one node; call it
again with --table-only for the table. sbatch reads SBATCH_ACCOUNT, _TIMELIMIT,
_QOS and the like from the environment, and CPUS_PER_TASK (default: 9) is the
number of cores for each GPU.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

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
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'list', help='list of variants, e.g. of configs/sweeps'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        metavar='FOLDER',
        help='for the runs and the table (default: work_dirs/sweep_<list>)',
    )
    parser.add_argument(
        '--variants', nargs='+', metavar='NAME', help='only these'
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0],
        metavar='N',
        help='run each variant with each of them (default: 0)',
    )
    parser.add_argument(
        '--gpus',
        type=int,
        metavar='N',
        help='run tools/dist_*.sh with this many processes, each with the '
        "config's batch size",
    )
    parser.add_argument(
        '--slurm',
        metavar='PARTITION',
        help='submit a job a variant; needs --gpus',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='more settings of every pre-training; those of the variants '
        'have the last word',
    )
    parser.add_argument(
        '--eval-cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='more settings of every evaluation',
    )
    parser.add_argument(
        '--skip-evaluations', action='store_true', help='only pre-train'
    )
    parser.add_argument(
        '--table-only',
        action='store_true',
        help='run nothing, gather what there is',
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='only print the commands'
    )
    args = parser.parse_args(argv)
    if not Path(args.list).is_file():
        parser.error(
            f'no list {args.list!r}: name one, e.g. of configs/sweeps'
        )
    for option in (*args.cfg_options, *args.eval_cfg_options):
        if '=' not in option:
            parser.error(f'{option!r} is no KEY=VALUE')
    for seed in args.seeds:
        if seed < 0:
            parser.error(f'--seeds {seed} must be 0 or above')
    if args.gpus is not None and args.gpus < 1:
        parser.error(f'--gpus {args.gpus} must be 1 or more')
    if args.slurm and not args.gpus:
        parser.error('--slurm needs --gpus: the number of a job')
    if args.slurm and args.table_only:
        parser.error('--table-only runs nothing: leave out --slurm')
    args.work_dir = args.work_dir or Path(
        'work_dirs', f'sweep_{Path(args.list).stem}'
    )
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: everything is done (or submitted), 1: something failed, 2: there can
    be no sweep.
    """
    args = parse_args(argv)

    # After parsing, so that --help and a wrong option answer at once.
    from sweep_list import read_list
    from sweep_report import recall, report
    from sweep_runs import find_runs, make_steps, run_steps
    from sweep_slurm import make_jobs, submit

    try:
        sweep = read_list(args.list)
        names = [variant.name for variant in sweep.variants]
        for name in args.variants or ():
            if name not in names:
                raise ValueError(
                    f'--variants {name}: {args.list} has {", ".join(names)}'
                )
        recall(sweep, args)
        steps = make_steps(sweep, find_runs(sweep, args), args)
        pending = [step for step in steps if not step.is_done()]
        if args.slurm:
            jobs = make_jobs(args, pending)
            if not args.dry_run:
                return submit(jobs)
            pending_commands = list(jobs.values())
        else:
            pending_commands = [step.command(args.gpus) for step in pending]
        if args.dry_run:
            for command in pending_commands:
                print(shlex.join(command))
            return 0
        problems: dict[str, str] = {}
        if not args.table_only:
            run_steps(
                pending,
                args.gpus,
                problems,
                lambda: report(sweep, args, problems),
            )
        code = report(sweep, args, problems, is_last=True)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('stopped; the same command goes on', file=sys.stderr)
        return 130
    return code or int(not all(step.is_done() for step in steps))


if __name__ == '__main__':
    # As Ctrl-C does: the run that is under way must not go on without us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    raise SystemExit(main())
