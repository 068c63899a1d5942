#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Write the config of a pre-training or a detector for your own data.

For a folder of images it chooses network, crops, batch, length and all that
follows from it, by the table in docs/en/pretrain.md and by this machine. For
COCO annotations and a checkpoint it writes a Mask R-CNN (without masks in them
a Faster R-CNN) with its classes, image size, schedule and the widths of the
checkpoint's backbone. The config is built before it is written, and has a
reason for each value. Then the command prints how long the training takes,
and the commands that follow.
"""

import argparse
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from command_end import errors_in_one_line
from command_line import announce, at_least, make_parser, number
from command_paths import checkpoint, file, folder

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmscfs.recipes import Machine

EXAMPLES = """
examples:
  # a pre-training on any folder of images
  python tools/recipe.py my/images --out my_scfs.py
  # a tenth of the table's length, and k-NN on labeled images on the way
  python tools/recipe.py my/images --out my_scfs.py --steps 1000 \\
      --labeled my/labeled
  # for another machine: 8 GPUs of 80 GiB
  python tools/recipe.py my/images --out my_scfs.py --gpus 8 --gpu-memory 80
  # a detector that starts from the checkpoint
  python tools/recipe.py --detector my/annotations.json --images my/images \\
      --pretrained work_dirs/my_scfs/epoch_1600.pth --out my_det.py

exit code: 0 the config is written, 1 it cannot be, 2 wrong call
"""
TRIED = 3  # steps that are timed
CORES = 9  # for each GPU
LONG = 60  # minutes, from which on --steps is pointed at
OPTIONS = (
    (
        *('--steps', at_least(2), 'N'),
        "length of the training (default: the table's; detectors 12 epochs, "
        'at least 3000 steps, on a CPU 1000). A pre-training rounds it to '
        'whole epochs, two or more, and says so',
    ),
    (
        *('--labeled', folder, 'FOLDER'),
        'measure k-NN on the way: a folder for each class below its train '
        'and val',
    ),
    (
        *('--gpus', at_least(0), 'N'),
        'GPUs of the training, 0 for the CPU (default: those of this machine)',
    ),
    (
        '--gpu-memory',
        number(lambda x: 0 < x < math.inf, 'GiB above 0, e.g. 24'),
        'GIB',
        'memory of each (default: what is free on this machine)',
    ),
    (
        *('--detector', file, 'ANNOTATIONS'),
        'write the config of a detector for this COCO file',
    ),
    (
        *('--pretrained', checkpoint, 'CHECKPOINT'),
        'checkpoint that the detector starts from',
    ),
    (
        *('--images', folder, 'FOLDER'),
        "images of --detector (default: the annotations' folder)",
    ),
    (
        *('--val', file, 'ANNOTATIONS'),
        'COCO file to validate on (default: every fifth image of --detector, '
        'in two new files beside --out)',
    ),
    ('--val-images', folder, 'FOLDER', 'images of --val (default: --images)'),
)


def parse_args() -> argparse.Namespace:
    """Parse the command line; a bad value exits with code 2."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        'folder',
        nargs='?',
        type=folder,
        metavar='IMAGES',
        help='folder of the images to pre-train on, at any depth',
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='CONFIG.py',
        help='config to write, a new file',
    )
    for name, kind, metavar, text in OPTIONS:
        parser.add_argument(name, type=kind, metavar=metavar, help=text)
    args = parser.parse_args()
    if (args.folder is None) == (args.detector is None):
        both = f'{args.folder} and --detector {args.detector} are two: '
        parser.error(
            both * bool(args.folder)
            + 'name a folder of images, or --detector ANNOTATIONS'
        )
    if args.detector and not args.pretrained:
        parser.error('--detector requires --pretrained CHECKPOINT')
    names = ('pretrained', 'images', 'val', 'val_images')
    for name in ('labeled',) if args.detector else names:
        if getattr(args, name) is not None:
            option = f'--{name.replace("_", "-")}'
            kind = 'a pre-training' if args.detector else '--detector'
            parser.error(f'{option} is for {kind}: leave it out')
    if args.val_images is not None and args.val is None:
        parser.error(
            '--val-images is for --val: name the annotations of these images'
        )
    if args.gpu_memory is not None and args.gpus == 0:
        parser.error(
            '--gpu-memory is for GPUs, and --gpus 0 says CPU: leave '
            'one of them out'
        )
    return args


def machine_of(args: argparse.Namespace) -> 'Machine':
    """Return the machine of the training, this one or another."""
    from mmscfs.recipes import GIB, look_at_machine

    machine = look_at_machine(args.gpus)
    if args.gpu_memory is not None:
        if not machine.gpus:
            raise ValueError(
                f'--gpu-memory {args.gpu_memory:g}: this machine has no GPU; '
                'say how many the training has with --gpus'
            )
        # Another machine: cores as tools/slurm_train.sh asks for them.
        machine = machine._replace(
            memory=args.gpu_memory * GIB, cores=CORES * machine.gpus
        )
    if not machine.memory:
        raise ValueError(
            f'--gpus {machine.gpus}: this machine has no GPU to look at; say '
            'how much memory each has with --gpu-memory'
        )
    return machine


