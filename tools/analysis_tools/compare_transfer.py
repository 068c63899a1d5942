#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Compare what detectors reach from different pre-trainings.

Reads work directories of finished detection runs, and sets their scores
beside those of the SCFS paper (Tables 3, 4 and 6), each row marked by its
source. A run's score is that of its LAST validation, not of its best. The
paper's rows stand only beside runs with its data (COCO train2017, or VOC
trainval07+12), detector and schedule.

What a run started from is read from its config and from the checkpoint that
it names, if that is still there; otherwise the row has the file's name.
Neither is executed: dumped configs are parsed as text, and checkpoints loaded
with weights_only=True.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from command_end import commanded
from command_line import add_out_folder, make_parser
from command_paths import folder

FOOTER = 'Scores of runs are those of their last validation, not the best.'
EXAMPLES = """
examples:
  python tools/analysis_tools/compare_transfer.py \\
      work_dirs/mask-rcnn_random work_dirs/mask-rcnn_dino work_dirs/mask-rcnn_scfs
"""  # noqa: E501


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'runs',
        nargs='+',
        type=folder,
        metavar='RUN',
        help='work directory of a detection run, or of tools/test.py',
    )
    add_out_folder(parser, 'transfer', 'work_dirs/compare_transfer')
    return parser.parse_args(argv)


@commanded('nothing is written')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: compared, 1: writing failed, 2: a folder cannot be compared.
    """
    args = parse_args(argv)

    from mmscfs.results.detection import read_run
    from mmscfs.results.paper import arrange
    from mmscfs.results.tables import Summary

    runs = [read_run(folder) for folder in dict.fromkeys(args.runs)]
    tables = arrange(runs)
    problems = [f'{run.path}: {run.problem}' for run in runs if run.problem]
    summary = Summary('Transfer to detection', FOOTER, tables, problems)
    return summary.publish(args.out / 'transfer.md')


if __name__ == '__main__':
    raise SystemExit(main())
