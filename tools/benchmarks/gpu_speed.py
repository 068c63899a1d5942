# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Steps of gpu.py: how fast, in how much memory, and where the time goes."""

import argparse
import gc
import os
import statistics
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import step as step_benchmark
import torch
from gpu_models import (
    DINO,
    ROOT,
    SCFS,
    TINY,
    VIT,
    Check,
    Figures,
    build,
    make_views,
    train_step,
)
from torch import Tensor

GIB = 2**30
CHECKPOINTED = ('model.checkpoint_activations=True',)
FIRST = ('--search-views', 'first')
WAIT = 'called a synchronizing CUDA operation'  # torch's warning
# What is timed, the most telling first: name, config, batch, precision, more
# options of step.py, settings.
PLAN = (
    ('SCFS', SCFS, 64, 'fp16', (), ()),
    ('SCFS', SCFS, 256, 'fp16', (), ()),
    ('SCFS', SCFS, 64, 'bf16', (), ()),
    ('SCFS', SCFS, 32, 'fp16', (), ()),
    ('SCFS', SCFS, 128, 'fp16', (), ()),
    ('SCFS', SCFS, 256, 'bf16', (), ()),
    ('SCFS, checkpointed', SCFS, 256, 'fp16', (), CHECKPOINTED),
    ('SCFS, first view searched', SCFS, 64, 'fp16', FIRST, ()),
    ('DINO', DINO, 64, 'fp16', (), ()),
    ('SCFS ViT-S', VIT, 64, 'bf16', (), ()),
    ('SCFS', SCFS, 64, 'fp32', (), ()),
    ('SCFS, checkpointed', SCFS, 64, 'fp16', (), CHECKPOINTED),
)
TINY_PLAN = (
    ('SCFS', SCFS, 4, 'fp32', (), ()),
    ('SCFS, checkpointed', SCFS, 4, 'fp32', (), CHECKPOINTED),
)


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_seconds(run: Callable[[], object], rounds: int = 5) -> float:
    """Return the median time of a function, after two calls to warm up."""
    seconds = []
    for _ in range(rounds + 2):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def machine(args: argparse.Namespace) -> Iterator[Check | Figures]:
    """Name the machine, and measure its two ceilings."""
    is_gpu = args.device == 'cuda'
    name, memory = f'CPU, {torch.get_num_threads()} threads', 'of the system'
    if is_gpu:
        properties = torch.cuda.get_device_properties(0)
        name = f'{properties.name}, {properties.major}.{properties.minor}'
        memory = f'{properties.total_memory / GIB:.0f} GiB'
    versions = f'torch {torch.__version__}, cuDNN'
    versions += f' {torch.backends.cudnn.version()}'
    for what, found in (
        ('device', name),
        ('memory', memory),
        ('versions', versions),
        ('CPU cores', str(len(os.sched_getaffinity(0)))),
    ):
        yield Check(what, found, '', None)
    source = torch.ones(GIB // 4 if is_gpu else 2**20, device=args.device)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source))
    rate = 2 * source.nbytes / seconds / 1e9
    yield Figures('copy, GB/s read and written', {'value': rate})
    side = 8192 if is_gpu else 256
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        factor = torch.ones(side, side, dtype=dtype, device=args.device)
        seconds = median_seconds(lambda x=factor: x @ x)
        what = f'product of {dtype}, TFLOP/s'.replace('torch.', '')
        yield Figures(what, {'value': 2 * side**3 / seconds / 1e12}, 2)


def time_steps(
    device: str, case: tuple, *more: str
) -> Iterator[Check | Figures]:
    """Time a training step by tools/benchmarks/step.py."""
    name, config, batch, precision, options, settings = case
    words = ['--config', str(ROOT / config), '--batch', str(batch)]
    words += ['--precision', precision, *options, *more]
    if device == 'cpu':
        words += ['--global-size', '64', '--local-size', '32']
        words += ['--num-local', '2', '--rounds', '1']
        settings = [*settings, *(f'{k}={v}' for k, v in TINY[config].items())]
    if settings:
        words += ['--cfg-options', *settings]
    gc.collect()
    if device == 'cuda':
        torch.cuda.empty_cache()
    what = f'{name}, {precision}, batch {batch}'
    args = step_benchmark.parse_args(words)
    try:
        steps, _ = step_benchmark.build_steps(args)
        results = step_benchmark.measure(steps, args.rounds, progress=False)
    except torch.OutOfMemoryError:
        yield Check(what, 'out of memory', 'fits', None)
        return
    except Exception as error:  # the next case may work
        traceback.print_exc()
        yield Check(what, f'{type(error).__name__}: {error}', 'runs', False)
        return
    floor = statistics.median(results[step_benchmark.FLOOR]['backward'])
    for part, result in results.items():
        if part == step_benchmark.FLOOR:
            continue
        both = zip(result['backward'], result['update'], strict=True)
        seconds = statistics.median(map(sum, both))
        figures = {
            'ms': 1000 * seconds,
            'images/s': batch / seconds,
            'GiB': result['memory'] / GIB,
            'x backbone': statistics.median(result['backward']) / floor,
        }
        is_ours = part == step_benchmark.OURS
        yield Figures(what if is_ours else f'{part}, {what}', figures, 2)


def speed(args: argparse.Namespace) -> Iterator[Check | Figures]:
    """Time steps by batch, precision and setting, while time is left."""
    torch.backends.cudnn.benchmark = True  # as training has it
    plan = PLAN if args.device == 'cuda' else TINY_PLAN
    longest = 0.0
    for number, case in enumerate(plan):
        before = time.monotonic()
        if before + 1.5 * longest > args.end:
            left = f'{len(plan) - number} of {len(plan)} cases left out'
            yield Check('time', left, 'enough for all', None)
            return
        yield from time_steps(args.device, case, '--no-textbook')
        longest = max(longest, time.monotonic() - before)


def textbook(args: argparse.Namespace) -> Iterator[Check | Figures]:
    """Time the textbook form of the method beside ours, in one process."""
    torch.backends.cudnn.benchmark = True
    plan = PLAN if args.device == 'cuda' else TINY_PLAN
    times = {}
    for row in time_steps(args.device, plan[0]):
        yield row
        if isinstance(row, Figures):
            times[row.what.startswith(step_benchmark.TEXTBOOK)] = row.figures
    if len(times) == 2:
        gain = times[True]['ms'] / times[False]['ms']
        yield Figures('textbook form / ours', {'value': gain}, 2)


def compiled(args: argparse.Namespace) -> Iterator[Check | Figures]:
    """Time a compiled step, and how long compiling takes."""
    if args.device == 'cpu':
        yield Check('compiled step', 'not run', 'needs a GPU', None)
        return
    start = time.monotonic()
    name, *rest = PLAN[0]
    case = (f'{name}, compiled', *rest)
    yield from time_steps(args.device, case, '--no-textbook', '--compile')
    what = 'seconds until all is compiled and timed'
    yield Figures(what, {'value': time.monotonic() - start})


def trace(args: argparse.Namespace) -> Iterator[Check | Figures]:
    """Count what a step waits for, and find its largest costs."""
    is_gpu = args.device == 'cuda'
    batch, sizes = (32, (224, 224, *[96] * 8)) if is_gpu else (4, (64, 64, 32))
    precision = 'fp16' if is_gpu else 'fp32'
    model, wrapper = build(SCFS, args.device, precision)
    views = make_views(args.device, batch, *sizes)
    for _ in range(3):
        train_step(model, wrapper, views)
    if is_gpu:
        synchronize()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            torch.cuda.set_sync_debug_mode('warn')
            train_step(model, wrapper, views)
            torch.cuda.set_sync_debug_mode('default')
        waits = [w for w in caught if WAIT in str(w.message)]
        for wait in {f'{w.filename}:{w.lineno}' for w in waits}:
            print('waits at', wait)  # for the log
        number = len(waits)
        yield Check('host waits in a step', str(number), '0', not number)
    else:
        yield Check('host waits in a step', 'not run', 'needs a GPU', None)
    with torch.profiler.profile() as profiler:
        train_step(model, wrapper, views)
        synchronize()
    kind = 'device' if is_gpu else 'cpu'
    events = [
        (getattr(event, f'self_{kind}_time_total') / 1000, event)
        for event in profiler.key_averages()
        if not is_gpu or 'CUDA' in str(event.device_type)
    ]
    events = sorted((e for e in events if e[0] > 0), key=lambda e: -e[0])
    total = sum(ms for ms, _ in events)
    if not events:
        yield Check('costs', 'none seen', 'seen by the profiler', False)
        return
    launches = sum(event.count for _, event in events)
    yield Figures('kernels and copies of a step', {'value': launches}, 0)
    yield Figures('the device works in a step', {'ms': total}, 2)
    for number, (ms, event) in enumerate(events[:3], 1):
        share = f'{ms / total:.0%} in {event.count}'
        yield Figures(
            f'cost {number}: {event.key[:60]}, {share}', {'ms': ms}, 2
        )


def loader(args: argparse.Namespace) -> Iterator[Check | Figures]:
    """Measure images per second of the cores, and what colors cost the GPU."""
    import cv2
    from loader_pipelines import make_images, measure, our_pipeline
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner
    from mmpretrain.registry import MODELS

    import mmscfs  # noqa: F401
    from mmscfs.datasets import ImageFiles

    init_default_scope('mmpretrain')
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    is_tiny = args.device == 'cpu'
    made, batch, workers = (4, 2, 1) if is_tiny else (64, 32, min(cores, 32))
    with tempfile.TemporaryDirectory() as folder:
        root = args.data or folder
        if not args.data:
            make_images(Path(folder), made, (500, 375), seed=0)
        dataset = ImageFiles(data_root=str(root))
        count = min(made, len(dataset))
        paths = [dataset.get_data_info(i)['img_path'] for i in range(count)]
        for name, on_device in (('ours', False), ('color on device', True)):
            pipeline = our_pipeline(8, 0, color_on_device=on_device)
            rates = [measure(pipeline, paths) for _ in range(3)]
            what = f'loader, {name}, a core'
            yield Figures(what, {'images/s': max(rates)})
        batches = 2 if is_tiny else 100 + 4 * workers
        if not args.data:  # names of the same files, enough for an epoch
            for number in range(batches * batch - made):
                os.link(paths[number % made], f'{folder}/more_{number}.jpg')
        recipe = Config.fromfile(ROOT / SCFS)
        cfg = recipe.train_dataloader
        cfg.update(batch_size=batch, num_workers=0, persistent_workers=False)
        cfg.dataset.update(data_root=str(root), data_prefix='')
        preprocessor = MODELS.build(recipe.data_preprocessor).to(args.device)
        for name, on_device in (('views', False), ('views and colors', True)):
            cfg.dataset.pipeline[1].color_on_device = on_device
            views = next(iter(Runner.build_dataloader(cfg, seed=0)))
            seconds = median_seconds(partial(preprocessor, views))
            what = f'{name} on the device, batch {batch}'
            yield Figures(what, {'ms': 1000 * seconds}, 2)
        cfg.num_workers = workers
        cfg.dataset.pipeline[1].color_on_device = False
        ready = iter(Runner.build_dataloader(cfg, seed=0))
        # What the workers prepared before it is asked for does not count.
        early = 0 if is_tiny else 4 * workers
        for _ in islice(ready, early):
            pass
        start = time.perf_counter()
        number = sum(1 for _ in ready) * batch
        rate = number / (time.perf_counter() - start)
        del ready
        text = f'loader, {workers} workers'
        if number:
            yield Figures(text, {'images/s': rate})
        else:
            few = f'{len(dataset)} images'
            yield Check(text, few, f'{(early + 1) * batch} or more', None)


def knn(args: argparse.Namespace) -> Iterator[Check | Figures]:
    """Find neighbors of 50,000 features among 100,000; check some."""
    from mmscfs.evaluation import find_neighbors

    queries, bank, channels, k = 50_000, 100_000, 2048, 20
    if args.device == 'cpu':
        queries, bank, channels = 100, 500, 32
    torch.manual_seed(0)
    centers = torch.randn(1000, channels, device=args.device)
    noise = torch.randn(bank + queries, channels, device=args.device)
    index = torch.randint(1000, (bank + queries,), device=args.device)
    features = centers[index].add_(noise)
    asked, kept = features[bank:], features[:bank]
    rounds = 1 if args.device == 'cuda' else 3
    seconds = median_seconds(lambda: find_neighbors(asked, kept, k), rounds)
    what = f'k-NN, {queries:,} x {bank:,} of {channels} channels'
    figures = {'ms': 1000 * seconds, 'images/s': queries / seconds}
    yield Figures(what, figures)
    some = asked[:1000]
    found = find_neighbors(some, kept, k)
    exact = exact_neighbors(some, kept, k)
    pairs = (found.index[..., None] == exact[:, None]).any(-1)
    share = pairs.double().mean().item()
    yield Check('neighbors found', f'{share:.2%}', '>= 99.9%', share >= 0.999)


def exact_neighbors(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return the places of the nearest features, in double precision."""
    queries, bank = queries.double(), bank.double()
    cosines = queries @ bank.T / bank.norm(dim=-1)
    return cosines.topk(k).indices
