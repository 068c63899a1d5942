# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The tables of tools/sweep.py, and what it remembers in sweep.json."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import check_settings, read_report, show_tables, write_report
from sweep_list import SweepList
from sweep_steps import Detection, Evaluation, Pretraining, SweepStep

from mmscfs.results.paper import arrange

NOTE = (
    'Scores in percent; of trainings those of the last validation, not the '
    'best.'
)


def recall(sweep: SweepList, args: argparse.Namespace) -> None:
    """Check that the work directory is of this sweep, and note it there.

    With ``table_only`` the settings of earlier calls become those of this.

    Raises:
        ValueError: It holds another sweep, or there is nothing to gather.
        OSError: It cannot be read or written.
    """
    path = args.work_dir / 'sweep.json'
    known = read_report(path)
    variants = {
        variant.name: dict(
            config=Path(variant.config).stem,
            cfg_options=[*variant.defaults, *variant.cfg_options],
        )
        for variant in sweep.variants
    }
    if args.table_only:
        if not known:
            raise ValueError(
                f'--table-only: --work-dir {args.work_dir} has no sweep.json: '
                'name the folder of the sweep'
            )
        args.cfg_options = known['cfg_options']
        args.eval_cfg_options = known.get('eval_cfg_options', [])
    settings = dict(cfg_options=args.cfg_options)
    if not args.table_only:
        settings['gpus'] = args.gpus or 1
        if not args.skip_evaluations:
            settings['eval_cfg_options'] = args.eval_cfg_options
    check_settings(path, known, settings)
    check_settings(path, known.get('variants', {}), variants)
    if not args.dry_run:
        variants = known.get('variants', {}) | variants
        write_report(path, known | settings | dict(variants=variants))


def report(
    sweep: SweepList,
    steps: Sequence[SweepStep],
    folder: Path,
    is_last: bool = False,
) -> int:
    """Write sweep.md, .csv and .json.

    Args:
        sweep (SweepList): The list.
        steps (Sequence[SweepStep]): Those that are wanted or have begun.
        folder (Path): Where to.
        is_last (bool): Print the tables too. Defaults to
            False.

    Returns:
        int: The exit code of a command: 1 if the last writing failed.

    Raises:
        OSError: Writing failed before.
    """
    runs: dict[Path, dict[str, Any]] = {}
    problems, entries = {}, []
    for step in steps:
        run = runs.setdefault(
            step.origin.folder,
            dict(
                variant=step.origin.variant.name,
                seed=step.origin.seed,
                work_dir=step.origin.folder.name,
                checkpoint=None,
                scores={},
                problems={},
            ),
        )
        if problem := step.problem or step.missing():
            # Of a pre-training without an end, the others say nothing new.
            if step.start is None or step.start.is_file():
                problems[step.name] = run['problems'][step.stem] = problem
        elif isinstance(step, Pretraining):
            run['checkpoint'] = step.end
        elif isinstance(step, Evaluation):
            entries.append(step.entry())
            run['scores'][step.stem] = entries[-1].scores.get('score')
        elif isinstance(step, Detection):
            entries.append(step.entry())
    path = folder / 'sweep.json'
    write_report(path, read_report(path) | dict(runs=[*runs.values()]))
    problems |= {e.path: e.problem for e in entries if e.problem}
    return show_tables(
        folder / 'sweep.md',
        f'Sweep: {Path(sweep.path).stem}',
        NOTE,
        arrange(entries),
        problems,
        is_last,
    )
