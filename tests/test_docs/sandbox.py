# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""A folder in which a reader's commands run, on small data and networks.

Commands run in this process, as typed but for two changes: ``CUT`` adds
options that take less of the same, and ``shrink`` makes the config of a run
small once all of its settings are in it.
"""

import argparse
import re
import shutil
from pathlib import Path

import pytest
from classification_data import draw, shrink_loader
from commands import CONFIG_FOLDERS, call
from documents import ROOT
from mmengine.config import Config, ConfigDict
from shell import Command

import mmscfs.engine
from mmscfs.engine.prepare import apply_multi_crop

CUT = {
    'grid.py': ['--dry-run'],
    'make_digit_scenes.py': [
        *('--train', '40', '--val', '10', '--size', '64'),
        *('--workers', '0', '--overwrite'),
    ],
    'sweep.py': ['--dry-run'],
}
CHECKPOINT = re.compile(r'(.*/)?(?:epoch|iter)_\d+\.pth')
BATCH = 4
# What each launcher is given, how many words come before the config, and how
# many from there on are not options.
LAUNCHERS = {
    'dist_test.sh': ('CONFIG CHECKPOINT PROCESSES', 0, 3),
    'dist_train.sh': ('CONFIG PROCESSES', 0, 2),
    'slurm_train.sh': ('PARTITION JOB_NAME CONFIG WORK_DIR', 2, 2),
}


class Parsed(BaseException):
    """A command line was accepted; what comes next does not happen."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments


class Sandbox:
    """The folder, with a copy of the configs and tiny data.

    Attributes:
        root (Path): The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT / 'configs', root / 'configs')
        CONFIG_FOLDERS.append(root / 'configs')
        shutil.copy(ROOT / 'README.md', root)
        for i in range(10):
            for folder in ('my/images', 'data/imagenet/train/n0', 'my/other'):
                draw(root / folder / 'a' / f'{i}.jpg', i % 2, i)
        for name, base in (
            ('my_scfs', 'scfs_r50'),
            ('my_det', 'detection/coco/mask-rcnn_r50-fpn_1x_coco'),
        ):  # as tools/recipe.py writes them
            text = f"_base_ = ['configs/{base}.py']\n"
            (root / f'{name}.py').write_text(text)

    def call(self, command: Command, *more: str) -> str:
        """Run one of the project's Python scripts; return its output.

        Raises:
            AssertionError: It failed; has what it printed.
        """
        script, words = str(command.tool), [*command.arguments, *more]
        assert (ROOT / script).is_file(), f'{command}\nno {script}'
        done = call(script, *words, cwd=self.root, **command.environment)
        code, text = done.returncode, done.output[-2000:]
        assert not code, f'{command}\nexit code {code}: {text}'
        return done.output

    def parse(self, command: Command) -> argparse.Namespace:
        """Let a script parse its command line, and no more.

        Raises:
            AssertionError: It refuses it; has what it printed.
        """
        if str(command.tool).endswith('.sh'):
            command = self.launched(command)
        original = argparse.ArgumentParser.parse_args

        def parse_args(parser, *args, **kwargs):
            arguments = original(parser, *args, **kwargs)
            if parser.description:  # else it reads settings alone
                raise Parsed(arguments)
            return arguments

        with pytest.MonkeyPatch.context() as patch:
            # A reader's files are not here, or are here already.
            patch.syspath_prepend(str(ROOT / 'tools'))
            patch.setattr(
                'command_paths.existing', lambda text, *_, **__: text
            )
            patch.setattr('command_line.existing', lambda text, *_: text)
            patch.setattr('command_paths.run_or_file', Path)
            patch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
            try:
                self.call(command)
            except Parsed as parsed:
                return parsed.arguments
        raise AssertionError(f'{command}\nit does not use argparse')

    def launched(self, command: Command) -> Command:
        """Return what a launcher starts."""
        words, name = command.arguments, Path(str(command.tool)).name
        assert name in LAUNCHERS, f'{command}\nno {command.tool}'
        usage, before, after = LAUNCHERS[name]
        assert len(words) >= before + after, f'{command}\nusage: {usage}'
        config, rest = words[before], words[before + after :]
        if name == 'dist_test.sh':  # CONFIG CHECKPOINT PROCESSES
            rest = [words[1], *rest]
        tool = 'tools/test.py' if name == 'dist_test.sh' else 'tools/train.py'
        return Command({}, ['python', tool, config, *rest])

    def run(self, command: Command) -> str:
        """Run a command for real, on less; return its output.

        Raises:
            AssertionError: It failed; has what it printed.
        """
        for word in command.words:
            self.provide(word)
        with pytest.MonkeyPatch.context() as patch:
            prepare = mmscfs.engine.prepare_config
            start = mmscfs.engine.start

            def prepare_small(cfg: Config) -> None:
                apply_multi_crop(cfg)
                cfg.pop('multi_crop', None)  # the pipeline is made smaller
                shrink(cfg)
                prepare(cfg)

            for module in (mmscfs.engine, start):
                patch.setattr(module, 'prepare_config', prepare_small)
            # Each guide has another reader, with empty folders.
            patch.setattr(start, 'check_work_dir', lambda _: None)
            name = Path(str(command.tool)).name
            return self.call(command, *CUT.get(name, []))

    def provide(self, word: str) -> None:
        """Make a checkpoint that a longer run would have made by then."""
        path = self.root / word
        if CHECKPOINT.fullmatch(word) and not path.exists():
            made = sorted(path.parent.glob('*_*.pth'))
            assert made, f'no command before made {word}'
            shutil.copy(made[-1], path)


def shrink(cfg: Config) -> None:
    """Cut a run to an epoch of small images, and its network's width."""
    for split in ('train', 'val', 'test'):
        loop = cfg.get(f'{split}_cfg') or {}
        for loader in (
            cfg.get(f'{split}_dataloader'),
            loop.get('bank_dataloader'),
        ):
            if loader:
                shrink_loader(loader, BATCH)
        for setting, value in (
            ('max_epochs', 1),
            ('max_iters', 2),
            ('val_interval', 1),
            ('ks', [1]),
        ):
            if setting in loop:
                loop[setting] = value
        if loop.get('type') == 'KNNLoop':
            loop.ks = [1]
    if cfg.model.get('queue_len'):
        cfg.model.queue_len = 2 * BATCH
    for part in (cfg.model, *cfg.model.values()):
        if isinstance(part, ConfigDict):
            shrink_part(part)
    cfg.default_hooks.logger.interval = 1
    cfg.log_level = 'WARNING'


def shrink_part(part: ConfigDict) -> None:
    """Make a backbone or neck narrow."""
    kind = part.get('type')
    if kind == 'ResNet' and part.get('base_channels', 64) == 64:
        part.update(stem_channels=8, base_channels=8)
    elif kind == 'DINONeck':
        part.update(
            hidden_channels=16, bottleneck_channels=8, num_prototypes=64
        )
    elif kind == 'FeatureSearchNeck':
        part.update(mid_channels=4, hidden_channels=16, out_channels=8)
