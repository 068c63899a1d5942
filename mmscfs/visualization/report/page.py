# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Put the report of runs into one page of html."""

import base64
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mmscfs.results import RunLog
from mmscfs.version import __version__

from .charts import SECTIONS, Chart, Plotter
from .drawing import draw_chart, draw_swatch, to_rows
from .facts import (
    compare,
    describe,
    detections,
    differences,
    last_score,
    machine,
    results,
)
from .health import Monitor, Verdict, judge, monitor_of
from .pictures import SERIES, SHOWN, choose, find_pictures, show

FOLDER = Path(__file__).parent
SIGNS = {
    'learning': '✓',
    'in doubt': '?',
    'collapsed': '✕',
    'diverged': '✕',
    'not judged': '–',
}


class Run(NamedTuple):
    """A run, as the page names and shows it."""

    number: int
    name: str
    log: RunLog
    verdict: Verdict
    sign: str
    state: str
    progress: str
    share: float | None
    last_score: str | None
    swatch: Markup


def make_page(
    logs: Sequence[RunLog],
    make_monitor: Callable[..., Monitor],
    reload: float | None = None,
    track: Callable = iter,
    now: float | None = None,
) -> str:
    """Make the page.

    Args:
        logs (Sequence[RunLog]): The runs.
        make_monitor (Callable[..., Monitor]): ``CollapseMonitorHook``.
        reload (float, optional): Seconds after which the page reloads
            itself. Defaults to None: it does not.
        track (Callable): Wraps the list of charts, to show progress. Defaults
            to ``iter``.
        now (float, optional): Seconds of the epoch. Defaults to None: the
            time.
    """
    now = time.time() if now is None else now
    monitors = [monitor_of(log, make_monitor) for log in logs]
    names = name_runs(logs)
    runs = [
        make_run(number, name, log, monitor, len(logs), now)
        for number, (name, log, monitor) in enumerate(
            zip(names, logs, monitors, strict=True)
        )
    ]
    notes = [note for run in runs for note in damages(run)]
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = Markup((FOLDER / 'script.js').read_text(encoding='utf-8'))
    digest = hashlib.sha256(f'\n{script}'.encode()).digest()
    rows = [row for run in runs for row in results(run.log, run.name, notes)]
    found = [detections(run.log, run.name) for run in runs]
    changed, more = differences(logs) if len(logs) > 1 else ([], 0)
    return environment.get_template('page.html').render(
        version=__version__,
        written=time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(now)),
        reload=reload,
        runs=runs,
        sections=make_sections(logs, monitors, track),
        pictures=make_pictures(runs),
        results=rows,
        detections=[row for row in found if row],
        settings=compare([describe(log) for log in logs]),
        differences=changed,
        more_differences=more,
        machine=compare([machine(log) for log in logs]),
        notes=notes,
        script=script,
        script_hash=base64.b64encode(digest).decode(),
    )


def stop_reloading(page: str) -> str:
    """Return a page as it would be without ``reload``."""
    for pattern in (
        r'<noscript><meta http-equiv="refresh"[^>]*></noscript>\n',
        r' data-reload="[^"]*"',
        r'<span class="needs-script" hidden>, reloaded [^<]*</span>',
        r'<button type="button" id="pause"[^>]*>[^<]*</button>\n',
    ):
        page = re.sub(pattern, '', page, count=1)
    return page


def name_runs(logs: Sequence[RunLog]) -> list[str]:
    """Return the names of the folders, or the paths where these agree."""
    names = [log.folder.resolve().name for log in logs]
    return [
        name if names.count(name) == 1 else str(log.folder)
        for name, log in zip(names, logs, strict=True)
    ]


def make_run(
    number: int,
    name: str,
    log: RunLog,
    monitor: Monitor | None,
    runs: int,
    now: float,
) -> Run:
    """Say of a run what the overview has."""
    verdict = judge(log, monitor)
    total, unit = log.planned
    reached = int(log.reached)
    return Run(
        number,
        name,
        log,
        verdict,
        SIGNS.get(verdict.word, '…'),
        describe_state(log, now),
        f'{reached} of {total} {unit}' if total else f'{reached} {unit}',
        log.reached / total if total else None,
        last_score(log),
        draw_swatch(number, runs, f'swatch-{number}'),
    )


