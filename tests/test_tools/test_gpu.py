# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""tools/benchmarks/gpu.py on tiny networks, without a GPU.

Its processes are forks of this one, which has imported everything.
"""

import csv
import importlib
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from argparse import Namespace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from commands import ROOT, refusal

FOLDER = ROOT / 'tools/benchmarks'
EXACT = 'the same bits'
ARGS = Namespace(device='cpu', data=None)


class Forked:
    """What jobs.call starts, but for the interpreter."""

    def __init__(self, command, log, environment):
        self._process = multiprocessing.get_context('fork').Process(
            target=self._run, args=(command[1:], log, environment)
        )
        self._process.start()
        self.terminate, self.kill = (
            self._process.terminate,
            self._process.kill,
        )

    @staticmethod
    def _run(words, log, environment):
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        os.environ.update(environment)
        if words[0].endswith('gpu.py'):
            raise SystemExit(sys.modules['gpu'].main(words[1:]))
        sys.argv = words
        runpy.run_path(words[0], run_name='__main__')

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.is_alive():
            raise subprocess.TimeoutExpired('a fork', timeout)


@pytest.fixture(scope='module')
def gpu():
    """The command's module, beside what it imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.syspath_prepend(str(FOLDER.parent))
        module = importlib.import_module('gpu')
        for step in module.STEPS.values():
            importlib.import_module(step.module)
        patch.setattr('jobs.call', Forked)
        yield module


@pytest.fixture
def numerics(gpu, monkeypatch):
    """The module of the checks, of SCFS alone."""
    module = sys.modules['gpu_numerics']
    monkeypatch.setattr(module, 'CASES', module.CASES[:1])
    return module


@pytest.fixture
def speed(gpu, monkeypatch):
    """The module of the figures, for one case."""
    module = sys.modules['gpu_speed']
    monkeypatch.setattr(module, 'TINY_PLAN', module.TINY_PLAN[:1])
    return module


def run(step, args=ARGS):
    """Return the rows of a step; none of its checks has failed."""
    rows = {row.what: row for row in step(args)}
    assert not [r for r in rows.values() if getattr(r, 'ok', True) is False]
    return rows


def test_parity_is_that_of_the_precision(numerics):
    """A unit in the last place is 2^-24, 2^-11 and 2^-8 of a number."""
    rows = run(numerics.parity)
    errors = [
        float(rows[f'SCFS {precision}: gradient'].found)
        for precision in ('fp32', 'fp16', 'bf16')
    ]
    assert 0 < errors[0] < 1e-3
    assert 10 * errors[0] < errors[1] < errors[2]
    losses = [
        float(rows[f'SCFS {precision}: loss'].found)
        for precision in ('fp32', 'bf16')
    ]
    assert 0 < losses[0] < losses[1] / 10


def test_parity_fails_where_a_device_computes_otherwise(numerics, monkeypatch):
    """Weights that are off by a third."""
    build = numerics.build

    def off(config, device, precision, **settings):
        model, wrapper = build(config, device, precision, **settings)
        if precision == 'fp32':
            with torch.no_grad():
                for parameter in model.backbone.parameters():
                    parameter.mul_(1 + 0.3 * torch.randn_like(parameter))
        return model, wrapper

    monkeypatch.setattr(numerics, 'build', off)
    loss, gradient = islice(numerics.parity(ARGS), 2)
    assert not loss.ok
    assert not gradient.ok
    assert not sys.modules['gpu_models'].below('', float('nan'), 1).ok


def test_overflow_is_noticed_and_its_lack_too(numerics, monkeypatch):
    found = {what: row.found for what, row in run(numerics.overflow).items()}
    assert found == {
        'step': 'skipped',
        'loss scale': 'x 0.5',
        'weights': 'stand still',
        "optimizer's state": 'stand still',
        'teacher': 'stand still',
        'centers': 'stand still',
    }
    # Without scaling nothing overflows.
    build = numerics.build
    monkeypatch.setattr(
        numerics, 'build', lambda *words: build(*words[:2], 'fp32')
    )
    rows = {c.what: c for c in numerics.overflow(ARGS)}
    assert not any(row.ok for row in rows.values())


def test_two_processes_are_one(numerics):
    rows = run(numerics.two_processes)
    for part in ('loss', 'gradient', 'centers'):
        assert float(rows[f'two processes beside one: {part}'].found) < 1e-8
    assert rows['the two processes'].found == EXACT
    assert rows['SyncBN'].ok is None


@pytest.mark.parametrize(
    ('one', 'other', 'same'),
    [
        (torch.tensor([1.0, float('nan')]),) * 2 + (True,),
        (torch.tensor(0.0), torch.tensor(-0.0), False),
        (torch.ones(2), torch.ones(2).half(), False),
        (1, 1.0, False),
    ],
)
def test_bits_of_leaves(gpu, one, other, same):
    assert sys.modules['gpu_runs'].is_same(one, other) is same


def test_speed_and_memory_are_measured(speed):
    rows = run(speed.textbook)
    ours, plain = (
        rows[f'{name}SCFS, fp32, batch 4'].figures
        for name in ('', 'textbook form, ')
    )
    for row in (ours, plain):
        assert row['images/s'] * row['ms'] == pytest.approx(4000)
        assert min(row['GiB'], row['x backbone']) > 0
    gain = rows['textbook form / ours'].figures['value']
    assert gain == pytest.approx(plain['ms'] / ours['ms'])


