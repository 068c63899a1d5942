#!/usr/bin/env python
# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""See SCFS learn, in minutes on a CPU and without a download.

Makes scenes of handwritten digits over photographs, pre-trains a small SCFS
on them, and compares what the trained teacher and a random network know
about scenes that neither has seen. Every step is a command that you can type
yourself; the demo prints each.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
CONFIG = 'configs/scfs/scfs_resnet18-w16_1xb64-mcrop-coslr-14e_digits.py'
ITERATION = re.compile(
    r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\].* loss: ([\d.]+)'
)
EVALUATION_SEEDS = (2023, 2024, 2025)  # of the views, for every network
console = Console()


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='example: make demo ARGS="--seed 1"',
    )
    parser.add_argument('--seed', type=int, default=0, help='default: 0')
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=ROOT / 'work_dirs' / 'demo',
        help='default: work_dirs/demo',
    )
    parser.add_argument(
        '--data',
        type=Path,
        default=ROOT / 'data' / 'digit-scenes',
        help='folder of the scenes, made if missing (default: '
        'data/digit-scenes)',
    )
    parser.add_argument(
        '--scenes',
        nargs=2,
        type=int,
        default=[3000, 600],
        metavar=('TRAIN', 'UNSEEN'),
        help='number of scenes (default: 3000 600)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_cfg.max_epochs=1',
    )
    return parser.parse_args()


def show_command(command: list[str]) -> None:
    """Print a command as one would type it."""
    words = ['python' if word == sys.executable else word for word in command]
    console.print(f'$ {" ".join(words)}', style='bold', highlight=False)


def make_data(folder: Path, train: int, val: int) -> None:
    """Make the scenes unless they are there."""
    command = [
        sys.executable,
        'tools/dataset_converters/make_digit_scenes.py',
        '--out',
        str(folder),
        '--train',
        str(train),
        '--val',
        str(val),
    ]
    show_command(command)
    if code := subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise SystemExit(code)  # it has said why