def describe_state(log: RunLog, now: float) -> str:
    """Say whether a run goes on, and how long it will take."""
    state = log.state(now)
    if state == 'stopped':
        return f'stopped, silent for {duration(now - log.written)}'
    if state != 'running':
        return state
    if not log.train:
        return 'running, nothing is logged yet'
    total, unit = log.planned
    length = log.epoch_length if unit == 'epochs' else 1
    left = (total - log.reached) * (length or 1)
    times = [line['time'] for line in log.train[-20:] if 'time' in line]
    if not times:
        return 'running'
    seconds = left * sum(times) / len(times)
    return f'running, about {duration(seconds)} left'


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for size, unit in ((86400, 'days'), (3600, 'h'), (60, 'min')):
        if seconds >= 2 * size:
            return f'{seconds / size:.0f} {unit}'
    return f'{max(seconds, 0):.0f} s'


def damages(run: Run) -> list[str]:
    """Say what of a run's files cannot be read, and what is missing."""
    notes = []
    for start in run.log.starts:
        if start.damaged:
            notes.append(
                f'{run.name}: {start.damaged} damaged lines of '
                f'{start.folder.name}/vis_data/scalars.json are left out.'
            )
    skipped = [line.get('skipped', 0.0) for line in run.log.train]
    if share := sum(skipped) / max(len(skipped), 1):
        notes.append(
            f'{run.name}: {100 * share:.2g} % of its steps were skipped, as '
            'their loss or gradient was not finite: see Skipped steps, in '
            'Health.'
        )
    if not run.log.train and run.log.state(0) != 'tested':
        notes.append(
            f'{run.name}: nothing is logged of its training yet; the first '
            'line comes after default_hooks.logger.interval iterations.'
        )
    return notes


def make_sections(
    logs: Sequence[RunLog],
    monitors: Sequence[Monitor | None],
    track: Callable,
) -> list[dict[str, Any]]:
    """Draw the charts: of each section those of every kind of run."""
    kinds = dict.fromkeys(log.kind for log in logs)
    groups = []
    for kind in kinds:
        members = {i: log for i, log in enumerate(logs) if log.kind == kind}
        groups.append((kind, Plotter(members, dict(enumerate(monitors)))))
    charts: list[tuple[str, str, Chart]] = [
        (key, kind, chart)
        for key, (_, make) in SECTIONS.items()
        for kind, plotter in groups
        for chart in make(plotter)
        if chart is not None
    ]
    drawn: dict[str, dict[str, list]] = {key: {} for key in SECTIONS}
    for number, (key, kind, chart) in enumerate(track(charts)):
        name = f'chart-{number}'
        figure = dict(
            key=name,
            chart=chart,
            svg=draw_chart(chart, name, len(logs)),
            table=to_rows(chart),
            latest=latest(chart),
        )
        drawn[key].setdefault(kind, []).append(figure)
    return [
        dict(
            key=key,
            title=title,
            groups=drawn[key],
            several=len(kinds) > 1,
        )
        for key, (title, _) in SECTIONS.items()
    ]


def latest(chart: Chart) -> str:
    """Return the last value of a chart of one run, with its unit."""
    if len(chart.series) != 1:
        return ''
    (series,) = chart.series
    value = series.curve.y[-1]
    return f'{value:.4g} {chart.unit}' if value == value else ''


def make_pictures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Choose pictures that fit the page, those of known series first."""
    found: dict[str, list] = {}
    for run in runs:
        for name, pictures in find_pictures(run.log).items():
            found.setdefault(name, []).append((run, pictures))
    count = sum(len(parts) for parts in found.values())
    most = min(max(SHOWN // max(count, 1), 2), 8)
    order = [*SERIES, *sorted(set(found) - set(SERIES))]
    return [
        dict(
            title=SERIES.get(name, (name, ''))[0],
            caption=SERIES.get(name, (name, ''))[1],
            parts=[
                (run, [show(p, run.log) for p in choose(pictures, most)])
                for run, pictures in found[name]
            ],
        )
        for name in order
        if name in found
    ]
