# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""The plain commands of a block of shell, and what they are in this project.

Variables and globs are put in; anything else that a shell can do (pipes,
loops) is refused, so that what is tested is what a reader types.
"""

import glob
import os
import re
import shlex
from pathlib import Path
from string import Template
from typing import NamedTuple

ASSIGNMENT = re.compile(r'(\w+)=(.*)', re.S)
SYNTAX = {'|', '||', '&&', '&', ';', '>', '>>', '<', '`'}


class Command(NamedTuple):
    """A command: its environment and its words, the first the program."""

    environment: dict[str, str]
    words: list[str]

    @property
    def tool(self) -> str | None:
        """The project's script that it runs, None if it runs another."""
        words = self.words
        if Path(words[0]).name == 'python':
            words = words[1:]
        if '$' in words[0]:  # where a package lies
            return None
        return words[0] if words[0].endswith(('.py', '.sh')) else None

    @property
    def arguments(self) -> list[str]:
        """What the script is given."""
        return self.words[self.words.index(self.tool) + 1 :]

    def __str__(self) -> str:
        settings = [f'{k}={v}' for k, v in self.environment.items()]
        return ' '.join([*settings, shlex.join(self.words)])


def read_commands(text: str, root: Path) -> list[Command]:
    """Return the commands of a block, with globs of files below ``root``.

    Raises:
        ValueError: A line is more than a plain command.
    """
    variables, commands = dict(os.environ), []
    for line in text.replace('\\\n', ' ').splitlines():
        words = shlex.split(Template(line).safe_substitute(variables), True)
        environment = {}
        while words and (found := ASSIGNMENT.fullmatch(words[0])):
            environment[found[1]] = found[2]
            words = words[1:]
        if not words:
            variables |= environment
        elif odd := SYNTAX.intersection(words):
            raise ValueError(
                f'{line.strip()!r} has {odd.pop()!r}: write plain commands, '
                'one a line'
            )
        else:
            commands.append(Command(environment, expand(words, root)))
    return commands


def expand(words: list[str], root: Path) -> list[str]:
    """Put the files that exist in the place of globs."""
    expanded = []
    for word in words:
        found = '*' in word and sorted(glob.glob(word, root_dir=root))
        expanded += found or [word]
    return expanded
