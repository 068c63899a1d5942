# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The tables of tools/sweep.py, and what it remembers in sweep.json."""

import argparse
import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from launch import check_settings, read_report
from sweep_list import SweepList, Variant
from sweep_runs import Step, find_runs, make_steps

from mmscfs.checkpoint import write_atomically
from mmscfs.results import detection
from mmscfs.results.classification import arrange, scores_in
from mmscfs.results.tables import Row, Summary, Table

FOOTER = (
    'Scores in percent; of trainings those of the last validation, not the '
    'best.'
)


def describe_variants(variants: Sequence[Variant]) -> dict[str, Any]:
    """Return what makes each pre-training what it is."""
    return {
        variant.name: dict(
            config=Path(variant.config).stem,
            cfg_options=[*variant.defaults, *variant.cfg_options],
        )
        for variant in variants
    }


def recall(sweep: SweepList, args: argparse.Namespace) -> None:
    """Check that the work directory is of this sweep; note in it that it is.

    With ``table_only`` the settings of earlier calls become those of this.

    Raises:
        ValueError: It holds another sweep, or there is nothing to gather.
        OSError: It cannot be read or written.
    """
    path = args.work_dir / 'sweep.json'
    known = read_report(path)
    variants = describe_variants(sweep.variants)
    if args.table_only:
        if not known:
            raise ValueError(
                f'--table-only: --work-dir {args.work_dir} has no sweep.json: '
                'name the one of the sweep'
            )
        args.cfg_options = known['cfg_options']
        args.eval_cfg_options = known.get('eval_cfg_options', [])
    settings = dict(cfg_options=args.cfg_options, gpus=args.gpus or 1)
    if args.table_only:
        settings.pop('gpus')
    elif not args.skip_evaluations:
        settings['eval_cfg_options'] = args.eval_cfg_options
    check_settings(path, known, settings)
    check_settings(path, known.get('variants', {}), variants)
    if args.dry_run:
        return
    content = known | settings
    content['variants'] = known.get('variants', {}) | variants
    args.work_dir.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write sweep.json.

    Raises:
        OSError: It cannot be written.
    """
    text = json.dumps(content, indent=2)
    write_atomically(path, f'{text}\n'.encode())


def report(
    sweep: SweepList,
    args: argparse.Namespace,
    problems: Mapping[str, str],
    is_last: bool = False,
) -> int:
    """Write sweep.md, .csv and .json of all runs that have begun.

    Args:
        sweep (SweepList): The list.
        args (argparse.Namespace): Those of the command.
        problems (Mapping[str, str]): Why steps failed in this call, by name.
        is_last (bool): Print the tables too. Defaults to False.

    Returns:
        int: The exit code of a command: 0, or 1 if writing failed.

    Raises:
        OSError: Writing failed, and it was not the last time.
    """
    steps = make_steps(sweep, find_runs(sweep, args, started=True), args)
    done = [step for step in steps if step.is_done()]
    names = {step.name for step in done}
    missing = {
        step.name: problems.get(step.name) or step.progress()
        for step in steps
        if step.name not in names
        # Those of a pre-training that is not done either say nothing more.
        and (step.kind == 'pre-training' or step.checkpoint.is_file())
    }
    entries = [step.entry() for step in done if step.kind == 'evaluation']
    # The paper's figures are of its data, which may be replaced by another.
    fitting = [e for e in entries if sweep.table and scores_in(e, sweep.table)]
    others = [entry for entry in entries if entry not in fitting]
    tables = []
    for part, number in ((fitting, sweep.table), (others, None)):
        arranged, left_out = arrange(part, number)
        tables += arranged
        missing |= {str(entry.path): why for entry, why in left_out}
    detectors = [
        detection.read_run(step.folder)
        for step in done
        if step.kind == 'detection'
    ]
    tables += detection.arrange(detectors)
    path = args.work_dir / 'sweep.json'
    content = read_report(path)
    content['runs'] = describe_runs(steps, names, missing)
    write_json(path, content)
    unscored = Table(
        'not scored',
        '',
        ('step',),
        (),
        [
            Row((name,), {}, f'{name}: {why}', True)
            for name, why in missing.items()
        ],
    )
    heading = f'Sweep: {Path(sweep.path).stem}'
    summary = Summary(heading, FOOTER, tables, unscored)
    if is_last:
        return summary.publish(args.work_dir / 'sweep.md')
    summary.write(args.work_dir / 'sweep.md')
    return 0


def describe_runs(
    steps: Sequence[Step], done: Set[str], missing: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return what each run has reached, for sweep.json."""
    runs: dict[Path, dict[str, Any]] = {}
    for step in steps:
        run = step.run
        entry = runs.setdefault(
            run.folder,
            dict(
                variant=run.variant.name,
                seed=run.seed,
                work_dir=run.name,
                checkpoint=None,
                scores={},
                problems={},
            ),
        )
        if step.name in missing:
            entry['problems'][step.stem] = missing[step.name]
        elif step.name not in done:
            continue
        elif step.kind == 'pre-training':
            entry['checkpoint'] = step.checkpoint.name
        elif step.kind == 'evaluation':
            entry['scores'][step.stem] = step.entry().score
    return list(runs.values())
