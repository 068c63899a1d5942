#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Run a list of pre-trainings, evaluate each, and compare with the paper.

Runs tools/train.py for each variant of a list (see configs/sweeps) and each
seed, in a folder below the work directory, then the evaluations on its last
checkpoint. All scores go into one table (sweep.md, .csv and .json), with the
paper's rows where the data are the paper's. Run the same command again to
resume: what is done is not repeated, what was interrupted is resumed. A
variant that fails is named with its log, and the others continue.

A list is a Python file with ``variants``, each a dict of name, config and
cfg_options (what the variant is about, which --cfg-options do not change), and
the configs of their ``evaluations`` and ``detection``. A setting of
--cfg-options that belongs to a part that only some configs have goes to these
alone: model.search_neck.mid_channels to SCFS, not to DINO.

On a cluster each variant can be a job (docs/en/ablations.md); --table-only
then writes the table.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from command_end import commanded
from command_line import at_least, make_parser, read_config, read_settings
from command_paths import CONFIGS, file
from jobs import add_run_options, add_words, parse_run

if TYPE_CHECKING:
    from mmengine.config import Config
    from plan import Step

    from mmscfs.results.tables import Summary

EXAMPLES = """
examples:
  # the contrast modes of Table 7 on 8 GPUs; first only the commands
  python tools/sweep.py configs/sweeps/contrast-modes_in100.py --gpus 8 --dry-run
  python tools/sweep.py configs/sweeps/contrast-modes_in100.py --gpus 8
  # the same on two halves of them, two variants at the same time
  ... --gpus 4 --devices 0,1,2,3 4,5,6,7
  # two of them with three seeds: the table has their mean as well
  ... --variants dino scfs --seeds 0 1 2
  # small, on digit scenes: minutes a variant on a CPU
  python tools/sweep.py configs/sweeps/contrast-modes_digits.py
  # your own images; k-NN has a bank that linear probing lacks
  ... --cfg-options train_dataloader.dataset.data_root=my/images \\
      train_cfg.max_epochs=100 --eval-cfg-options \\
      test_dataloader.dataset.data_root=my/images \\
      test_cfg.bank_dataloader.dataset.data_root=my/images
"""  # noqa: E501
NOTE = (
    'Scores in percent; of trainings those of the last validation, not the '
    'best.'
)
NAME = r'(?!.*_seed-)[\w.+-]+'  # of a folder


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'list', type=file, help='list of variants, e.g. one of configs/sweeps'
    )
    add_run_options(parser, 'sweep_<list>')
    parser.add_argument(
        '--variants', nargs='+', metavar='NAME', help='run only these'
    )
    parser.add_argument(
        '--seeds',
        type=at_least(0),
        nargs='+',
        default=[0],
        metavar='N',
        help='run each variant with each of these seeds (default: 0)',
    )
    add_words(
        parser,
        '--eval-cfg-options',
        'more settings of every evaluation and detector',
    )
    parser.add_argument(
        '--skip-evaluations', action='store_true', help='only pre-train'
    )
    parser.add_argument(
        '--table-only',
        action='store_true',
        help='run nothing, write the table of what there is',
    )
    return parse_run(parser, argv, 'sweep')


class Variant(NamedTuple):
    """A pre-training of a list, and what it is evaluated by."""

    name: str  # of its folder
    config: str
    defaults: list[str]  # KEY=VALUE, unless the command says otherwise
    cfg_options: list[str]  # what it is about, whatever the command says
    evaluations: list[str]  # configs that write a result file
    detection: list[str]  # configs of detectors


def read_list(path: str) -> dict[str, Variant]:
    """Read a list; return its variants by name.

    ``evaluations`` and ``detection`` stand beside ``variants``, or in one that
    has its own. Configs that the current folder lacks are this repository's.

    Raises:
        ValueError: Something is missing, unknown, or there twice.
    """
    content = read_config(path, check=False).to_dict()
    given = content.get('variants')
    if not isinstance(given, list) or not given:
        raise ValueError(
            f'{path}: variants={given!r} must be a list, e.g. '
            "[dict(name='scfs', config='configs/scfs_r50.py')]"
        )
    shared = {
        name: content[name]
        for name in ('evaluations', 'detection')
        if name in content
    }
    variants: dict[str, Variant] = {}
    for settings in given:
        try:
            variant = make_variant(shared | dict(settings))
        except (TypeError, ValueError) as error:
            raise ValueError(f'{path}: variant {settings}: {error}') from error
        if variant.name in variants:
            raise ValueError(f'{path}: two variants have name={variant.name}')
        variants[variant.name] = variant
    return variants


def make_variant(settings: Mapping[str, Any]) -> Variant:
    """Return a variant of a list.

    Raises:
        ValueError: A setting is missing, unknown, or no config is there.
    """
    for name in settings:
        if name not in Variant._fields:
            raise ValueError(
                f'{name} is unknown: use {", ".join(Variant._fields)}'
            )
    name = settings.get('name')
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ValueError(
            f'name={name!r} must be a word that names a folder, without '
            '"_seed-", which names seeds'
        )
    evaluations, detection = (
        [find_config(config) for config in settings.get(key, ())]
        for key in ('evaluations', 'detection')
    )
    stems = [Path(config).stem for config in (*evaluations, *detection)]
    if len(set(stems)) < len(stems):
        raise ValueError(f'two evaluations have the same name: {stems}')
    defaults, options = (
        to_words(settings.get(key, {})) for key in ('defaults', 'cfg_options')
    )
    config = find_config(settings.get('config'))
    if not merged(config, [*defaults, *options]).get('train_cfg'):
        raise ValueError(f'{config} has no train_cfg: it does not train')
    return Variant(name, config, defaults, options, evaluations, detection)


