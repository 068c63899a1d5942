# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Write a pre-training's config, check it by building it, and run it.

``pretrain.txt`` and ``knn.txt`` beside this file are the config, with a place
for each value.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS, init_default_scope
from mmpretrain.registry import DATASETS, MODELS

from mmscfs.checkpoint import check_writable, write_atomically
from mmscfs.datasets.checks import check_data
from mmscfs.datasets.samplers import SampleKey
from mmscfs.engine import prepare_config
from mmscfs.engine.optimizers import default_precision
from mmscfs.engine.screen import only_warnings, prints_in_log

from .memory import PROCESS, SHARE, step_memory
from .running import Run, train
from .table import (
    FEWEST_STEPS,
    GIB,
    Images,
    Machine,
    Settings,
    choose,
    look_at_images,
    look_at_machine,
)

BASES = {
    'cpu': 'mmscfs::scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py',
    'gpu': 'mmscfs::scfs_r50.py',
    'knn': 'mmscfs::_base_/datasets/folders_val.py',
}


def fill(name: str, /, **values: Any) -> str:
    """Return a template of this folder with its values in place."""
    text = Path(__file__).with_name(f'{name}.txt').read_text(encoding='utf-8')
    return Template(text).substitute(values)


def check_out(out: str | Path) -> Path:
    """Return the file to write a config to.

    Raises:
        ValueError: It does not end with .py, or exists.
        OSError: It cannot be written.
    """
    path = Path(out).expanduser()
    if path.suffix != '.py':
        raise ValueError(f'{str(path)!r}: a config ends with .py')
    if path.exists():
        raise ValueError(
            f'{str(path)!r} exists: name another file, or remove it'
        )
    check_writable(path)
    return path


