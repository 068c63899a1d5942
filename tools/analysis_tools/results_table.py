#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Gather results of evaluations into the SCFS paper's tables.

Reads the JSON files that evaluations write beside the checkpoint given with
--pretrained (or else into their work directory), and sets their scores beside
the paper's (Tables 1, 2, 5 and 7 to 10; Fig. 5 has no numbers), each row
marked by its source. Results of one checkpoint share a row. The paper's rows
stand only beside results of its data sets, all of their images, and its
backbones; other results get a table of their data set.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from command_end import commanded
from command_line import add_out_folder, make_parser
from command_paths import run_or_file

FOOTER = (
    'Scores in percent; of trainings those of the last validation, not the '
    'best.'
)
EXAMPLES = """
examples:
  # k-NN and linear probing, once they ran:
  #   python tools/test.py configs/classification/knn/knn_resnet50_in1k.py \\
  #       --pretrained work_dirs/scfs_r50/epoch_200.pth
  #   python tools/train.py \\
  #       configs/classification/linear/resnet50_8xb32-linear-coslr-100e_in1k.py \\
  #       --pretrained work_dirs/scfs_r50/epoch_200.pth
  python tools/analysis_tools/results_table.py work_dirs/scfs_r50
  # all results
  python tools/analysis_tools/results_table.py work_dirs
"""  # noqa: E501


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'results',
        nargs='+',
        type=run_or_file,
        metavar='RESULT_OR_FOLDER',
        help='JSON file of a result, or a folder with some at any depth',
    )
    add_out_folder(parser, 'results', 'work_dirs/results_table')
    return parser.parse_args(argv)


@commanded('nothing is written')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool, return its exit code.

    0: arranged, 1: writing failed, 2: a result cannot be read or arranged.
    """
    args = parse_args(argv)

    from mmscfs.results import find_results
    from mmscfs.results.evaluations import read_entry
    from mmscfs.results.paper import arrange
    from mmscfs.results.tables import Summary

    found = find_results(args.results)
    entries = [read_entry(*item) for item in found.items()]
    tables = arrange(entries)
    problems = [f'{e.path}: {e.problem}' for e in entries if e.problem]
    summary = Summary('Results of evaluations', FOOTER, tables, problems)
    return summary.publish(args.out / 'results.md')


if __name__ == '__main__':
    raise SystemExit(main())
