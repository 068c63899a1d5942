# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the commands have in common."""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # else --help would wait for torch
    from mmengine.config import Config
    from mmengine.runner import Runner

PREFIX = 'mmscfs::'
# Functions of loops, in which a run has begun.
STEPS = {'run_epoch', 'run_iter', '__next__'}
# Beside the tools, in a checkout and where they are installed.
CONFIGS = Path(__file__).resolve().parents[1] / 'configs'


# A word, or what follows its "=", that begins with the home directory.
HOME = re.compile(r'(^|=)~(?=/|$)')


class Parser(argparse.ArgumentParser):
    """argparse's, which puts the home directory for ``~`` in every path.

    A shell does so only at the beginning of a word.
    """

    def parse_known_args(self, args=None, namespace=None):  # type: ignore
        """Parse the command line."""
        words = sys.argv[1:] if args is None else args
        home = os.path.expanduser('~')
        words = [
            HOME.sub(lambda found: found[1] + home, word)
            if isinstance(word, str)
            else word
            for word in words
        ]
        return super().parse_known_args(words, namespace)


def make_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """Return a parser whose help keeps the lines of its texts."""
    return Parser(
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def setting(text: str) -> str:
    """Check that a word is KEY=VALUE; a type of argparse."""
    if '=' not in text:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not KEY=VALUE, e.g. train_cfg.max_epochs=100'
        )
    return text


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """Return the settings of KEY=VALUE words, as mmengine reads them."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--words', nargs='*', action=DictAction)
    return parser.parse_args(['--words', *words]).words or {}


class SettingsAction(argparse.Action):
    """Collects KEY=VALUE words as a dict of settings."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Put the settings into the namespace."""
        before = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, before | read_settings(values))


def add_cfg_options(parser: argparse.ArgumentParser, example: str) -> None:
    """Add the option that overrides settings of a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        type=setting,
        action=SettingsAction,
        metavar='KEY=VALUE',
        help=f'override settings of the config, e.g. {example}',
    )


def add_common_options(
    parser: argparse.ArgumentParser, cfg_example: str
) -> None:
    """Add the options that every run of a config has."""
    parser.add_argument(
        '--work-dir',
        help='folder for logs and results (default: work_dirs/<config>)',
    )
    add_cfg_options(parser, cfg_example)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='set by the dist_*.sh and slurm_*.sh scripts (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS
    )


def add_pretrained_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a pre-training checkpoint."""
    parser.add_argument(
        '--pretrained',
        metavar='CHECKPOINT',
        help="take the model's backbone (and the last stage of a C4 "
        'detector) from a pre-training checkpoint: of mmscfs, mmpretrain, '
        'mmselfsup, torchvision, timm, or the releases of SCFS, DINO and '
        'MoCo; all of it is loaded, or the command stops',
    )
    parser.add_argument(
        '--network',
        choices=['teacher', 'student'],
        help='which network of --pretrained (default: the teacher where '
        'there is one)',
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if there is no config.

    A config is a file, or named as in ``mmscfs::scfs_r50.py``.
    """
    args = parser.parse_args()
    name = args.config
    if name.startswith(PREFIX):
        from mmscfs.hub import find_config

        try:
            args.config = find_config(name)
        except FileNotFoundError as error:
            parser.error(str(error))
    if not Path(args.config).is_file():
        parser.error(
            f'no config file {name!r}; those of mmscfs are below {CONFIGS}, '
            f'and have names such as {PREFIX}scfs_r50.py'
        )
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank or 0))
    return args


def read_config(
    args: argparse.Namespace, for_training: bool = False
) -> 'Config':
    """Read the config with its options, and check that each is read.

    Keeps what was changed for the run's length in ``args.changes``. Exits if
    nothing reads a setting.
    """
    from mmscfs.settings import expand_home, read_config

    args.cfg_options = expand_home(args.cfg_options)
    with errors_in_one_line():
        cfg, args.changes = read_config(
            args.config, args.cfg_options, for_training=for_training
        )
    return cfg


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Exit with one line for an error before the first step of a run.

    Later ones keep their traceback. A type that no registry has is a KeyError
    of mmengine.
    """
    try:
        yield
    except (ValueError, OSError, SyntaxError, KeyError) as error:
        frames = {f.name for f in traceback.extract_tb(error.__traceback__)}
        text = str(error.args[0] if len(error.args) == 1 else error)
        is_ours = not isinstance(error, KeyError) or 'registry' in text
        if not is_ours or frames & STEPS:
            raise
        sys.exit(f'error: {text}')


def merge_common(cfg: 'Config', args: argparse.Namespace) -> None:
    """Put the common options into the config."""
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)


def build_runner(cfg: 'Config', changes: Sequence[str] = ()) -> 'Runner':
    """Build the runner, of the type that the config names, if it does.

    Args:
        cfg (Config): The config.
        changes (Sequence[str]): Lines for the log, see :func:`read_config`.
            Defaults to none.

    Raises:
        ValueError: Its model needs operators of mmcv that are not installed.
    """
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from mmscfs.engine.hooks import LengthHook
    from mmscfs.engine.runner_access import unwrapped_model
    from mmscfs.ops import check_operators, describe_operators

    if 'runner_type' in cfg:
        runner = RUNNERS.build(cfg)
    else:
        runner = Runner.from_cfg(cfg)
    runner.register_hook(LengthHook())
    for line in (describe_operators(), *changes):
        runner.logger.info(line)
    check_operators(unwrapped_model(runner))
    return runner
