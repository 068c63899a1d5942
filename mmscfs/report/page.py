# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Put the report of runs into one HTML page."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mmscfs.results import RunLog
from mmscfs.version import __version__

from .charts import DASHES, SECTIONS, make_charts, style_of
from .facts import (
    compare,
    describe,
    detections,
    differences,
    last_score,
    results,
)
from .pictures import make_pictures
from .verdict import judge


def make_page(logs: Sequence[RunLog], now: float | None = None) -> str:
    """Make a page that needs no other file and no network.

    Args:
        logs (Sequence[RunLog]): The runs.
        now (float, optional): Seconds since 1970. Defaults to None: the
            time.

    Example:
        >>> page = make_page([read_log('work_dirs/scfs_r50')])
        >>> Path('report.html').write_text(page)
    """
    now = time.time() if now is None else now
    names = name_runs(logs)
    runs: list[dict[str, Any]] = []
    notes: list[str] = []
    evaluations: list[list[str]] = []
    detectors: list[list[str]] = []
    # The charts of each section, by the kind of their runs.
    sections: dict[str, dict[str, list]] = {s: {} for s in SECTIONS}
    for number, (name, log) in enumerate(zip(names, logs, strict=True)):
        color, dash = style_of(number)
        run = dict(
            number=number,
            name=name,
            log=log,
            verdict=judge(log),
            state=describe_state(log, now),
            last_score=last_score(log),
            color=f'rgb({color})',
            line=DASHES[dash],
        )
        runs.append(run)
        notes += [f'{name}: {note}' for note in damages(log)]
        evaluations += results(log, name, notes)
        if row := detections(log, name):
            detectors.append(row)
    for kind in dict.fromkeys(log.kind for log in logs):
        members = {i: log for i, log in enumerate(logs) if log.kind == kind}
        for chart in make_charts(members, names):
            sections[chart.kind.section].setdefault(kind, []).append(chart)
    changed, more = differences(logs)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template('page.html').render(
        version=__version__,
        written=time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(now)),
        runs=runs,
        names=names,
        sections=sections,
        pictures=make_pictures(logs),
        evaluations=evaluations,
        detectors=detectors,
        settings=compare([describe(log) for log in logs]),
        changed=changed,
        more=more,
        machines=compare([log.last_start.environment for log in logs]),
        notes=notes,
        plotly=Markup(get_plotlyjs()),
    )


def name_runs(logs: Sequence[RunLog]) -> list[str]:
    """Return the names of the folders, or the paths where these agree."""
    names = [log.folder.resolve().name for log in logs]
    return [
        name if names.count(name) == 1 else str(log.folder)
        for name, log in zip(names, logs, strict=True)
    ]


def describe_state(log: RunLog, now: float) -> str:
    """Say whether a run is going on, and how long it will take."""
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
    return f'running, about {duration(left * sum(times) / len(times))} left'


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for size, unit in ((86400, 'days'), (3600, 'h'), (60, 'min')):
        if seconds >= 2 * size:
            return f'{seconds / size:.0f} {unit}'
    return f'{max(seconds, 0):.0f} s'


def damages(log: RunLog) -> list[str]:
    """Say what of a run's files cannot be read, and what is missing."""
    notes = [
        f'left out damaged lines of {start.folder.name}/vis_data/'
        f'scalars.json: {start.damaged}.'
        for start in log.starts
        if start.damaged
    ]
    skipped = [line.get('skipped', 0.0) for line in log.train]
    if share := sum(skipped) / max(len(skipped), 1):
        notes.append(
            f'{100 * share:.2g} % of its steps were skipped, because their '
            'gradient was not finite. See Skipped steps under Health.'
        )
    if not log.train and log.state(0) != 'tested':
        notes.append(
            'nothing is logged of its training yet. The first line comes '
            'after default_hooks.logger.interval iterations.'
        )
    return notes
