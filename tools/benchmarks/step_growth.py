# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""How a step's time and memory grow, each point in a process of its own."""

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

from measuring import MIB

STEP = Path(__file__).with_name('step.py')
DINO = (
    STEP.parents[2]
    / 'configs/dino/dino_resnet50_8xb32-mcrop-coslr-200e_in1k.py'
)
# What grows: (name, values, the options of step.py that set a value).
SEARCHED = 'model.search_layers=[{}]'
LAYERS = {1: '3', 2: '2,3'}  # of the recipe's three
FIELDS = ('batch', 'global_size', 'local_size', 'num_local')


def points(args: argparse.Namespace) -> list[tuple[str, int, dict, list]]:
    """Return (what grows, its value, changed arguments, config options)."""
    found = []
    for value in (0, 2, 4, 8, 12, 16):
        found.append(('local views', value, dict(num_local=value), []))
    for value in (0, 1, 2, 3):
        # Without a layer it is DINO.
        options = [SEARCHED.format(LAYERS[value])] if value in LAYERS else []
        found.append(('search layers', value, {}, options))
    for value in (4096, 16384, 65536, 262144):
        # The recipe's own number is measured once for all columns.
        options = [f'model.neck.num_prototypes={value}'] * (value != 65536)
        found.append(('prototypes', value, {}, options))
    for value in (128, 160, 192, 224):
        # Local views keep their share of the global ones.
        local = round(value * args.local_size / args.global_size / 32) * 32
        change = dict(global_size=value, local_size=max(local, 32))
        found.append(('global view (px)', value, change, []))
    for value in (2, 4, 8):
        found.append(('batch', value, dict(batch=value), []))
    return found


def command(args: argparse.Namespace, change: dict, options: list) -> list:
    """Return the command that measures a point."""
    values = {name: getattr(args, name) for name in FIELDS} | change
    line = [sys.executable, str(STEP), '--json', '--no-textbook']
    for name, value in values.items():
        line += [f'--{name.replace("_", "-")}', str(value)]
    line += ['--config', str(args.config), '--rounds', str(args.rounds)]
    line += ['--search-views', args.search_views]
    line += ['--precision', args.precision]
    if args.threads:
        line += ['--threads', str(args.threads)]
    if args.compile:
        line.append('--compile')
    options = [*args.cfg_options, *options]
    return line + ['--cfg-options', *options] * bool(options)


def measure_growth(args: argparse.Namespace) -> int:
    """Measure every point, write growth.csv and growth.png.

    Returns:
        int: The exit code.
    """
    from rich.progress import track

    rows, measured = [], {}
    for what, value, change, options in track(points(args), 'measuring'):
        line = command(args, change, options)
        if what == 'search layers' and value == 0:
            # DINO's recipe beside SCFS'; the rest of the setting is the same.
            line[line.index('--config') + 1] = str(DINO)
        key = tuple(line)
        if key not in measured:
            result = subprocess.run(line, capture_output=True, text=True)
            if result.returncode:
                print(result.stderr, file=sys.stderr)
                print(f'error: failed: {" ".join(line)}', file=sys.stderr)
                return 1
            measured[key] = figures(json.loads(result.stdout.splitlines()[-1]))
        rows.append({'what grows': what, 'value': value, **measured[key]})
        write(rows, args.growth / 'growth.csv')
    draw(rows, args.growth / 'growth.png')
    report(rows)
    print(f'written: {args.growth}/growth.csv, {args.growth}/growth.png')
    return 0


def figures(data: dict) -> dict[str, float]:
    """Return a point's medians, of what step.py printed as json."""
    ours, floor = data['mmscfs'], data['bare backbone']
    steps = map(sum, zip(ours['backward'], ours['update'], strict=True))
    return {
        'step (s)': statistics.median(steps),
        'forward and backward (s)': statistics.median(ours['backward']),
        'bare backbone (s)': statistics.median(floor['backward']),
        'memory (MiB)': data['process_memory'] / MIB,
    }


def write(rows: list[dict], path: Path) -> None:
    """Write what was measured so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    name: round(value, 4)
                    if isinstance(value, float)
                    else value
                    for name, value in row.items()
                }
            )


def draw(rows: list[dict], path: Path) -> None:
    """Draw time and memory against everything that grows."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(row['what grows'] for row in rows))
    figure = Figure(figsize=(3.2 * len(kinds), 5.5), layout='constrained')
    axes = figure.subplots(
        2, len(kinds), sharex='col', sharey='row', squeeze=False
    )
    for column, kind in zip(axes.T, kinds, strict=True):
        chosen = [row for row in rows if row['what grows'] == kind]
        values = [row['value'] for row in chosen]
        for name in ('forward and backward (s)', 'bare backbone (s)'):
            times = [row[name] for row in chosen]
            column[0].plot(values, times, marker='o', label=name)
        memory = [row['memory (MiB)'] for row in chosen]
        column[1].plot(values, memory, marker='o', color='tab:green')
        column[1].set_xlabel(kind)
        if kind == 'prototypes':
            column[1].set_xscale('log', base=2)
    axes[0, 0].set_ylabel('seconds')
    axes[1, 0].set_ylabel('memory of the process (MiB)')
    axes[0, 0].set_ylim(bottom=0)
    axes[1, 0].set_ylim(bottom=0)
    axes[0, 0].legend()
    figure.savefig(path, dpi=110)


def report(rows: list[dict]) -> None:
    """Print the points, and how straight the line over local views is."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in rows[0]:
        table.add_column(
            name, justify='left' if name == 'what grows' else 'right'
        )
    for row in rows:
        table.add_row(
            *(
                f'{v:.3f}' if isinstance(v, float) else str(v)
                for v in row.values()
            )
        )
    console = Console(width=110)
    console.print(table)
    # Without local views the global ones search each other: another line.
    lines = [
        r for r in rows if r['what grows'] == 'local views' and r['value']
    ]
    x = [row['value'] for row in lines]
    for name in ('forward and backward (s)', 'bare backbone (s)'):
        y = np.array([row[name] for row in lines])
        slope, start = np.polyfit(x, y, 1)
        off = np.abs(y - slope * np.array(x) - start).max() / y.mean()
        console.print(
            f'{name}: {start:.3f} + {slope:.4f} for each local view '
            f'({slope / start:.1%}), at most {off:.1%} off the line'
        )
