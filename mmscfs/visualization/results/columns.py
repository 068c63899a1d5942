# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
"""Which tables a result stands in, and in which of their columns."""

from collections.abc import Mapping

from .entries import Entry, local_scale, num_local, varied

SMALL_SETS = {
    'cifar10': 'CIFAR-10',
    'cifar100': 'CIFAR-100',
    'cub200': 'CUB-200',
    'cars': 'Cars',
    'aircraft': 'Aircraft',
    'pets': 'Pets',
}
# Columns of data sets that the paper lacks.
PROTOCOLS = {
    'knn': 'k-NN',
    'linear': 'linear',
    'linear-sweep': 'linear sweep',
    'semi-1%': '1% labels',
    'semi-10%': '10% labels',
    'finetune': 'fine-tuning',
    'svm': 'SVM mAP',
}
ABLATED = ('ResNet-101', 'ViT-S-16', 'ViT-B-16')  # in Table 10
# Tables whose columns are pre-trainings that differ in one setting.
SERIES = {'9': 'local_scale', 'fig5': 'num_local'}
PER_DATA = ('', 'fig4', 'fig5')  # a table of these for each data set


def group_of(entry: Entry, number: str) -> tuple[str, str]:
    """Return the table of an entry: the paper's number, and the data set."""
    if number not in PER_DATA:
        return number, ''
    r = entry.result
    return number, f'{r.dataset}, {entry.part}' if entry.part else r.dataset


def scores_in(entry: Entry, number: str) -> Mapping[str, float | None]:
    """Return an entry's scores by column of a table; none if of others."""
    r = entry.result
    if number == '':
        return {PROTOCOLS[r.protocol]: entry.score}
    if number == 'fig4':
        layers = entry.by_layer
        return layers if r.protocol == 'knn' and len(layers) > 1 else {}
    if number == 'fig5':
        column = num_local(r) if r.protocol in ('knn', 'linear') else None
        return {column: entry.score} if column else {}
    if number == '5':
        if r.protocol != 'finetune' or r.dataset not in SMALL_SETS:
            return {}
        return {SMALL_SETS[r.dataset]: entry.score}
    if r.dataset != ('in1k' if number in ('1', '2') else 'in100'):
        return {}
    if number == '2':
        share = r.protocol.removeprefix('semi-')
        tops = (1, 5) if share != r.protocol else ()
        return {
            f'top-{top} {share}': r.metrics.get(f'accuracy/top{top}')
            for top in tops
        }
    if number == '9':
        scale = local_scale(r) if r.protocol == 'linear' else None
        return {scale: entry.score} if scale else {}
    column = {'knn': 'k-NN', 'linear': 'LP'}.get(r.protocol)
    return {column: entry.score} if column else {}


def belongs(entry: Entry, number: str) -> bool:
    """Tell whether the paper's rows may stand beside an entry."""
    r = entry.result
    if number == 'fig4' or entry.part or not scores_in(entry, number):
        return False
    if number == '10':
        return r.backbone in ABLATED and not varied(r)
    if r.backbone != 'ResNet-50':
        return False
    if number == '7':
        facts = r.pretraining
        return (
            varied(r) in (set(), {'search'})
            or (varied(r) == {'num_local'} and facts['num_local'] == 0)
            or (
                varied(r) == {'search_views'}
                and facts['search_views'] == 'none'
            )
        )
    if number == '8':
        layers = bool(r.pretraining.get('search_layers'))
        return layers and varied(r) <= {'search_layers'}
    if number == 'fig5' and r.dataset != 'in100':
        return False
    return number not in SERIES or varied(r) <= {SERIES[number]}