def find_config(name: Any) -> str:
    """Return the path of a config, or raise a ValueError."""
    for path in (Path(str(name)), CONFIGS.parent / str(name)):
        if path.is_file():
            return str(path)
    raise ValueError(
        f'no config {name!r}: give a path from here or from {CONFIGS.parent}'
    )


def to_words(options: Mapping[str, Any]) -> list[str]:
    """Return settings as --cfg-options takes them, KEY=VALUE each.

    Raises:
        ValueError: A value would come back as another one.
    """
    from mmscfs.checkpoint import flatten

    words = []
    for key, value in flatten(options) if options else ():
        text = value if isinstance(value, str) else str(value).replace(' ', '')
        words.append(f'{key}={text}')
        if read_settings(words[-1:]) != {key: value}:
            raise ValueError(
                f'cfg_options: {key}={value!r} cannot be given to '
                'tools/train.py --cfg-options: write a config for it'
            )
    return words


# Variants share configs, which are not to be changed. Each run checks them.
load = cache(partial(read_config, check=False))


def merged(path: str, words: Sequence[str]) -> 'Config':
    """Return a config with settings changed, which must fit it."""
    return read_config(path, read_settings(words), check=False)


def share_out(
    words: Sequence[str], configs: Sequence[str]
) -> dict[str, list[str]]:
    """Return which of some settings, KEY=VALUE each, each config gets.

    One below a part that only some configs have goes to these alone: the
    search's to SCFS and not to DINO, a bank's to k-NN. What none of them has
    goes to all.
    """
    from mmscfs.checkpoint import flatten

    keys = {
        c: [f'.{key}.' for key, _ in flatten(load(c).to_dict())]
        for c in configs
    }
    shares: dict[str, list[str]] = {config: [] for config in keys}
    for word in words:
        part = f'.{word.split("=")[0]}'.rpartition('.')[0] + '.'
        takers = [c for c in keys if any(k.startswith(part) for k in keys[c])]
        for config in takers or keys:
            shares[config].append(word)
    return shares


def make_steps(
    variants: Mapping[str, Variant], args: argparse.Namespace
) -> list['Step']:
    """Return the steps of the variants and seeds that the command names.

    Raises:
        ValueError: A setting does not fit a config.
    """
    from plan import Step

    from mmscfs.results import schedule

    first = share_out(args.cfg_options, [v.config for v in variants.values()])
    later = share_out(
        args.eval_cfg_options,
        [c for v in variants.values() for c in (*v.evaluations, *v.detection)],
    )
    steps: list[Step] = []

    def add(name: str, config: str, settings: list[str], **more: Any) -> Step:
        more['length'], more['unit'] = schedule(merged(config, settings))
        step = Step(name=name, config=config, settings=settings, **more)
        steps.append(step)
        return step

    for seed in args.seeds:
        for name in args.variants or variants:
            variant = variants[name]
            run = f'{name}_seed-{seed}' if seed else name
            facts = dict(variant=name, seed=seed)
            settings = [
                # Of two with the same key the last one counts.
                *variant.defaults,
                *first[variant.config],
                *variant.cfg_options,
                f'randomness.seed={seed}',
            ]
            start = add(
                run, variant.config, settings, goal='checkpoint', facts=facts
            )
            for goal, configs in (
                ('result', variant.evaluations),
                ('validation', variant.detection),
            ):
                for config in () if args.skip_evaluations else configs:
                    folder = f'{run}/{Path(config).stem}'
                    more = dict(goal=goal, facts=facts, start=start)
                    add(folder, config, later[config], **more)
    return steps


def arrange(steps: Sequence['Step'], heading: str) -> tuple['Summary', dict]:
    """Return the tables of what is done, beside those of the paper."""
    from mmscfs.results import paper, read_result
    from mmscfs.results.detection import read_run
    from mmscfs.results.evaluations import read_entry
    from mmscfs.results.tables import Summary

    entries = []
    for step in steps:
        if not step.problem and step.goal == 'result':
            result = read_result(step.result)
            entries.append(read_entry(step.result, result, **step.facts))
        elif not step.problem and step.goal == 'validation':
            entries.append(read_run(step.folder)._replace(**step.facts))
    problems = [f'{e.path}: {e.problem}' for e in entries if e.problem]
    return Summary(heading, NOTE, paper.arrange(entries), problems), {}


@commanded('the same command resumes')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: everything is done, 1: something failed, 2: the sweep
    cannot start, 130: stopped.
    """
    args = parse_args(argv)
    from plan import Plan

    variants = read_list(args.list)
    for name in args.variants or ():
        if name not in variants:
            raise ValueError(
                f'--variants {name}: {args.list} has {", ".join(variants)}'
            )
    path = args.work_dir / 'sweep.json'
    settings: dict[str, Any] = {
        name: [Path(v.config).stem, *v.defaults, *v.cfg_options]
        for name, v in variants.items()
    }
    heading = f'Sweep: {Path(args.list).stem}'
    tables = partial(arrange, heading=heading)
    if args.table_only:
        plan = Plan(path, settings, [], tables)
        if not plan.steps:
            raise ValueError(
                f'--table-only: --work-dir {args.work_dir} has no sweep.json '
                'with steps: name the folder of the sweep'
            )
        return plan.write(is_last=True)
    settings |= dict(cfg_options=args.cfg_options, gpus=args.gpus or 1)
    if not args.skip_evaluations:
        settings['eval_cfg_options'] = args.eval_cfg_options
    plan = Plan(path, settings, make_steps(variants, args), tables)
    return plan.carry_out(args)


if __name__ == '__main__':
    raise SystemExit(main())
