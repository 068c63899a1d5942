# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Steps of gpu.py: tools/train.py killed and resumed; a detector's step."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from gpu_models import ROOT, TINY_NECK, TINY_SEARCH, Check, Figures
from gpu_speed import GIB, median_seconds
from jobs import Job, end
from loader_pipelines import make_images
from torch.utils._pytree import tree_leaves

DIGITS = 'configs/scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
MASK_RCNN = 'configs/detection/coco/mask-rcnn_r50-fpn_1x_coco.py'
SMALL_MASK_RCNN = (
    'configs/detection/digits/mask-rcnn_r18-w16-fpn_demo_digits.py'
)
# torch asks for it where products must be deterministic.
DETERMINISTIC = {'CUBLAS_WORKSPACE_CONFIG': ':4096:8'}
KILLED_AT = 5  # of 12 iterations
PARTS = ('state_dict', 'optimizer', 'param_schedulers')


def resume(args: argparse.Namespace) -> Iterator[Check | Figures]:
    """Train, kill with SIGKILL, resume; compare with a run left alone."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, 'images')
        images.mkdir()
        batch = 32 if args.device == 'cuda' else 8
        make_images(images, 4 * batch, (96, 72), seed=0)
        options = [
            f'train_dataloader.dataset.data_root={images}',
            'train_dataloader.dataset.data_prefix=',
            f'train_dataloader.batch_size={batch}',
            'train_cfg.max_epochs=3',
            'default_hooks.checkpoint.by_epoch=False',
            'default_hooks.logger.interval=1',
            'default_hooks.pictures.interval=99',
            'default_hooks.view_recall.interval=99',
            'randomness.deterministic=True',
            'env_cfg.cudnn_benchmark=False',
        ]
        if args.device == 'cpu':
            options += ['model.backbone.base_channels=8']
            options += [f'{k}={v}' for k, v in TINY_NECK.items()]
            options += [f'{k}={v}' for k, v in TINY_SEARCH.items()]

        def start(name: str, *more: str) -> Job:
            command = [sys.executable, str(ROOT / 'tools/train.py'), DIGITS]
            command += ['--work-dir', f'{folder}/{name}', *more]
            log = args.out / f'resume_{name}{"".join(more)}.log'
            options_too = [*command, '--cfg-options', *options]
            return Job(options_too, log, DETERMINISTIC)

        jobs = [start('whole'), start('killed')]
        try:
            whole, killed = jobs
            saved = Path(folder, 'killed')
            while killed.outcome() is None and not any(
                int(path.stem[5:]) >= KILLED_AT
                for path in saved.glob('iter_*.pth')
            ):
                time.sleep(0.05)
            was_running = killed.outcome() is None
            killed.process.kill()
            killed.process.wait()
            found = 'while it trained' if was_running else 'after its end'
            yield Check('killed', found, 'while it trained', was_running)
            jobs.append(start('killed', '--resume'))
            for what, job in (('left alone', whole), ('resumed', jobs[-1])):
                while (outcome := job.outcome()) is None:
                    time.sleep(0.05)
                found = outcome or 'ends'
                yield Check(f'run {what}', found, 'ends', not outcome)
                if outcome:
                    return
        finally:
            end(job for job in jobs if job.outcome() is None)
        both = [last_checkpoint(Path(folder, n)) for n in ('whole', 'killed')]
        for part in PARTS:
            pairs = zip_longest(*(tree_leaves(own[part]) for own in both))
            number = sum(not is_same(*pair) for pair in pairs)
            found = f'{number} values differ' if number else 'the same bits'
            yield Check(f'resumed: {part}', found, 'the same bits', not number)


def last_checkpoint(work_dir: Path) -> Mapping[str, Any]:
    """Return the newest checkpoint of a run."""
    from mmscfs.checkpoint import read_checkpoint

    return read_checkpoint((work_dir / 'last_checkpoint').read_text().strip())


def is_same(one: Any, other: Any) -> bool:
    """Whether two leaves of checkpoints are equal, tensors bit by bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        kinds = [(x.dtype, x.shape) for x in (one, other)]
        return kinds[0] == kinds[1] and torch.equal(bits(one), bits(other))
    return type(one) is type(other) and one == other


def bits(values: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor."""
    return values.contiguous().flatten().view(torch.uint8)


def detector(args: argparse.Namespace) -> Iterator[Check | Figures]:
    """Take steps of Mask R-CNN in fp32, and in mixed precision."""
    is_gpu = args.device == 'cuda'
    for name, kind in (('fp32', 'OptimWrapper'), ('AMP', 'AmpOptimWrapper')):
        if kind.startswith('Amp') and not is_gpu:
            yield Check('Mask R-CNN AMP', 'not run', 'needs a GPU', None)
            continue
        model, wrapper = build_detector(is_gpu, kind)
        data = detection_batch(is_gpu)
        before = [p.detach().clone() for p in model.parameters()]
        if is_gpu:
            torch.cuda.reset_peak_memory_stats()
        losses = {}

        def run(model=model, data=data, wrapper=wrapper, losses=losses):
            losses.update(model.train_step(data, wrapper))

        seconds = median_seconds(run, rounds=3 if is_gpu else 1)
        loss = float(losses['loss'])
        is_finite = loss == loss and abs(loss) != float('inf')
        what = f'Mask R-CNN {name}: loss'
        yield Check(what, f'{loss:.3f}', 'finite', is_finite)
        pairs = zip(before, model.parameters(), strict=True)
        moved = sum(not torch.equal(a, b) for a, b in pairs)
        needed = sum(p.requires_grad for p in model.parameters())
        what, found = f'Mask R-CNN {name}: parameters that moved', str(moved)
        yield Check(what, found, f'{needed}', moved == needed)
        figures = {'ms': 1000 * seconds}
        if is_gpu:
            figures['GiB'] = torch.cuda.max_memory_allocated() / GIB
        yield Figures(f'Mask R-CNN {name}, batch 2', figures, 2)


def build_detector(is_gpu: bool, kind: str) -> tuple[Any, Any]:
    """Return a detector and an optimizer wrapper of a type."""
    import mmdet.models  # noqa: F401
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope

    path = MASK_RCNN if is_gpu else SMALL_MASK_RCNN
    cfg = Config.fromfile(ROOT / path)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    wrapper = dict(
        type=kind, optimizer=dict(type='SGD', lr=1e-3, momentum=0.9)
    )
    if kind.startswith('Amp'):
        wrapper['loss_scale'] = 512.0  # one that does not overflow
    model.to('cuda' if is_gpu else 'cpu').train()
    return model, build_optim_wrapper(model, wrapper)


def detection_batch(is_gpu: bool) -> dict:
    """Return two images with boxes and masks, of noise."""
    from mmdet.testing import demo_mm_inputs

    shape = (3, 800, 1088) if is_gpu else (3, 128, 128)
    return demo_mm_inputs(
        2,
        image_shapes=[shape] * 2,
        num_items=[8, 8],
        num_classes=80 if is_gpu else 10,
        with_mask=True,
    )