def test_time_that_is_left_decides(speed, monkeypatch):
    """A case that would end too late is not begun."""
    monkeypatch.setattr(speed, 'time_steps', lambda *_: iter(['row']))
    args = Namespace(device='cpu', end=time.monotonic() - 1)
    (check,) = speed.speed(args)
    assert check.found == '1 of 1 cases left out'
    args.end += 100
    assert [*speed.speed(args)] == ['row']


def test_costs_are_named(speed):
    rows = run(speed.trace)
    costs = [
        row.figures['ms']
        for what, row in rows.items()
        if what.startswith('cost ')
    ]
    assert len(costs) == 3
    assert costs == sorted(costs, reverse=True)
    device = rows['the device works in a step'].figures['ms']
    assert 0 < sum(costs) < device


def test_the_loader_is_measured(speed):
    rows = run(speed.loader)
    assert len(rows) == 5
    rates = [row.figures.get('images/s') for row in rows.values()]
    assert all(rate > 0 for rate in rates if rate)
    assert sum(map(bool, rates)) == 3
    plain, colored = (
        rows[f'{name} on the device, batch 2'].figures['ms']
        for name in ('views', 'views and colors')
    )
    assert 0 < plain < colored


def test_neighbors_are_found_and_missing_ones_noticed(speed, monkeypatch):
    assert run(speed.knn)['neighbors found'].found == '100.00%'
    exact = speed.exact_neighbors
    monkeypatch.setattr(
        speed, 'exact_neighbors', lambda *words: exact(*words) + 1
    )
    *_, check = speed.knn(ARGS)
    assert not check.ok


def test_a_detector_trains(gpu):
    rows = run(sys.modules['gpu_runs'].detector)
    row = rows['Mask R-CNN fp32: parameters that moved']
    assert row.found == row.wanted != '0'


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'torch sees no GPU here'),
        (['--steps', 'sped'], "invalid choice: 'sped'"),
        (['--minutes', '0'], "'0' must be above 0"),
    ],
)
def test_wrong_words_are_refused(words, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert message in refusal('tools/benchmarks/gpu.py', *words)


def test_limits_share_the_minutes(gpu):
    assert sum(step.seconds for step in gpu.STEPS.values()) <= 60 * gpu.MINUTES


@pytest.fixture(scope='module')
def whole(gpu, tmp_path_factory):
    """Run a few steps, one that hangs and one that crashes; return it all."""

    def hangs(args):
        yield gpu_models.Check('before', 'this', 'this', True)
        time.sleep(300)

    def crashes(args):
        raise RuntimeError('on purpose')
        yield

    gpu_models = sys.modules['gpu_models']
    bad = SimpleNamespace(hangs=hangs, crashes=crashes)
    out = tmp_path_factory.mktemp('gpu')
    # Minutes for those that end: this machine may be busy.
    limits = {
        'hangs': gpu.Step(5, 'bad', ''),
        'machine': gpu.STEPS['machine']._replace(seconds=300),
        'resume': gpu.STEPS['resume']._replace(seconds=300),
        'crashes': gpu.Step(60, 'bad', ''),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'bad', bad)
        patch.setattr(gpu, 'STEPS', limits)
        code = gpu.main(['--device', 'cpu', '--out', str(out)])
    record = json.loads((out / 'gpu.json').read_text())
    rows = {(row['step'], row['what']): row for row in record['rows']}
    assert len(rows) == len(record['rows'])
    return SimpleNamespace(code=code, out=out, rows=rows)


def test_a_step_that_hangs_or_crashes_is_a_line(whole):
    failed = [key for key, row in whole.rows.items() if row.get('ok') is False]
    assert failed == [('hangs', 'ends'), ('crashes', 'ends')]
    assert whole.code == 1
    assert whole.rows['hangs', 'before']['found'] == 'this'
    assert whole.rows['hangs', 'ends']['found'] == 'does not end'
    assert whole.rows['hangs', 'ends']['wanted'] == 'within 5 s'
    found = whole.rows['crashes', 'ends']['found']
    assert found.startswith('exit code 1: RuntimeError: on purpose')
    assert 'Traceback' in (whole.out / 'crashes.log').read_text()


def test_resumed_bits_are_compared(whole):
    assert whole.rows['resume', 'killed']['found'] == 'while it trained'
    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        assert whole.rows['resume', f'resumed: {part}']['found'] == EXACT


def test_the_tables_have_every_row(whole):
    text = (whole.out / 'gpu.md').read_text()
    lines = [line for line in text.splitlines() if line.startswith('| ')]
    assert len(lines) == len(whole.rows) + 4  # and two headers and rules
    assert text.count('| FAIL |') == 2
    with open(whole.out / 'gpu.csv') as file:
        table = [*csv.DictReader(file)]
    assert len(table) == len(whole.rows)
    (line,) = [r for r in table if (r['step'], r['what']) == ('hangs', 'ends')]
    assert line['verdict'] == 'FAIL'
    assert line['source'] == 'hangs.log'
