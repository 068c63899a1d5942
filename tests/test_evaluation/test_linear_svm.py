# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from mmscfs.evaluation import (
    average_precision,
    build_svm,
    svm_average_precision,
)


@pytest.fixture
def data():
    """Ninety features, a third with the class, and thirty to test on."""
    labels = torch.where(torch.arange(120) % 3 == 0, 1, -1)
    features = torch.randn(120, 6) + 0.7 * (labels[:, None] > 0)
    return features[:90], labels[:90], features[90:], labels[90:]


def unit(features):
    features = np.asarray(features, dtype=np.float64)
    return features / np.sqrt((features**2).sum(1, keepdims=True))


def plain_precision(scores, positive, interpolated):
    """Area under the curve, image by image; no two scores are equal."""
    order = np.argsort(-np.asarray(scores))
    hits, precisions = 0, []
    for rank, i in enumerate(order, 1):
        if positive[i]:
            hits += 1
            precisions.append(hits / rank)
    if interpolated:
        precisions = [max(precisions[i:]) for i in range(hits)]
    return sum(precisions) / hits


def test_hand_worked_average_precision():
    """In the order of the scores: right, wrong, right, right, wrong.

    The precision is 1 at recall 1/3, 2/3 at recall 2/3, and 3/4 at recall 1,
    which is also reached at 2/3: (1 + 3/4 + 3/4) / 3.
    """
    scores = np.array([0.5, 0.9, 0.8, 0.6, 0.1])
    positive = np.array([True, True, False, True, False])
    assert average_precision(scores, positive) == pytest.approx(5 / 6)
    # Without an order all that is known is the share of positives.
    assert average_precision(np.ones(5), positive) == pytest.approx(3 / 5)
    # Two equal scores are one point: recall 2/3 at a precision of 2/3.
    scores = np.array([0.9, 0.8, 0.8, 0.6, 0.1])
    assert average_precision(scores, positive) == pytest.approx(
        (1 + 3 / 4 + 3 / 4) / 3
    )


@pytest.mark.parametrize('seed', range(2))
def test_average_precision_of_random_scores(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(80) < 0.2
    scores = rng.normal(size=80) + positive
    assert average_precision(scores, positive) == pytest.approx(
        plain_precision(scores, positive, interpolated=True)
    )


def test_svm_minimises_the_squared_hinge_with_positives_twice(data):
    cost = 3.0
    features, labels = unit(data[0]), data[1].numpy()

    def objective(weights):
        margins = labels * (features @ weights[:-1] + weights[-1])
        errors = np.where(labels > 0, 2, 1) * np.maximum(0, 1 - margins) ** 2
        return weights @ weights / 2 + cost * errors.sum()

    expected = minimize(objective, np.zeros(7), tol=1e-12).x
    svm = build_svm(cost).fit(features, labels)
    found = np.append(svm.coef_[0], svm.intercept_)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)


def plain_costs(features, labels, costs):
    """Mean precision of each cost over three folds, one by one."""
    means = []
    for cost in costs:
        precisions = []
        for train, test in StratifiedKFold(3).split(features, labels):
            svm = LinearSVC(
                C=cost, class_weight={1: 2, -1: 1}, random_state=0, dual=True
            ).fit(features[train], labels[train])
            scores = features[test] @ svm.coef_[0] + svm.intercept_
            precisions.append(
                plain_precision(scores, labels[test] > 0, interpolated=False)
            )
        means.append(sum(precisions) / 3)
    return means


def test_precision_and_cost_from_their_definitions(data):
    features, labels, queries, query_labels = data
    costs = (0.0001, 0.01, 1.0, 100.0)
    means = plain_costs(unit(features), labels.numpy(), costs)
    assert max(means) - min(means) > 0.01
    best = costs[means.index(max(means))]
    svm = build_svm(best).fit(unit(features), labels.numpy())
    expected = plain_precision(
        unit(queries) @ svm.coef_[0],
        query_labels.numpy() > 0,
        interpolated=True,
    )
    # Neither the order of the costs nor the lengths of the features matter.
    lengths = torch.rand(90, 1) + 0.5
    for found in (
        svm_average_precision(*data, costs),
        svm_average_precision(*data, costs[::-1]),
        svm_average_precision(
            features * lengths, labels, 3 * queries, query_labels, costs
        ),
    ):
        assert found == (pytest.approx(expected), best)


def test_ignored_images_have_no_influence(data):
    features, labels, queries, query_labels = data
    costs = (0.01, 1.0)
    expected = svm_average_precision(*data, costs)
    # Anything, at any place: it is neither learnt from nor tested on.
    ignored = torch.full((20, 6), float('nan'))
    zeros = torch.zeros(20, dtype=torch.int64)
    found = svm_average_precision(
        torch.cat([features[:40], ignored, features[40:]]),
        torch.cat([labels[:40], zeros, labels[40:]]),
        torch.cat([ignored, queries]),
        torch.cat([zeros, query_labels]),
        costs,
    )
    assert found == expected


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(costs=[]), r'costs=\[\] must be one or more'),
        (dict(costs=[1, 0]), r'costs=\[1, 0\] must be .* each > 0'),
        (dict(folds=1), 'folds=1 must be at least 2'),
        (dict(folds=31), 'labels: 30 of 90 images are with the class, and '),
    ],
)
def test_bad_settings_are_refused(data, change, message):
    with pytest.raises(ValueError, match=message):
        svm_average_precision(*data, **change)
