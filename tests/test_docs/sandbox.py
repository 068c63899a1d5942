# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""A folder in which a reader's commands run, on small data and networks.

Commands run in this process, as typed but for two changes: ``CUT`` adds
options that take less of the same, and ``shrink`` makes the config of a run
small once all of its settings are in it.
"""

import argparse
import contextlib
import io
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from classification_data import draw
from documents import ROOT
from mmengine.config import Config, ConfigDict
from shell import Command

import mmscfs.engine
from mmscfs.engine.prepare import apply_multi_crop

CUT = {
    'fuzz_annotations.py': ['--seconds', '1'],
    'fuzz_checkpoints.py': ['--seconds', '1'],
    'grid.py': ['--dry-run'],
    'make_digit_scenes.py': [
        *('--train', '40', '--val', '10', '--size', '64'),
        *('--workers', '0', '--overwrite'),
    ],
    'sweep.py': ['--dry-run'],
}
CHECKPOINT = re.compile(r'(.*/)?(?:epoch|iter)_\d+\.pth')
SIZE = 32  # of a global view
BATCH = 4
SECONDS = 300  # of a command, on a machine that is busy
# Stands in for python and for Slurm's commands: notes what it is given.
STAND_IN = '#!/bin/sh\nprintf \'%s\\0\' "$@" >"$GIVEN"\n'


def give_up(*_: Any) -> None:
    """End a command that would hold the tests for ever."""
    raise AssertionError(f'not done in {SECONDS} s: mark what it needs')


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
        shutil.copy(ROOT / 'README.md', root)
        for i in range(10):
            for folder in ('my/images', 'data/imagenet/train/n0', 'my/other'):
                draw(root / folder / 'a' / f'{i}.jpg', i % 2, i)
        self.bin = root / 'bin'
        self.bin.mkdir()
        for name in ('python', 'srun'):
            (self.bin / name).write_text(STAND_IN)
            (self.bin / name).chmod(0o755)

    def call(self, command: Command, *more: str) -> str:
        """Run one of the project's Python scripts; return its output.

        Raises:
            AssertionError: It failed; has what it printed.
        """
        output = io.StringIO()
        with (
            self.in_it(command, more) as script,
            contextlib.redirect_stdout(output),
            contextlib.redirect_stderr(output),
        ):
            code: Any = 0
            signal.signal(signal.SIGALRM, give_up)
            signal.alarm(SECONDS)
            try:
                runpy.run_path(str(script), run_name='__main__')
            except SystemExit as error:
                code = error.code
            finally:
                signal.alarm(0)
        text = output.getvalue()
        if isinstance(code, str):
            code, text = 1, text + code
        assert not code, f'{command}\nexit code {code}: {text[-2000:]}'
        return text

    @contextlib.contextmanager
    def in_it(self, command: Command, more: tuple = ()) -> Iterator[Path]:
        """Be in the folder as if the command were a process of its own."""
        script = ROOT / str(command.tool)
        assert script.is_file(), f'{command}\nno {command.tool}'
        before = set(sys.modules)
        with (
            pytest.MonkeyPatch.context() as patch,
            mock.patch.dict(os.environ, command.environment),
        ):
            patch.chdir(self.root)
            patch.syspath_prepend(str(script.parent))
            argv = [str(script), *command.arguments, *more]
            patch.setattr(sys, 'argv', argv)
            try:
                yield script
            finally:
                for name in set(sys.modules) - before:
                    file = getattr(sys.modules[name], '__file__', None) or ''
                    if str(ROOT / 'tools') in file or str(self.root) in file:
                        del sys.modules[name]

    def parse(self, command: Command) -> argparse.Namespace:
        """Let a script parse its command line, and no more.

        Raises:
            AssertionError: It refuses it; has what it printed.
        """
        if str(command.tool).endswith('.sh'):
            command = self.launched(command)
        original = argparse.ArgumentParser.parse_args

        def parse_args(*args, **kwargs):
            raise Parsed(original(*args, **kwargs))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
            try:
                self.call(command)
            except Parsed as parsed:
                return parsed.arguments
        raise AssertionError(f'{command}\nit does not use argparse')

    def launched(self, command: Command) -> Command:
        """Return what a launcher starts, by stand-ins for what it calls."""
        given = self.root / 'given'
        environment = {
            **os.environ,
            **command.environment,
            'GIVEN': str(given),
            'PYTHON': str(self.bin / 'python'),
            'PATH': f'{self.bin}:{os.environ["PATH"]}',
        }
        environment.pop('REQUEUE', None)  # it starts the same, later
        script = ROOT / str(command.tool)
        assert script.is_file(), f'{command}\nno {command.tool}'
        done = subprocess.run(
            ['bash', str(script), *command.arguments],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, f'{command}\n{done.stderr}'
        words = given.read_text().split('\0')[:-1]
        start = max(
            i
            for i, word in enumerate(words)
            if word.endswith('.py') and Path(word).parent == ROOT / 'tools'
        )
        words[start] = str(Path(words[start]).relative_to(ROOT))
        return Command({}, ['python', *words[start:]])

    def run(self, command: Command) -> str:
        """Run a command for real, on less; return its output.

        Raises:
            AssertionError: It failed; has what it printed.
        """
        for word in command.words:
            self.provide(word)
        with pytest.MonkeyPatch.context() as patch:
            prepare = mmscfs.engine.prepare_config

            def prepare_small(cfg: Config) -> None:
                apply_multi_crop(cfg)
                cfg.pop('multi_crop', None)  # the pipeline is made smaller
                shrink(cfg)
                prepare(cfg)

            patch.setattr(mmscfs.engine, 'prepare_config', prepare_small)
            # Each guide has a reader of its own, with empty folders.
            patch.setattr(mmscfs.engine, 'check_work_dir', lambda _: None)
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
                shrink_loader(loader)
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
    cfg.default_hooks.pop('pictures', None)  # tested, and slower than all
    cfg.default_hooks.logger.interval = 1
    cfg.log_level = 'WARNING'


def shrink_loader(loader: ConfigDict) -> None:
    """Cut a data loader to one process and small views."""
    loader.update(batch_size=BATCH, num_workers=0, persistent_workers=False)
    loader.dataset.pop('indices', None)
    loader.dataset.serialize_data = False  # it collects garbage
    for transform in loader.dataset.get('pipeline', []):
        if transform.type == 'MultiCrop':
            num_local = min(transform.get('num_local', 2), 2)
            transform.update(
                global_size=SIZE, local_size=SIZE, num_local=num_local
            )
        elif transform.type == 'ResizeEdge':
            transform.scale = SIZE + 4
        elif transform.type == 'CenterCrop':
            transform.crop_size = SIZE
        elif transform.type in ('RandomResizedCrop', 'Resize'):
            transform.scale = (SIZE, SIZE)


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