def train_command(args: argparse.Namespace, processes: int) -> str:
    """Return the command that trains the config."""
    out = shlex.quote(args.out)
    if processes > 1:
        return f'tools/dist_train.sh {out} {processes}'
    hide = 'CUDA_VISIBLE_DEVICES= ' if args.gpus == 0 else ''
    return f'{hide}python tools/train.py {out}'


def print_rows(
    rows: dict[str, str],
    cfg: 'Config',
    steps: int,
    memory: float,
    machine: 'Machine',
    shorter: str = '',
) -> None:
    """Print what a training is, and what it takes: memory, and time here.

    ``shorter`` is said where that is long.
    """
    import torch

    from mmscfs.recipes import GIB, time_step

    took = 'not known: no step can be timed on this machine'
    if bool(machine.gpus) == torch.cuda.is_available():
        seconds = time_step(cfg, TRIED)
        minutes = seconds * steps / 60
        took = (
            'less than 2 minutes'
            if minutes < 2
            else f'about {minutes:.0f} minutes'
            if minutes < 90
            else f'about {minutes / 60:.1f} hours'
        )
        took += f': {TRIED} steps took {seconds:.2f} s each'
        took += shorter * (minutes > LONG)
    rows = rows | {
        'memory': f'about {memory / GIB:.1f} GiB of '
        f'{machine.memory / GIB:.1f} GiB for each process',
        'time': took,
    }
    for name, value in rows.items():
        if value:
            print(f'  {name:8} {value}')


def pretraining(args: argparse.Namespace) -> None:
    """Write a pre-training, and say what it is and what follows."""
    from mmscfs.recipes import write_pretraining

    machine = machine_of(args)
    cfg, settings, images = write_pretraining(
        args.folder,
        args.out,
        machine=machine,
        steps=args.steps,
        labeled=args.labeled,
    )
    total = settings.batch * settings.processes
    size, local, number = settings.views
    print(f'{args.out}: SCFS for {images.total:,} images')
    rows = {
        'images': f'{images.total:,}, {images.side} px on the shorter side '
        '(median)',
        'left out': f'{images.damaged:,} files that cannot be opened: python '
        'tools/dataset_converters/check_dataset.py '
        f'{shlex.quote(str(args.folder))} --decode names them',
        'network': f'ResNet-{settings.depth} of {settings.width} channels',
        'views': f'2 of {size} px, {number} of {local} px',
        'length': f'{settings.steps:,} steps of {total} images, '
        f'{settings.epochs:,} epochs',
        'rounded': settings.other_length,
        'devices': f'{settings.processes} GPU(s)' if machine.gpus else 'CPU',
    }
    if not images.damaged:
        del rows['left out']
    if settings.processes < machine.gpus:
        rows['devices'] += f' of {machine.gpus}: each needs two images a step'
    print_rows(rows, cfg, settings.steps, settings.memory, machine)
    work_dir = shlex.quote(f'work_dirs/{Path(args.out).stem}')
    print(
        'next:',
        f'  {train_command(args, settings.processes)}',
        f'  python tools/analysis_tools/report.py {work_dir}',
        'or, with COCO annotations, a detector from it:',
        '  python tools/recipe.py --detector ANNOTATIONS.json --images '
        f'{shlex.quote(str(args.folder))} --pretrained '
        f'{work_dir}/epoch_{settings.epochs}.pth --out my_det.py',
        sep='\n',
    )


def detector(args: argparse.Namespace) -> None:
    """Write a detector, and say what it is and what follows."""
    from mmscfs.datasets.checks.common import short
    from mmscfs.recipes import write_detector

    machine = machine_of(args)
    cfg, values = write_detector(
        args.detector,
        args.out,
        pretrained=args.pretrained,
        images=args.images,
        val=args.val,
        val_images=args.val_images,
        machine=machine,
        steps=args.steps,
    )
    print(
        f'{args.out}: {values["kind"]}, {len(values["classes"])} classes, '
        f'from a ResNet-{values["depth"]} of {values["width"]} channels'
    )
    if not args.val:
        print(
            f'  Every fifth image validates: {values["val"].name}, '
            f'{values["train"].name}. Name a file with --val where images '
            'of one scene must stay together.'
        )
    if values['without']:
        print(
            f'  Classes without a box: {short(values["without"])}. Remove '
            'them from the categories if they are placeholders.'
        )
    steps, seen = values['steps'], values['seen']
    rows = {
        'length': f'{steps:,} steps of {values["total"]} images, '
        f'{seen:,} epoch{"s" * (seen != 1)}',
        'images': f'{values["shape"][1]} px on the shorter side',
    }
    shorter = '; for a first try name fewer steps with --steps'
    shorter *= not machine.gpus and args.steps is None
    print_rows(rows, cfg, steps, values['memory'], machine, shorter)
    work_dir = shlex.quote(f'work_dirs/{Path(args.out).stem}')
    print(
        'next:',
        f'  {train_command(args, max(machine.gpus, 1))} --pretrained '
        f'{shlex.quote(args.pretrained)}',
        f'  python tools/analysis_tools/report.py {work_dir}',
        f'  python tools/detect.py {shlex.quote(args.out)} '
        f'{work_dir}/iter_{steps}.pth NEW_IMAGES --out {work_dir}/found',
        sep='\n',
    )


def main() -> None:
    """Write the config."""
    args = parse_args()
    announce(f'looking at {args.folder or args.detector}')
    with errors_in_one_line():
        (detector if args.detector else pretraining)(args)


if __name__ == '__main__':
    main()
