#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Time RepresentationHook beside the training step that it interrupts.

In each round a training step, the backbone's pass over some views, and the
figures of as many features as a measurement has; then, from the medians, the
share of a training that goes to the hook. Views and features are noise, as
their values cost nothing; the views that the hook makes once a run are of
made images, on one core.
"""

import statistics
import tempfile
import time
from pathlib import Path

from measuring import add_counts, make_parser, make_table, ratio
from step import OURS, build_steps
from step import parse_args as parse_step

EXAMPLES = """
examples:
  # four minutes on two cores
  python tools/benchmarks/figures.py
  # an epoch of 5,000 images, measured after each
  python tools/benchmarks/figures.py --epoch-images 5000 --interval 1
"""
MADE = 8  # images


def parse_args(argv=None):
    """Parse the command line; return its options and those of the step."""
    parser = make_parser(__doc__, EXAMPLES)
    add_counts(
        parser,
        ('num-images', 256, 8, 'images of a measurement'),
        ('num-views', 4, 2, 'views of each'),
        ('interval', 10, 1, 'epochs between measurements'),
        ('epoch-images', 126689, 1, "images of an epoch; ImageNet-100's"),
        ('batch', 4, 2, 'images of the step'),
        ('timed-images', 8, 1, 'images whose views are timed'),
        ('rounds', 3, 1, 'rounds, after one that is not counted'),
    )
    args, others = parser.parse_known_args(argv)
    words = ['--no-textbook', '--batch', str(args.batch), *others]
    return args, parse_step(words)


def time_making(images: int, draws: int) -> float:
    """Return the seconds of a view that the hook makes."""
    from loader_pipelines import make_images, measure, our_pipeline

    with tempfile.TemporaryDirectory() as folder:
        paths = make_images(Path(folder), images, (500, 375), seed=0)
        # Two views in each draw.
        return 1 / measure(our_pipeline(0, 0), paths * draws) / 2


def main(argv=None) -> int:
    """Run the benchmark, return its exit code."""
    args, step_args = parse_args(argv)

    # After parsing, so that --help and a wrong option answer at once.
    import torch
    from mmengine.config import Config
    from mmpretrain.registry import MODELS
    from rich.console import Console
    from rich.progress import track

    from mmscfs.engine.hooks.representation_hook import (
        layer_features,
        layer_figures,
    )

    if step_args.threads:
        torch.set_num_threads(step_args.threads)
    steps, model = build_steps(step_args)
    settings = Config.fromfile(step_args.config).data_preprocessor
    preprocessor = MODELS.build(settings)
    model.data_preprocessor = preprocessor.to(next(model.parameters()).device)
    size = step_args.global_size
    shape = args.timed_images, args.num_views, 3, size, size
    views = torch.randint(256, shape, dtype=torch.uint8)

    def figures():
        for name, parts in made.items():
            layer_figures(name, *parts, seed=0)

    def step():
        steps[OURS].backward()
        steps[OURS].update()

    def passes():
        # Its features come back to the CPU, so it waits for the device.
        return layer_features(model, views)

    made = {
        name: [torch.randn(args.num_images, *part.shape[1:]) for part in parts]
        for name, parts in passes().items()
    }
    parts = {'step': step, 'views': passes, 'figures': figures}
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for turn in track(
        range(args.rounds + 1), 'rounds (one is not counted)', transient=True
    ):
        for name, run in parts.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn > 0:
                seconds[name].append(time.perf_counter() - start)
    factor = args.num_images / args.timed_images
    measurements = [
        factor * of_views + of_figures
        for of_views, of_figures in zip(
            seconds['views'], seconds['figures'], strict=True
        )
    ]
    in_steps = ratio(measurements, seconds['step'])
    steps_between = args.interval * args.epoch_images / args.batch
    making = time_making(MADE, args.num_views)
    table = make_table(
        f'{args.num_images} images, {args.num_views} views, '
        f'medians of {args.rounds} rounds',
        'part',
        'seconds',
    )
    for name, value in (
        (f'a training step of {args.batch} images', seconds['step']),
        ('figures of all layers', seconds['figures']),
        ('a measurement: pass and figures', measurements),
    ):
        table.add_row(name, f'{statistics.median(value):.2f}')
    once = making * args.num_images * args.num_views
    table.add_row('making the views, once a run', f'{once:.2f}')
    console = Console(width=100)
    console.print(table)
    console.print(
        f'A measurement takes as long as {in_steps:.1f} steps: '
        f'{100 * in_steps / steps_between:.3f} % of a training on '
        f'{args.epoch_images} images that is measured every {args.interval} '
        'epochs'
    )
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
