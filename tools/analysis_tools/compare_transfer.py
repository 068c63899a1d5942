#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Compare what detectors reach from different pre-trainings.

Reads work directories of finished detection runs, and sets their scores
beside those of the SCFS paper (Tables 3, 4 and 6), each row marked by its
source. A run's score is that of its LAST validation, not of its best. The
paper's rows stand only beside runs with its data (COCO train2017, or VOC
trainval07+12), detector and schedule; --table allows other detectors.

What a run started from is read from its config and from the checkpoint that
it names, if that is still there. Neither is executed: dumped configs are
parsed as text, and checkpoints loaded with weights_only=True.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from mmscfs.visualization.transfer.runs import Run
    from mmscfs.visualization.transfer.table import TransferTable

FOOTER = 'Scores of runs are those of their last validation, not the best.'
EXAMPLES = """
examples:
  python tools/analysis_tools/compare_transfer.py \\
      work_dirs/mask-rcnn_random work_dirs/mask-rcnn_dino work_dirs/mask-rcnn_scfs
  # beside Table 4, although the detector is another one
  python tools/analysis_tools/compare_transfer.py work_dirs/c4 --table 4
"""  # noqa: E501


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='RUN',
        help='work directory of a detection run, or of tools/test.py',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/compare_transfer'),
        metavar='FOLDER',
        help='where to write transfer.md, .csv and .png (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--table',
        choices=['3', '4', '6', 'auto'],
        default='auto',
        help="the paper's table (default: the one of the runs' data, "
        'detector, schedule and pre-training)',
    )
    return parser.parse_args(argv)


def print_tables(tables: Sequence['TransferTable']) -> None:
    """Print tables, our runs in colour."""
    # A pipe or a file would get 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables:
        printed = Table(title=table.title, caption=table.note)
        for i, name in enumerate(table.header):
            is_score = 1 <= i < len(table.header) - 1
            printed.add_column(
                name,
                justify='right' if is_score else 'left',
                no_wrap=is_score,
                overflow='fold',
            )
        for row in table.rows:
            printed.add_row(
                *row.cells(table.columns), style='green' * row.is_ours
            )
        console.print(printed)


def to_markdown(
    tables: Sequence['TransferTable'], unscored: Sequence['Run']
) -> str:
    """Return everything as markdown, our runs bold."""
    lines = ['# Transfer to detection', '', FOOTER, '']
    for table in tables:
        names = table.header
        rule = [':--', *['--:'] * (len(names) - 2), ':--']
        lines += [f'## {table.title}', '', table.note, '']
        lines += [f'| {" | ".join(names)} |', f'| {" | ".join(rule)} |']
        for row in table.rows:
            cells = [
                cell.replace('|', '\\|').replace('*', '\\*')
                for cell in row.cells(table.columns)
            ]
            if row.is_ours:
                cells = [f'**{cell}**' for cell in cells]
            lines.append(f'| {" | ".join(cells)} |')
        lines.append('')
    if unscored:
        lines += ['## Not scored', '']
        lines += [f'- {run.source}: {run.problem}' for run in unscored]
        lines.append('')
    return '\n'.join(lines)


def write_csv(
    path: Path, tables: Sequence['TransferTable'], unscored: Sequence['Run']
) -> None:
    """Write a line for each row of each table, and each unscored run."""
    from mmscfs.visualization.transfer.table import COLUMNS

    with open(path, 'w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(
            ['table', 'initialisation', 'epochs', *COLUMNS, 'source']
        )
        for table in tables:
            for row in table.rows:
                writer.writerow([table.title, *row.cells(COLUMNS)])
        for run in unscored:
            source = f'this run ({run.source}): {run.problem}'
            scores = ['-'] * len(COLUMNS)
            start = run.start
            writer.writerow(
                ['not scored', start.label, start.epochs, *scores, source]
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: compared, 1: writing failed, 2: a folder cannot be compared.
    """
    args = parse_args(argv)

    # After parsing, so that --help and a wrong option answer at once.
    from mmscfs.visualization.transfer.picture import draw_tables
    from mmscfs.visualization.transfer.runs import read_run
    from mmscfs.visualization.transfer.table import arrange

    number = None if args.table == 'auto' else int(args.table)
    try:
        runs = [read_run(folder) for folder in dict.fromkeys(args.runs)]
        tables = arrange(runs, number)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    unscored = [run for run in runs if run.problem]
    problems = [f'not scored: {r.source}: {r.problem}' for r in unscored]
    path = args.out / 'transfer.md'
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        path.write_text(to_markdown(tables, unscored), encoding='utf-8')
        write_csv(path.with_suffix('.csv'), tables, unscored)
        # Not to leave that of an earlier call.
        path.with_suffix('.png').unlink(missing_ok=True)
        if tables:
            footer = '\n'.join([FOOTER, *problems])
            draw_tables(tables, path.with_suffix('.png'), footer)
    except OSError as error:
        print(f'error: --out {args.out}: {error}', file=sys.stderr)
        return 1
    print_tables(tables)
    print('\n'.join(problems), end='\n' * bool(problems))
    written = '.md, .csv and .png' if tables else '.md and .csv'
    print(f'{FOOTER}\nwritten: {path.with_suffix("")}{written}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
