# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""What a result says in the paper's terms."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple

from .origin import make_label
from .result_files import PROTOCOLS, Result

# Images of training and validation; None where lists differ.
IMAGES = {
    'in1k': (1281167, 50000),
    'in100': (None, 5000),
    'cifar10': (50000, 10000),
    'cifar100': (50000, 10000),
    'cub200': (5994, 5794),
    'cars': (8144, 8041),
    'aircraft': (6667, 3333),
    'pets': (3680, 3669),
    'voc07': (5011, 4952),
}
SEMI_IMAGES = {'semi-1%': 12811, 'semi-10%': 128116}
# What SimCLR and BYOL measure by the mean over classes.
PER_CLASS = ('aircraft', 'pets')
VARIED = ('DINO', 'SCFS')  # in the paper's ablations
LAYER_SCORE = r'knn/(\w+)_k\d+_top1'


class Entry(NamedTuple):
    """A result and its file.

    Attributes:
        path (Path): The file.
        result (Result): Its content.
        variant (str): Name of a sweep's variant; "" outside of sweeps.
        seed (int, optional): Seed of the sweep's pre-training.
    """

    path: Path
    result: Result
    variant: str = ''
    seed: int | None = None

    @property
    def start(self) -> Hashable:
        """What entries of one network have in common."""
        r = self.result
        if r.checkpoint:
            return self.path.parent, r.checkpoint, r.network, r.backbone
        return str(r.pretraining), r.backbone

    @property
    def score(self) -> float | None:
        """The score in percent that the protocol is known by."""
        r = self.result
        name = PROTOCOLS[r.protocol].score
        if name == 'accuracy/top1' and r.dataset in PER_CLASS:
            name = 'single-label/recall'
        return r.metrics.get(name)

    @property
    def by_layer(self) -> dict[str, float]:
        """The best k-NN score of each layer, the paper's Res2 to Res4."""
        scores: dict[str, float] = {}
        for name, value in self.result.metrics.items():
            found = re.fullmatch(LAYER_SCORE, name)
            if found and value is not None:
                layer = found[1]
                if self.result.backbone.startswith('ResNet'):
                    layer = layer.replace('layer', 'Res')
                scores[layer] = max(value, scores.get(layer, value))
        return scores

    @property
    def part(self) -> str:
        """Which part of the data set it is of, "" if all or unknown."""
        r = self.result
        train, val = IMAGES.get(r.dataset, (None, None))
        if r.dataset == 'in1k':
            train = SEMI_IMAGES.get(r.protocol, train)
        parts = [
            f'{r.settings[name]} of {total} {word} images'
            for name, word, total in (
                ('train_images', 'training', train),
                ('val_images', 'validation', val),
            )
            if total and r.settings.get(name, total) != total
        ]
        return ', '.join(parts)

    @property
    def problem(self) -> str:
        """Why tables leave it out, else ""."""
        r = self.result
        for length, unit in (
            ('max_epochs', 'epochs'),
            ('max_iters', 'iterations'),
        ):
            total = r.settings.get(length)
            trained = r.epoch is not None and r.protocol != 'knn'
            if trained and total and r.epoch < total:
                return f'unfinished: {r.epoch} of {total} {unit}'
        if self.score is None:
            return f'its metrics lack a number for the score of {r.protocol}'
        return ''

    def label(self, method: str) -> str:
        """Return a method with its data and network, or else the file."""
        r = self.result
        name = r.checkpoint or '-' if method == '-' else method
        return make_label(name, r.pretraining['dataset'], r.network)

    @property
    def contrast_mode(self) -> str:
        """The method, DINO and SCFS as Table 7 names them."""
        mode = self.result.pretraining['method'] or '-'
        facts = self._ablated
        if facts.get('search_views') == 'none':
            mode = 'DINO w ML'
        elif 'RoI' in str(facts.get('search')):
            mode = 'ROI Crop'
        if facts.get('num_local') == 0:
            mode += ' w/o MC'
        return f'{mode}, search alone' if facts.get('search_alone') else mode

    @property
    def search_layers(self) -> str:
        """The search layers as Table 8 names them."""
        layers = self.result.pretraining.get('search_layers') or []
        return ', '.join(f'Res{i + 1}' for i in layers) or '-'

    @property
    def local_scale(self) -> str | None:
        """The scale of the local crops as Table 9 names it."""
        scale = self._ablated.get('local_scale')
        return scale and '-'.join(f'{value:g}' for value in scale)

    @property
    def num_local(self) -> str | None:
        """The number of local views, a column of Fig. 5."""
        number = self._ablated.get('num_local')
        return None if number is None else str(number)

    @property
    def varied(self) -> set[str]:
        """What differs from the recipe of the paper's ablations."""
        is_vit = self.result.backbone.startswith('ViT')
        default = dict(
            num_local=8,
            local_scale=[0.05, 0.14],
            search_layers=[3, 7, 11] if is_vit else [1, 2, 3],
            search='SoftFeatureSearch',
            search_views='all',
        )
        return {
            name
            for name, value in default.items()
            if self._ablated.get(name) not in (None, value)
        }

    @property
    def _ablated(self) -> dict:
        """The recipe of a method that the paper's ablations have."""
        facts = self.result.pretraining
        return facts if facts['method'] in VARIED else {}