def pretrain(args: argparse.Namespace) -> Path:
    """Run tools/train.py behind a progress bar; return the checkpoint.

    Raises:
        SystemExit: The training failed; its last words are printed.
    """
    command = [
        sys.executable,
        'tools/train.py',
        CONFIG,
        '--work-dir',
        str(args.work_dir),
        '--seed',
        str(args.seed),
        '--cfg-options',
        f'train_dataloader.dataset.data_root={args.data}',
        *args.cfg_options,
    ]
    show_command(command)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    log_path = args.work_dir / 'train.log'
    progress = Progress(
        TextColumn('pre-training'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn('loss {task.fields[loss]}'),
        console=console,
    )
    epochs = max_epochs(args.cfg_options)
    with (
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
        open(log_path, 'w', encoding='utf-8') as log,
        progress,
    ):
        task = progress.add_task('', total=None, loss='-')
        tail = []
        for line in process.stdout:
            log.write(line)
            tail = [*tail[-24:], line]
            if found := ITERATION.search(line):
                epoch, iteration, length = map(int, found.groups()[:3])
                progress.update(
                    task,
                    total=epochs * length,
                    completed=(epoch - 1) * length + iteration,
                    loss=found[4],
                )
        if process.wait() == 0:  # the log names every tenth iteration only
            progress.update(task, completed=progress.tasks[task].total)
    if process.returncode:
        console.print(''.join(tail), markup=False, highlight=False)
        raise SystemExit(f'the training failed; all of it: {log_path}')
    return Path((args.work_dir / 'last_checkpoint').read_text().strip())


def max_epochs(cfg_options: list[str]) -> int:
    """Number of epochs of the run."""
    from mmengine.config import Config, DictAction

    cfg = Config.fromfile(ROOT / CONFIG)
    if cfg_options:
        parser = argparse.ArgumentParser()
        parser.add_argument('--o', nargs='+', action=DictAction)
        cfg.merge_from_dict(parser.parse_args(['--o', *cfg_options]).o)
    return cfg.train_cfg.max_epochs


class Scenes:
    """The scenes as tensors, for every network the same.

    Args:
        folder (Path): The data set.
        multi_crop (dict): The config's MultiCrop.
    """

    def __init__(self, folder: Path, multi_crop: dict) -> None:
        from mmpretrain.registry import TRANSFORMS

        self.load = TRANSFORMS.build(dict(type='LoadImage'))
        # More local views than in training make a better picture.
        self.multi_crop = TRANSFORMS.build({**multi_crop, 'num_local': 4})
        self.paths = {
            split: sorted((folder / split).glob('*/*.jpg'))
            for split in ('train', 'val')
        }

    def labels(self, split: str):
        """The main digits, int64 (M,)."""
        import torch

        return torch.tensor([int(p.parent.name) for p in self.paths[split]])

    def whole(self, split: str):
        """Whole scenes at the size of a global view, uint8 (M, 3, S, S)."""
        import cv2
        import torch

        size = self.multi_crop.global_size
        images = []
        for path in self.paths[split]:
            image = self.load(dict(img_path=str(path)))['img']
            image = cv2.resize(
                image, (size, size), interpolation=cv2.INTER_AREA
            )
            images.append(torch.from_numpy(image).permute(2, 0, 1))
        return torch.stack(images)

    def views(self, index: int, seed: int) -> list:
        """The views of one unseen scene, as the training would make them."""
        from mmscfs.datasets.samplers import SampleKey

        results = self.load(dict(img_path=str(self.paths['val'][index])))
        results['sample_idx'] = SampleKey(index, seed)
        return self.multi_crop(results)['img']

    def global_views(self, seed: int) -> tuple:
        """Two views of each unseen scene, each uint8 (Q, 3, S, S)."""
        import torch

        scenes = range(len(self.paths['val']))
        pairs = [self.views(i, seed)[:2] for i in scenes]
        first, second = zip(*pairs, strict=True)
        return torch.stack(first), torch.stack(second)


def normalise(model, images):
    """Send uint8 images (M, 3, S, S) through the model's preprocessor."""
    data = dict(inputs=[images], data_samples=None)
    return model.data_preprocessor(data)['inputs'][0]


def evaluate(model, scenes: Scenes) -> dict[str, float]:
    """View retrieval and k-NN accuracy of a network, in percent."""
    import torch

    from mmscfs.evaluation import (
        top_k_accuracy,
        view_retrieval,
        weighted_knn,
    )
    from mmscfs.models.search import global_average_pool

    model.eval()

    @torch.no_grad()
    def features(images):
        return torch.cat(
            [
                global_average_pool(model(normalise(model, part))[-1])
                for part in images.split(100)
            ]
        )

    # Each view searches for the other one: both ways, several draws.
    recalls = []
    for seed in EVALUATION_SEEDS:
        pair = tuple(map(features, scenes.global_views(seed)))
        recalls += [view_retrieval(*pair), view_retrieval(*reversed(pair))]
    recall = {k: mean(found[k] for found in recalls) for k in (1, 5)}
    scores = weighted_knn(
        features(scenes.whole('val')),
        features(scenes.whole('train')),
        scenes.labels('train'),
        k=20,
    )
    return {
        'view recall@1': recall[1],
        'view recall@5': recall[5],
        '20-NN accuracy': top_k_accuracy(scores, scenes.labels('val')),
    }


def draw(model, scenes: Scenes, path: Path, count: int = 3) -> None:
    """Draw the search maps of some unseen scenes."""
    import torch

    from mmscfs.visualization import compute_search_maps, draw_search_maps

    samples = []
    for index in range(0, len(scenes.paths['val']), 101)[:count]:
        views = scenes.views(index, EVALUATION_SEEDS[0])
        maps = compute_search_maps(
            model,
            normalise(model, views[0][None])[0],
            normalise(model, torch.stack(views[2:])),
        )
        rgb = [view.flip(0).permute(1, 2, 0).numpy() for view in views]
        samples.append((rgb[0], rgb[2:], maps))
    draw_search_maps(
        samples, path, 'Where the teacher finds each local view (bright)'
    )


def main() -> None:
    """Run the demo."""
    args = parse_args()
    start = time.monotonic()
    make_data(args.data, *args.scenes)
    checkpoint = pretrain(args)

    with console.status('comparing the networks on unseen scenes'):
        # After the training, so that --help answers at once.
        import torch
        from mmengine.config import Config
        from mmengine.logging import MMLogger
        from mmengine.registry import init_default_scope
        from mmpretrain.registry import MODELS

        import mmscfs  # noqa: F401
        from mmscfs.checkpoint import read_checkpoint

        init_default_scope('mmpretrain')
        MMLogger.get_current_instance().setLevel('WARNING')
        cfg = Config.fromfile(args.work_dir / Path(CONFIG).name)
        cfg.model.data_preprocessor = cfg.data_preprocessor
        pipeline = cfg.train_dataloader.dataset.pipeline
        scenes = Scenes(args.data, pipeline[1])
        torch.manual_seed(args.seed)
        model = MODELS.build(cfg.model)
        model.init_weights()
        results = {'random initialisation': evaluate(model, scenes)}
        model.load_state_dict(read_checkpoint(checkpoint)['state_dict'])
        results['SCFS teacher'] = evaluate(model, scenes)
        picture = args.work_dir / 'search_maps.png'
        draw(model, scenes, picture)

    (args.work_dir / 'demo.json').write_text(
        json.dumps(dict(seed=args.seed, **results), indent=2) + '\n'
    )
    table = Table(
        title=f'{len(scenes.paths["val"])} unseen scenes, seed {args.seed}, '
        f'{time.monotonic() - start:.0f} s (percent)'
    )
    table.add_column('network')
    for name in results['SCFS teacher']:
        table.add_column(name, justify='right')
    for network, figures in results.items():
        table.add_row(network, *(f'{v:.1f}' for v in figures.values()))
    console.print(table)
    console.print(
        'View recall: how often a random view of a scene finds the other '
        'view of it among all scenes. Minutes of CPU teach that, not yet '
        'what a digit is: see the k-NN accuracy (chance is 10).'
    )
    console.print(f'picture: {picture}', highlight=False)
    console.print(f'checkpoint: {checkpoint}', highlight=False)


if __name__ == '__main__':
    main()
