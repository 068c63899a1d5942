# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

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


def plain_knn(queries, bank, labels, k, temperature, num_classes):
    """Return the class scores with Python's own numbers."""

    def cosine(a, b):
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / (math.hypot(*a) * math.hypot(*b))

    scores = []
    for query in queries.tolist():
        neighbors = sorted(
            zip(
                (cosine(query, row) for row in bank.tolist()),
                labels.tolist(),
                strict=True,
            ),
            reverse=True,
        )
        row = [0.0] * num_classes
        for similarity, label in neighbors[:k]:
            row[label] += math.exp(similarity / temperature)
        scores.append(row)
    return torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize('k', [1, 7, 80])
@pytest.mark.parametrize('temperature', [0.07, 0.5])
@pytest.mark.parametrize(
    ('precision', 'tolerance'),
    # A cosine in float32 is wrong by 1e-7, a vote by exp(1e-7 / 0.07).
    [('fp64', 1e-10), ('fp32', 1e-5), ('auto', 1e-5)],
)
def test_scores_equal_a_plain_loop(
    features, k, temperature, precision, tolerance
):
    scores = weighted_knn(
        *features, k=k, temperature=temperature, precision=precision
    )
    expected = plain_knn(*features, k, temperature, 5)
    torch.testing.assert_close(scores, expected, rtol=tolerance, atol=0)


def test_defaults_are_twenty_neighbors_at_temperature_007(features):
    expected = plain_knn(*features, 20, 0.07, 5)
    scores = weighted_knn(*features, precision='fp64')
    torch.testing.assert_close(scores, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize('k', [1, 10, 80])
def test_equals_scikit_learn(features, k):
    queries, bank, labels = features
    classifier = KNeighborsClassifier(
        n_neighbors=k,
        metric='cosine',
        algorithm='brute',
        weights=lambda distance: np.exp((1 - distance) / 0.07),
    ).fit(bank.numpy(), labels.numpy())
    scores = weighted_knn(queries, bank, labels, k=k, precision='fp64').numpy()
    np.testing.assert_array_equal(
        scores.argmax(1), classifier.predict(queries.numpy())
    )
    np.testing.assert_allclose(
        scores / scores.sum(1, keepdims=True),
        classifier.predict_proba(queries.numpy()),
        rtol=1e-9,
        atol=1e-12,
    )


def test_length_of_features_changes_nothing(features):
    queries, bank, labels = features
    lengths = torch.linspace(0.1, 9, len(bank), dtype=torch.float64)
    scaled, expected = (
        weighted_knn(*pair, labels, precision='fp64')
        for pair in (
            (5 * queries, lengths[:, None] * bank),
            (queries, bank),
        )
    )
    torch.testing.assert_close(scaled, expected, rtol=1e-10, atol=0)


def test_votes_by_hand():
    # Cosines of the query with the bank: 1, 0.6, 0 and -1.
    bank = torch.tensor([[2.0, 0], [3, 4], [0, 5], [-1, 0]])
    labels = torch.tensor([1, 0, 0, 1])
    query = torch.tensor([[7.0, 0]])
    scores = weighted_knn(query, bank, labels, k=3, temperature=0.5)
    expected = [[math.exp(1.2) + 1, math.exp(2)]]
    assert scores.tolist() == [pytest.approx(expected[0], rel=1e-6)]
    # exp(1.2) + 1 = 4.32 < exp(2) = 7.39: one near neighbor beats two far.
    assert scores.argmax().item() == 1


def test_classes_without_a_label_score_nothing(features):
    scores = weighted_knn(*features, num_classes=8)
    assert scores.shape == (30, 8)
    assert scores[:, 5:].abs().sum() == 0


def test_temperature_below_what_float64_holds_is_refused(features):
    with pytest.raises(ValueError, match='temperature=0.001 must be >='):
        weighted_knn(*features, temperature=0.001)


@pytest.mark.parametrize('k', [0, -1, 81])
def test_impossible_k_is_refused(features, k):
    with pytest.raises(ValueError, match=f'k={k} .* the 80 features'):
        weighted_knn(*features, k=k)


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


def test_of_equal_scores_the_lower_class_is_the_prediction():
    scores = torch.tensor([[1.0, 3.0, 3.0, 0.0]]).expand(4, 4)
    ranks = class_ranks(scores, torch.arange(4))
    assert ranks.tolist() == [2, 0, 1, 3]


def test_the_order_of_summation_does_not_break_ties():
    a, b, c = 0.1, 0.2, 0.3
    assert (a + b) + c != a + (b + c)
    scores = torch.tensor([[a + (b + c), (a + b) + c]], dtype=torch.float64)
    assert class_ranks(scores, torch.tensor([0])).item() == 0
    assert class_ranks(scores.flip(1), torch.tensor([0])).item() == 0


def test_negative_scores_are_ranked():
    scores = torch.tensor([[-3.0, -1.0, -2.0]]).expand(3, 3)
    assert class_ranks(scores, torch.arange(3)).tolist() == [2, 0, 1]


def test_what_is_no_number_is_never_right():
    scores = torch.tensor([[float('nan')] * 3, [0.0, float('nan'), 1.0]])
    assert (class_ranks(scores, torch.tensor([0, 2])) > 0).all()
    assert top_k_accuracy(scores, torch.tensor([0, 2])) == 0
