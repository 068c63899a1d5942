# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What the commands have in common: options, and reading a config."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from command_paths import checkpoint, existing

if TYPE_CHECKING:  # else --help would wait for torch
    from mmengine.config import Config

# Settings that name a file or folder.
PATHS = (
    *('ann_file', 'checkpoint', 'data_prefix', 'data_root', 'load_from'),
    'work_dir',
)
UNKNOWN = 'unrecognized arguments: '  # as argparse begins such an error
# A word, or what follows its "=", that begins with the home directory.
HOME = re.compile(r'(^|=)~(?=/|$)')


class Parser(argparse.ArgumentParser):
    """argparse's, with one line for an error.

    It puts the home directory for ``~`` in every path; a shell does so only
    at the beginning of a word.
    """

    def error(self, message: str) -> NoReturn:
        """Exit with code 2, without the usage, which would hide the error."""
        if message.startswith(UNKNOWN):
            word = message.removeprefix(UNKNOWN).split()[0].split('=')[0]
            options = self._option_string_actions
            near = difflib.get_close_matches(word, options, 1)
            message += f'; did you mean {near[0]}?' if near else '; see --help'
        self.exit(2, f'error: {message}\n')

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


def say_stopped(kind: type, error: BaseException, trace: Any) -> None:
    """Print one line for Ctrl-C, else the traceback: ``sys.excepthook``.

    Python ends the process by the signal, which a shell shows as 130.
    """
    if issubclass(kind, KeyboardInterrupt):
        print('stopped', file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def make_parser(description: str, examples: str) -> argparse.ArgumentParser:
    """Return the parser of a command that Ctrl-C ends with one line.

    Its help keeps the lines of its texts.
    """
    sys.excepthook = say_stopped
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


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return the type of an option that counts, from least to most."""
    limits = f'>= {least}' + (f' and <= {most}' if most is not None else '')

    def read(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= (most or int(text)):
            return int(text)
        raise argparse.ArgumentTypeError(
            f'{text} must be a whole number {limits}'
        )

    return read


def number(
    is_valid: Callable[[float], bool], wanted: str
) -> Callable[[str], float]:
    """Return the type of an option that is a number.

    Args:
        is_valid (Callable): Whether a number will do.
        wanted (str): What it must be, in words.
    """

    def read(text: str) -> float:
        with suppress(ValueError):
            if is_valid(value := float(text)):
                return value
        raise argparse.ArgumentTypeError(f'{text!r} must be {wanted}')

    return read


def add_counts(
    parser: argparse.ArgumentParser, **options: tuple[Any, ...]
) -> None:
    """Add options of whole numbers.

    Args:
        parser (argparse.ArgumentParser): The command's.
        **options (tuple): Of each its help, its default, the least number,
            and the largest if there is one.
    """
    for name, (text, default, *limits) in options.items():
        limit = f', {limits[0]} to {limits[1]}' if len(limits) > 1 else ''
        parser.add_argument(
            f'--{name.replace("_", "-")}',
            type=at_least(*limits),
            default=default,
            metavar='N',
            help=f'{text}{limit} (default: %(default)s)',
        )


def read_settings(words: Sequence[str]) -> dict[str, Any]:
    """Return the settings of KEY=VALUE words, as mmengine reads them.

    But a path is a text, also one like a number or a list ("2024", "a,b").

    Raises:
        ValueError: A value cannot be read.
    """
    from mmengine.config import DictAction

    paths, others = {}, []
    for word in words:
        key, _, text = word.partition('=')
        if key.split('.')[-1] in PATHS and text != 'None':
            is_quoted = text[:1] in ('"', "'") and text[-1:] == text[:1]
            paths[key] = text[1:-1] if is_quoted and len(text) > 1 else text
        else:
            others.append(word)
    parser = argparse.ArgumentParser()
    parser.add_argument('--words', nargs='*', action=DictAction)
    try:
        return (parser.parse_args(['--words', *others]).words or {}) | paths
    except AssertionError as error:
        raise ValueError(f'{" ".join(others)}: {error}') from error


class SettingsAction(argparse.Action):
    """Collects KEY=VALUE words as a dict of settings.

    A ``data_root`` must be there, or elsewhere by an address.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Put the settings into the namespace."""
        before = getattr(namespace, self.dest) or {}
        key = ''
        try:
            settings = read_settings(values)
            for name, path in settings.items():
                # The other paths are below it, or files that a run makes.
                if name.endswith('data_root') and path and '://' not in path:
                    key = f'{name}: '
                    existing(path, 'folder')
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise argparse.ArgumentError(self, f'{key}{error}') from error
        setattr(namespace, self.dest, before | settings)


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
        type=checkpoint,
        metavar='CHECKPOINT',
        help="take the model's backbone (and the last stage of a C4 "
        'detector) from a pre-training checkpoint: of mmscfs, mmpretrain, '
        'mmselfsup, torchvision, timm, or the releases of SCFS, DINO and '
        'MoCo; or weights that mmscfs brings, mmscfs::NAME. All of it is '
        'loaded, or the command stops',
    )
    add_network_option(parser, 'which network of --pretrained')


def add_network_option(
    parser: argparse.ArgumentParser, text: str = 'which network'
) -> None:
    """Add the choice between the two networks of a checkpoint."""
    parser.add_argument(
        '--network',
        choices=['teacher', 'student'],
        help=f'{text} (default: the teacher where there is one)',
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line of a run, which a launcher may have completed."""
    args = parser.parse_args()
    os.environ.setdefault(
        'LOCAL_RANK', str(getattr(args, 'local_rank', 0) or 0)
    )
    return args


def announce(text: str) -> None:
    """Say on a terminal what begins: the imports alone take seconds."""
    if sys.stderr.isatty() and os.environ.get('RANK', '0') == '0':
        print(f'{text} ...', file=sys.stderr, flush=True)


def read_config(
    path: str,
    settings: Mapping | None = None,
    *,
    check: bool = True,
    for_training: bool = False,
    changes: list[str] | None = None,
) -> 'Config':
    """Read a config, and check that something reads each of its settings.

    Args:
        path (str): The file.
        settings (Mapping, optional): Those of ``--cfg-options``.
        check (bool): False for a command whose runs check them. Defaults to
            True.
        for_training (bool): Also check that the run reaches its schedules.
            Defaults to False.
        changes (list[str], optional): Gets a line for each schedule that was
            fitted to the run's length.

    Raises:
        ValueError: It cannot be read, or nothing reads a setting.
    """
    if check:
        announce(f'reading {path}')
    from mmengine.config import Config

    from mmscfs import settings as checked

    try:
        if check:
            cfg, lines = checked.read_config(
                path, settings, for_training=for_training
            )
        else:
            cfg, lines = Config.fromfile(path), []
            cfg.merge_from_dict(dict(settings or {}))
    except ValueError:
        raise
    except Exception as error:  # a config is code, which raises anything
        raise ValueError(
            f'config {path} cannot be read ({type(error).__name__}: {error}): '
            'correct what this names'
        ) from error
    if changes is not None:
        changes += lines
    if settings:
        from mmscfs.engine import apply_multi_crop  # slow

        apply_multi_crop(cfg)
    return cfg


def gather(
    paths: Iterable[str | Path], score: Callable[[Any], Any]
) -> tuple[dict[Any, Any], list[str]]:
    """Score checkpoints.

    Args:
        paths (Iterable): The checkpoints.
        score (Callable): Takes a path, and returns what a table needs.

    Returns:
        tuple[dict, list[str]]: What was returned, by path; and a line for
        each checkpoint that cannot be read or does not fit, or that Ctrl-C
        left out.

    Raises:
        KeyboardInterrupt: It came before any had been scored.
    """
    found, problems = {}, []
    left = iter(paths)
    for path in left:
        try:
            found[path] = score(path)
        except (OSError, ValueError) as error:
            problems.append(f'{path}: {error}')
        except KeyboardInterrupt:
            if not found:
                raise
            problems += [f'{other}: stopped before' for other in (path, *left)]
    return found, problems


def add_out_folder(
    parser: argparse.ArgumentParser, name: str, folder: str = ''
) -> None:
    """Add the folder of a table.

    Args:
        parser (argparse.ArgumentParser): The command's.
        name (str): Of the files, without .md and .csv.
        folder (str): Where they are by default. Defaults to "", the run's.
    """
    parser.add_argument(
        '--out',
        type=Path,
        default=folder or None,
        metavar='FOLDER',
        help=f'where to write {name}.md and .csv (default: {folder or "RUN"})',
    )


def merge_common(cfg: 'Config', args: argparse.Namespace) -> None:
    """Put the common options into the config."""
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    if args.cfg_options:
        from mmscfs.settings import expand_home

        cfg.merge_from_dict(expand_home(args.cfg_options))