def pretraining_config(
    images: Images,
    settings: Settings,
    machine: Machine,
    labeled: str | Path | None = None,
) -> tuple[str, Config]:
    """Return a pre-training's config, with a reason for each value.

    As text, and as it runs.
    """
    table, total = settings.column, settings.batch * settings.processes
    is_cpu = not machine.gpus
    bases = [BASES['cpu' if is_cpu else 'gpu']]
    size, local, num_local = settings.views
    interval, warm_up = settings.share(1 / 20), settings.share(1 / 20)
    momentum, center = (0.99, 0.5) if settings.is_brief else (0.996, 0.9)
    # Figures of fewer steps tell nothing: the monitor looks later.
    judged = max(settings.steps, FEWEST_STEPS)
    norm = table["projector's norm"]
    each = machine.cores // settings.processes - 1
    where = 'one GPU' if settings.processes == 1 else 'several GPUs'
    where = 'a CPU' if is_cpu else where
    knn = ''
    if labeled is not None:
        folder = Path(labeled).expanduser().resolve()
        lacking = [n for n in ('train', 'val') if not (folder / n).is_dir()]
        if lacking:
            raise FileNotFoundError(
                f'{str(folder)!r} has no folder {lacking[0]!r}: '
                'put a folder for each class below train and below val'
            )
        bases.append(BASES['knn'])
        knn = fill(
            'knn',
            interval=interval,
            edge=round(size * 256 / 224),
            size=size,
            folder=repr(str(folder)),
            name=repr(folder.name),
        )
    text = fill(
        'pretrain',
        count=images.total,
        side=images.side,
        where=where,
        bases=bases,
        epochs=settings.epochs,
        per_epoch=settings.steps // settings.epochs,
        val_interval=knn and f', val_interval={interval}',
        warm_up=warm_up,
        rate=f'{0.003 * total / 64 if is_cpu else 0.1 * total / 256:.4g}',
        last_rate='1e-6' if is_cpu else f'{0.0048 * total / 256:.4g}',
        total=total,
        depth=settings.depth,
        width=settings.width,
        prototypes=min(int(table['prototypes']), images.total),
        norm=None if norm == 'none' else f"dict(type='{norm}')",
        center=center,
        size=size,
        local=local,
        num_local=num_local,
        batch=settings.batch,
        workers=1 if is_cpu else min(max(each, 1), 8),
        folder=repr(str(images.folder)),
        log_interval=min(max(settings.steps // 100, 10), 50),
        interval=interval,
        save_best=knn and ", save_best='knn/top1', rule='greater'",
        pictures=settings.share(1 / 10),
        memory=round(1 / (1 - momentum)),
        momentum=momentum,
        start=table['teacher temperature'],
        end=table['its end'],
        quarter=settings.share(1 / 4),
        frozen=settings.share(float(table['prototypes frozen'])),
        begin=min(1000, judged // 3),
        window=min(200, judged // 10),
    )
    cfg = Config.fromstring(text + knn, '.py')
    prepare_config(cfg)
    return text + knn, cfg


def write_pretraining(
    images: str | Path,
    out: str | Path,
    *,
    machine: Machine | None = None,
    steps: int | None = None,
    labeled: str | Path | None = None,
) -> tuple[Config, Settings, Images]:
    """Write the config of a pre-training on a folder of images.

    It is built before it is written: data set, model and crops.

    Args:
        images (str | Path): The folder, of any depth.
        out (str | Path): The config to write, a new file.
        machine (Machine, optional): Where it will run. Defaults to None:
            here.
        steps (int, optional): Its length, rounded to whole epochs. Defaults
            to None: the table's.
        labeled (str | Path, optional): Folder with a folder for each class
            below train and val, to measure k-NN on. Defaults to None.

    Raises:
        ValueError: There are too few images, the memory does not suffice, or
            ``out`` exists.
        OSError: The folder has no images, or ``out`` cannot be written.
    """
    path = check_out(out)
    machine = machine or look_at_machine()
    found = look_at_images(images)
    settings = choose(found, machine, steps)
    text, cfg = pretraining_config(found, settings, machine, labeled)
    check_data(cfg)
    model = build_model(cfg)
    model.check_fit([(3, size, size) for size in settings.views[:2]])
    # GPUs have fp16; what this machine has decides for its CPU alone.
    is_half = machine.gpus > 0 or default_precision() != 'fp32'
    memory = step_memory(cfg, model, is_half)
    most = memory.largest(SHARE * machine.memory)
    if machine.gpus and most < settings.batch:
        if most < 2:
            raise ValueError(
                f'{machine.memory / GIB:.1f} GiB of free GPU memory do not '
                'hold two images: end other programs on it, or train on the '
                'CPU (--gpus 0)'
            )
        settings = choose(found, machine, steps, most)
        text, cfg = pretraining_config(found, settings, machine, labeled)
    taken = memory.of(settings.batch) + PROCESS * (not machine.gpus)
    settings = settings._replace(memory=taken)
    write_atomically(path, text.encode())
    return cfg, settings, found


def build_model(cfg: Config) -> Any:
    """Build the model of a config, as mmengine's runner does."""
    init_default_scope(cfg.default_scope)
    settings = dict(cfg.model)
    settings.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    return MODELS.build(settings)


def time_step(cfg: Config, steps: int = 3) -> float:
    """Train a few steps of a config here; return the seconds of one.

    Where the loader's workers are slower than the step, theirs count.

    Args:
        cfg (Config): From :func:`write_pretraining` or
            :func:`write_detector`.
        steps (int): How many are timed, after one that is not. Defaults
            to 3.
    """
    model = build_model(cfg).to(get_device()).train()
    with only_warnings():
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    loader = cfg.train_dataloader
    with prints_in_log():
        dataset = DATASETS.build(loader.dataset)
    keys = [SampleKey(i % len(dataset)) for i in range(loader.batch_size)]
    begin = time.perf_counter()
    data = [dataset[key] for key in keys]
    loading = (time.perf_counter() - begin) / max(loader.num_workers, 1)
    collate = loader.get('collate_fn') or dict(type='pseudo_collate')
    batch, seconds = FUNCTIONS.get(collate['type'])(data), []
    for _ in range(steps + 1):
        begin = time.perf_counter()
        model.train_step(batch, wrapper)
        if hasattr(model, 'after_step'):  # of pre-trainings
            model.after_step(0.99)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return max(median(seconds[1:]), loading)


def pretrain(
    images: str | Path,
    out: str | Path | None = None,
    *,
    steps: int | None = None,
    labeled: str | Path | None = None,
    work_dir: str | Path | None = None,
    resume: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
) -> Run:
    """Write a config for a folder of images, and pre-train with it here.

    On one device; several GPUs need ``tools/dist_train.sh`` with the config.

    Args:
        images (str | Path): See :func:`write_pretraining`.
        out (str | Path, optional): The config. Defaults to None: named
            after the folder, in the current one.
        steps (int, optional): The length. Defaults to None: the table's.
        labeled (str | Path, optional): For k-NN on the way.
        work_dir (str | Path, optional): Defaults to None:
            ``work_dirs/<name of the config>``.
        resume (bool): Continue the run of an existing config ``out``; one
            that has finished says so. Defaults to False.
        cfg_options (Mapping, optional): Other settings by dotted name.

    Raises:
        ValueError, OSError: See :func:`write_pretraining`, and what
            tools/train.py refuses.
        KeyboardInterrupt: It was stopped, after it was saved.

    Example:
        >>> run = mmscfs.pretrain('my/images', 'my_scfs.py')
        >>> run.checkpoint, run.figures['train/loss']
    """
    name = Path(images).expanduser().resolve().name
    path = Path(out or f'scfs_{name}.py').expanduser()
    if resume and path.is_file():
        folder = Path(images).expanduser().resolve()
        if repr(str(folder)) not in path.read_text(encoding='utf-8'):
            raise ValueError(
                f'{str(path)!r} was written for other images than {folder}: '
                'name another config, or leave resume out'
            )
        return train(path, work_dir, None, resume, cfg_options)
    machine = look_at_machine()
    machine = machine._replace(gpus=min(machine.gpus, 1))
    _, settings, _ = write_pretraining(
        images, path, machine=machine, steps=steps, labeled=labeled
    )
    note = settings.other_length
    return train(path, work_dir, None, resume, cfg_options, True, note)
