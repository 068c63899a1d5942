# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Damage files at random, and see what their readers make of them."""

import argparse
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

INTERESTING = (
    b'\0',
    b'\xff',
    b'\xff\xff\xff\xff',
    b'\xff\xff\xff\x7f',
    b'\0\0\0\x80',
    b'999999999999999999',
    b'-1',
    b'nan',
    b'[' * 50,
    b'(' * 50,
    b'../' * 9,
)


class HangError(BaseException):
    """A reader took too long; no reader may catch this."""


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Return a file with one to four damages."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(data) + 1)
        size = generator.choice((1, 2, 8, 64, 1000))
        kind = generator.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[at : at + size] = generator.choice(INTERESTING)
        elif kind == 2:
            data[at:at] = generator.choice(INTERESTING)
        elif kind == 3:
            del data[at : at + size]
        elif kind == 4:
            other = generator.randrange(len(data) + 1)
            data[at : at + size] = data[other : other + size]
        elif generator.random() < 0.3:  # torn
            del data[at:]
    return bytes(data)


def expect(
    path: Path,
    read: Callable[[Path], object],
    errors: tuple[type[Exception], ...],
    limit: int = 20,
) -> str:
    """Read a file; return what came of it.

    Raises:
        AssertionError: Another error than those expected, or one that does
            not name the file, or none for too long.
    """

    def ring(*_):
        raise HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(limit)
    try:
        read(path)
    except errors as error:
        if path.name not in str(error):
            raise AssertionError(f'{path} is not named: {error}') from error
        return type(error).__name__
    except HangError as error:
        raise AssertionError(f'{path}: no answer in {limit} s') from error
    except Exception as error:
        raise AssertionError(f'{path}: {type(error)}: {error}') from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return 'read'


def fuzz(
    samples: Sequence[tuple[str, bytes, Callable[[Path], object]]],
    folder: Path,
    errors: tuple[type[Exception], ...],
    change: Callable[[bytes, random.Random], bytes] = mutate,
    seconds: float = 2,
    cases: int | None = None,
    seed: int = 0,
) -> Counter:
    """Damage samples in turn; return how often what came of it.

    Each case lies in ``folder`` while it is read, and stays there if its
    reader fails or kills the process.

    Args:
        samples (Sequence[tuple]): Name, content and reader of each.
        folder (Path): Where to put them.
        errors (tuple): The errors that a reader may raise.
        change (Callable): How to damage. Defaults to :func:`mutate`.
        seconds (float): For how long. Defaults to 2.
        cases (int, optional): How many instead. Defaults to None.
        seed (int): Of the damages. Defaults to 0.

    Raises:
        AssertionError: A reader failed, or memory grew by more than 512 MB.
    """
    generator, outcomes = random.Random(seed), Counter()
    end = time.monotonic() + seconds
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    number = 0
    while number < cases if cases else time.monotonic() < end:
        name, content, read = samples[number % len(samples)]
        path = folder / name
        path.write_bytes(change(content, generator))
        outcomes[expect(path, read, errors)] += 1
        path.unlink()
        number += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown < 512 * 1024, f'{grown} KB more memory'
    return outcomes


def main(description: str, run: Callable[[Path, float, int], Counter]) -> None:
    """Fuzz for as long as the command line says."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--seconds', type=float, default=300)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--folder', type=Path, default=Path('fuzz'), help='for the cases'
    )
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    outcomes = run(args.folder, args.seconds, args.seed)
    print(f'{outcomes.total()} cases: {dict(outcomes)}', file=sys.stdout)
