# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from mmscfs.evaluation import class_ranks, top_k_accuracy, weighted_knn


@pytest.fixture
def features():
    """Thirty queries, and a bank of eighty features of five classes."""
    queries = torch.randn(30, 6, dtype=torch.float64)
    bank = 3 * torch.randn(80, 6, dtype=torch.float64)
    return queries, bank, torch.randint(0, 5, (80,))


@pytest.mark.parametrize(
    ('settings', 'k', 'temperature'),
    [
        ({}, 20, 0.07),  # the defaults
        (dict(k=1), 1, 0.07),
        (dict(k=80, temperature=0.5), 80, 0.5),
    ],
)
@pytest.mark.parametrize(
    ('precision', 'tolerance'),
    # A cosine in float32 is wrong by 1e-7, a vote by exp(1e-7 / 0.07).
    [('fp64', 1e-9), ('auto', 1e-5)],
)
def test_equals_scikit_learn(
    features, settings, k, temperature, precision, tolerance
):
    queries, bank, labels = features
    classifier = KNeighborsClassifier(
        n_neighbors=k,
        metric='cosine',
        algorithm='brute',
        weights=lambda distance: np.exp((1 - distance) / temperature),
    ).fit(bank.numpy(), labels.numpy())
    scores = weighted_knn(*features, **settings, precision=precision).numpy()
    np.testing.assert_array_equal(
        scores.argmax(1), classifier.predict(queries.numpy())
    )
    np.testing.assert_allclose(
        scores / scores.sum(1, keepdims=True),
        classifier.predict_proba(queries.numpy()),
        rtol=tolerance,
        atol=1e-12,
    )


def test_temperature_below_what_float64_holds_is_refused(features):
    with pytest.raises(ValueError, match='temperature=0.001 must be >='):
        weighted_knn(*features, temperature=0.001)


def test_top_k_accuracy_by_hand():
    scores = torch.tensor(
        [
            [0.1, 0.2, 0.7],  # 2, 1, 0
            [0.5, 0.3, 0.2],  # 0, 1, 2
            [0.3, 0.4, 0.2],  # 1, 0, 2
            [0.0, 0.9, 0.8],  # 1, 2, 0
        ]
    )
    labels = torch.tensor([2, 1, 0, 0])
    assert top_k_accuracy(scores, labels) == 25
    assert top_k_accuracy(scores, labels, k=2) == 75
    assert top_k_accuracy(scores, labels, k=3) == 100


@pytest.mark.parametrize(
    ('scores', 'ranks'),
    [
        # Of equals the lower class comes first.
        ([1.0, 3.0, 3.0, 0.0], [2, 0, 1, 3]),
        ([-3.0, -1.0, -2.0], [2, 0, 1]),
    ],
)
def test_ranks_by_hand(scores, ranks):
    count = len(scores)
    table = torch.tensor([scores]).expand(count, count)
    assert class_ranks(table, torch.arange(count)).tolist() == ranks


def test_the_order_of_summation_does_not_break_ties():
    a, b, c = 0.1, 0.2, 0.3
    assert (a + b) + c != a + (b + c)
    scores = torch.tensor([[a + (b + c), (a + b) + c]], dtype=torch.float64)
    assert class_ranks(scores, torch.tensor([0])).item() == 0
    assert class_ranks(scores.flip(1), torch.tensor([0])).item() == 0


def test_what_is_no_number_is_never_right():
    scores = torch.tensor([[float('nan')] * 3, [0.0, float('nan'), 1.0]])
    assert (class_ranks(scores, torch.tensor([0, 2])) > 0).all()
    assert top_k_accuracy(scores, torch.tensor([0, 2])) == 0
