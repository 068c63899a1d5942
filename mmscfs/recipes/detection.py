# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Write a detector's config for a COCO file and a backbone, and run it.

``detect.txt`` beside this file is the config, with a place for each value.
"""

import copy
import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from pprint import pformat
from statistics import median
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from mmscfs.checkpoint import (
    find_backbone,
    naming,
    read_checkpoint,
    resnet_settings,
    write_atomically,
)
from mmscfs.checkpoint.pretrained import KEPT
from mmscfs.datasets.checks import check_data
from mmscfs.datasets.checks.coco import read_coco, read_json
from mmscfs.datasets.image_names import check_names
from mmscfs.engine import prepare_config, start_from

from .memory import PROCESS, SHARE
from .pretraining import check_out, fill
from .running import Run, train
from .table import GIB, Machine, look_at_machine

# Narrow networks and others.
DETECTORS = {
    True: 'digits/mask-rcnn_r18-w16-fpn_demo_digits.py',
    False: 'coco/mask-rcnn_r50-fpn_1x_coco.py',
}
HELD_OUT = 5  # an image of so many, without --val
EPOCHS, MOST_STEPS = 12, 90_000  # COCO's 1x
LEAST_STEPS = {True: 1_000, False: 3_000}  # on a CPU, on GPUs
# mmdet's model zoo: Mask R-CNN R50-FPN takes 4.4 GB at 2 images of 1333 x 800.
EACH, PIXELS = 2.2e9, 1333 * 800
# Bytes of a parameter, with its gradient and its momentum. So estimated, 1.1,
# 1.4 and 1.6 GB for ResNets of 18 (of 16 channels), 18 and 50 layers at 160
# px; on a CPU 1.0, 1.5 and 1.7 GB were taken.
STORED = 12


def part_files(out: Path) -> list[Path]:
    """Return new files for training and validation, beside the config.

    Raises:
        ValueError: One exists.
    """
    paths = [
        out.with_name(f'{out.stem}_{name}.json').resolve()
        for name in ('train', 'val')
    ]
    for path in paths:
        if path.exists():
            raise ValueError(
                f'{str(path)!r} exists: name another config, or remove it'
            )
    return paths


def split(coco: dict, paths: Sequence[Path]) -> None:
    """Write every fifth image of a COCO file into one for validation.

    Both have ``iscrowd``, without which pycocotools cannot evaluate.
    """
    images = sorted(coco['images'], key=lambda image: str(image['id']))
    random.Random(0).shuffle(images)
    number = max(len(images) // HELD_OUT, 1)
    for path, part in zip(
        paths, (images[number:], images[:number]), strict=True
    ):
        ids = {image['id'] for image in part}
        kept = [
            dict(iscrowd=0) | a
            for a in coco['annotations']
            if a['image_id'] in ids
        ]
        content = {**coco, 'images': part, 'annotations': kept}
        write_atomically(path, json.dumps(content).encode())


def write_detector(
    annotations: str | Path,
    out: str | Path,
    *,
    pretrained: str | Path,
    images: str | Path | None = None,
    val: str | Path | None = None,
    val_images: str | Path | None = None,
    machine: Machine | None = None,
    steps: int | None = None,
) -> tuple[Config, dict[str, Any]]:
    """Write the config of a Mask R-CNN for a COCO file and a backbone.

    Without masks in the file it has no mask head, which is Faster R-CNN.

    Args:
        annotations (str | Path): The COCO file.
        out (str | Path): The config to write, a new file.
        pretrained (str | Path): A checkpoint with a ResNet, of those that
            ``--pretrained`` takes.
        images (str | Path, optional): Folder of the images. Defaults to
            None: that of the annotations.
        val (str | Path, optional): COCO file to validate on. Defaults to
            None: a fifth of ``annotations``, written beside ``out``.
        val_images (str | Path, optional): Folder of its images. Defaults to
            None: ``images``.
        machine (Machine, optional): Where it will run. Defaults to None:
            here.
        steps (int, optional): Its length. Defaults to None: 12 epochs, at
            least 3,000 steps, on a CPU 1,000.

    Returns:
        tuple[Config, dict]: The config, and the values in it; with "memory",
        the bytes that a step of a process takes.

    Raises:
        ValueError: The files do not fit each other, the checkpoint has no
            ResNet, or ``out`` exists.
        OSError: A file is missing, or cannot be written.
    """
    path = check_out(out)
    source = Path(annotations).expanduser().resolve()
    if not source.is_file():
        raise FileNotFoundError(f'no annotations {str(source)!r}')
    setting = repr(str(source))
    read_coco(str(source), setting)  # checks it
    coco = read_json(str(source), setting)
    folder = Path(images or source.parent).expanduser().resolve()
    names = [image['file_name'] for image in coco['images']]
    check_names(names, setting, str(folder), f'--images {str(folder)!r}')
    if not coco.get('annotations'):
        raise ValueError(f'{setting} has no annotations')
    parts = [Path(val).expanduser().resolve()] if val else part_files(path)
    machine = machine or look_at_machine()
    checkpoint = str(Path(pretrained).expanduser())
    content = read_checkpoint(checkpoint)
    with naming(checkpoint):
        found = find_backbone(content)
    resnet = resnet_settings(found.state)
    if resnet is None:
        raise ValueError(
            f'{checkpoint!r} holds a {found} backbone that is not a '
            'plain ResNet: write its config by hand (docs/en/transfer.md)'
        )
    values = detector_values(coco, resnet, machine, steps)
    train_file, val_file = [source, *parts][-2:]
    classes = pformat(values['classes'], width=60, compact=True)
    text = fill(
        'detect',
        **values | dict(classes=classes),
        file=source.name,
        checkpoint=Path(checkpoint).name,
        train=repr(str(train_file)),
        val=repr(str(val_file)),
        images=repr(f'{folder}/'),
        val_images=repr(
            f'{Path(val_images or folder).expanduser().resolve()}/'
        ),
    )
    cfg = Config.fromstring(text, '.py')
    prepare_config(cfg)
    start_from(cfg, checkpoint)
    KEPT.pop((checkpoint, None), None)  # it was a trial
    model = MODELS.build(cfg.model)
    if val:
        check_data(cfg)
    else:
        whole = copy.deepcopy(cfg)  # for errors that name the user's file
        whole.train_dataloader.dataset.ann_file = str(source)
        check_data(whole, ['train'])
    try:
        if not val:
            split(coco, parts)
            check_data(cfg, ['val'])
        write_atomically(path, text.encode())
    except Exception as error:
        message = str(error)
        for part in parts if not val else ():
            part.unlink(missing_ok=True)
            message = message.replace(str(part), str(source))
        error.args = (message,)
        raise
    parameters = sum(p.numel() for p in model.parameters())
    area = values['shape'][0] * values['shape'][1] / PIXELS
    each = EACH * area * resnet['base_channels'] / 64
    return cfg, values | dict(
        train=train_file,
        val=val_file,
        memory=PROCESS + STORED * parameters + values['batch'] * each,
    )


def detector_values(
    coco: dict, resnet: Mapping, machine: Machine, steps: int | None
) -> dict[str, Any]:
    """Return the values of ``detect.txt`` that data and backbone decide."""
    is_cpu, is_narrow = not machine.gpus, resnet['base_channels'] < 64
    largest = 320 if is_cpu else 800
    side = median(min(i['width'], i['height']) for i in coco['images'])
    short = max(min(int(side) // 32 * 32, largest), 64)
    long = round(short * 1333 / 800)
    sides = [a['area'] ** 0.5 for a in coco['annotations'] if a['area'] > 0]
    box = median(sides or [128]) * short / side
    has_masks = all(a.get('segmentation') for a in coco['annotations'])
    processes = max(machine.gpus, 1)
    batch = 8 if is_narrow else 2 if is_cpu else max(16 // processes, 1)
    if not is_cpu:
        each = EACH * short * long / PIXELS
        fits = int(SHARE * machine.memory / each)
        if fits < 1:
            raise ValueError(
                f'{machine.memory / GIB:.2g} GiB of free GPU memory do not '
                'hold an image: end other programs on it, or train on the '
                'CPU (--gpus 0)'
            )
        batch = min(batch, fits)
    total, count = batch * processes, len(coco['images'])
    if steps is None:
        steps = round(EPOCHS * count / total)
        steps = min(max(steps, LEAST_STEPS[is_cpu]), MOST_STEPS)
    if steps < 2:
        raise ValueError(f'steps={steps} must be at least 2')
    seen = steps * total / count
    middle = 11 if is_narrow else 16
    finest = min(round(0.44 * box), 56)  # 56 px go with COCO's 128
    classes = len(coco['categories'])
    used = {a['category_id'] for a in coco['annotations']}
    mask = ('mask_roi_extractor=None,', 'mask_head=None,')
    if has_masks:
        mask = (
            f'mask_roi_extractor=dict(finest_scale={finest}),',
            f'mask_head=dict(num_classes={classes}),',
        )
    return dict(
        base=DETECTORS[is_narrow],
        count=count,
        classes=tuple(c['name'] for c in coco['categories']),
        without=[c['name'] for c in coco['categories'] if c['id'] not in used],
        depth=resnet['depth'],
        stem=resnet['stem_channels'],
        width=resnet['base_channels'],
        channels=resnet['channels'],
        box=round(box),
        # The middle of strides 4 to 32, and to 64, finds the median box.
        scale=min(max(2 ** round(math.log2(box / middle)), 1), 8),
        finest=max(finest, 4),
        mask='\n'.join(f'        {line}' for line in mask),
        largest=largest,
        with_mask=has_masks,
        metric=['bbox', 'segm'] if has_masks else ['bbox'],
        sizes=[(long, round(short * f)) for f in (0.8, 0.9, 1)],
        shape=(long, short),
        batch=batch,
        total=total,
        workers=1 if is_cpu else 2,
        kind='Mask R-CNN' if has_masks else 'Faster R-CNN',
        seen=round(seen) or float(f'{seen:.1g}'),
        steps=steps,
        interval=max(steps // 5, 1),
        warm_up=max(min(steps // 10, 500), 1),
        rate=f'{0.002 * total / 8 if is_narrow else 0.02 * total / 16:.4g}',
        log_interval=20 if steps < 5_000 else 50,
    )


def finetune(
    annotations: str | Path,
    out: str | Path | None = None,
    *,
    pretrained: str | Path,
    images: str | Path | None = None,
    val: str | Path | None = None,
    val_images: str | Path | None = None,
    steps: int | None = None,
    work_dir: str | Path | None = None,
    resume: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
) -> Run:
    """Write a detector's config for a COCO file, and train it here.

    Args:
        annotations (str | Path): See :func:`write_detector`, as ``images``,
            ``val``, ``val_images`` and ``steps``.
        out (str | Path, optional): The config. Defaults to None: named
            after the annotations, in the current folder.
        pretrained (str | Path): The checkpoint to start from.
        work_dir (str | Path, optional): See :func:`pretrain`, as
            ``resume`` and ``cfg_options``.

    Raises:
        ValueError, OSError: See :func:`write_detector`, and what
            tools/train.py refuses.
        KeyboardInterrupt: It was stopped, after it was saved.

    Example:
        >>> found = mmscfs.finetune(
        ...     'my/annotations.json', pretrained=run.checkpoint
        ... )
        >>> found.figures['val/coco/bbox_mAP']
    """
    path = Path(out or f'det_{Path(annotations).stem}.py').expanduser()
    is_new = not (resume and path.is_file())
    if is_new:
        machine = look_at_machine()
        write_detector(
            annotations,
            path,
            pretrained=pretrained,
            images=images,
            val=val,
            val_images=val_images,
            machine=machine._replace(gpus=min(machine.gpus, 1)),
            steps=steps,
        )
    return train(path, work_dir, pretrained, resume, cfg_options, is_new)
