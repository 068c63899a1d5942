# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Put the report of runs into one HTML page."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mmscfs.checkpoint import flatten
from mmscfs.datasets.image_files import UNREADABLE
from mmscfs.results import RunLog, find_results, is_result
from mmscfs.version import __version__

from .charts import DASHES, KINDS, SECTIONS, make_charts, style_of
from .pictures import make_pictures
from .verdict import judge

LONGEST = 160  # characters of a setting in a table
MOST = 150  # differences
SHOWN = 10  # names of files
MACHINE = ('GPU 0', 'GPU number', 'Python', 'PyTorch', 'MMEngine')


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
    notes: list[str] = []
    runs, evaluations = [], []
    for number, (name, log) in enumerate(zip(names, logs, strict=True)):
        color, dash = style_of(number)
        known = log.trained[-1].environment
        run = dict(
            name=name,
            log=log,
            verdict=judge(log),
            state=describe_state(log, now),
            last_score=last_score(log),
            machine=', '.join(
                f'{k}: {known[k]}' for k in MACHINE if k in known
            ),
            color=color,
            line=DASHES[dash],
        )
        runs.append(run)
        notes += [f'{name}: {note}' for note in damages(log)]
        evaluations += results(log, name, notes)
    # The charts of each section, by the kind of their runs.
    sections: dict[str, dict[str, list]] = {}
    for kind in dict.fromkeys(log.kind for log in logs):
        members = {i: log for i, log in enumerate(logs) if log.kind == kind}
        for chart in make_charts(members, names):
            section = sections.setdefault(chart.kind.section, {})
            section.setdefault(kind, []).append(chart)
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
        sections={s: sections[s] for s in SECTIONS if s in sections},
        pictures=make_pictures(logs),
        evaluations=evaluations,
        changed=differences(logs),
        notes=notes,
        plotly=Markup(get_plotlyjs()),
    )


def name_runs(logs: Sequence[RunLog]) -> list[str]:
    """Return the ends of the folders' paths, as long as tells them apart."""
    paths = [log.folder.resolve().parts for log in logs]
    names = []
    for path in paths:
        length = 1
        while length < len(path) and (
            sum(path[-length:] == other[-length:] for other in paths) > 1
        ):
            length += 1
        names.append('/'.join(path[-length:]))
    return names


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
    path = log.folder / UNREADABLE
    if path.is_file():
        names = path.read_bytes().decode(errors='replace').splitlines()
        more = ', …' * (len(names) > SHOWN)
        notes.append(
            f'{len(names)} files could not be read and were skipped: '
            f'{", ".join(names[:SHOWN])}{more}'
        )
    return notes


def differences(runs: Sequence[RunLog]) -> list[list[str]]:
    """Return the settings that runs do not have in common, "–" of none.

    Returns:
        list[list[str]]: Rows of a name, and the value of each run. The last
        one may say how many more there are.
    """
    settings = [dict(flatten(run.cfg)) for run in runs]
    rows = []
    for name in dict.fromkeys(name for part in settings for name in part):
        values = [str(part.get(name, '–')) for part in settings]
        if len(set(values)) > 1 and name != 'work_dir':
            rows.append([name, *(value[:LONGEST] for value in values)])
    if len(rows) > MOST:
        more = [f'and {len(rows) - MOST} more', *['…'] * len(runs)]
        return [*rows[:MOST], more]
    return rows


def score_of(metrics: Mapping[str, float | None], digits: str) -> str | None:
    """Return the score that metrics are known for, in words."""
    for kind in KINDS:
        for name in kind.names.split('|') if kind.section == 'Scores' else ():
            value = metrics.get(name)
            if value is not None and math.isfinite(value):
                value *= float(kind.scale)
                return f'{kind.title} {value:{digits}} {kind.unit}'
    return None


def last_score(run: RunLog) -> str | None:
    """Return the last validation's score, in words."""
    for line in reversed(run.val):
        if text := score_of(line, '.3g'):
            if 'knn/top1' in line and 'knn/k' in line:
                text += f' (k = {line["knn/k"]:.0f})'
            by_epoch = run.epoch_length is not None
            at = run.position(line, by_epoch)
            return f'{text} at {"epoch" if by_epoch else "iteration"} {at:g}'
    return None


def results(run: RunLog, name: str, notes: list[str]) -> list[list[str]]:
    """Return what evaluations, tests and the last validation reached.

    Returns:
        list[list[str]]: Rows of the run, the protocol, what it is of, its
        score, and all scores. What cannot be read is noted.
    """
    rows: dict[str, list[str]] = {}  # by their scores: a test's may be there

    def add(what: str, of: str, metrics: Mapping[str, float | None]) -> None:
        scores = ', '.join(
            f'{k} {v:.4g}'
            for k, v in metrics.items()
            if v is not None and k not in ('time', 'data_time', 'step')
        )
        score = score_of(metrics, '.4g') or '–'
        rows.setdefault(scores, [name, what, of, score, scores])

    for path in sorted(run.folder.rglob('*.json')):
        try:
            found = find_results([path]) if is_result(path) else {}
        except (ValueError, OSError) as error:
            notes.append(f'{name}: {error}')
            continue
        for r in found.values():
            of = ', '.join(filter(None, (r.dataset, r.checkpoint, r.network)))
            add(r.protocol, of, r.metrics)
    data = run.origin.data or '–'
    for start in run.starts:
        if start.test:
            add('test', data, start.test)
    if run.val:
        line = {k: v for k, v in run.val[-1].items() if '/' in k}
        add('last validation', data, line)
    return [*rows.values()]
