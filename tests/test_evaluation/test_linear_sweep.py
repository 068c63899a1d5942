# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmscfs.evaluation import train_linear


@pytest.fixture
def data():
    """Sixty features of four classes that a plane separates."""
    labels = torch.arange(60) % 4
    features = torch.randn(60, 5) + 3 * F.one_hot(labels, 5)
    return features, labels


def test_equals_training_each_rate_by_itself_with_torch(data):
    """One batch an epoch, so the order of the images does not matter."""
    features, labels = data
    rates, epochs = (0.1, 2.0), 12
    settings = dict(batch_size=60, weight_decay=0.01, seed=5)
    found = train_linear(features, labels, 4, rates, epochs, **settings)
    for i, rate in enumerate(rates):
        layer = nn.Linear(5, 4)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            layer.weight.copy_(0.01 * torch.randn(4, 5, generator=generator))
            layer.bias.zero_()
        optimizer = torch.optim.SGD(
            layer.parameters(),
            lr=rate * 60 / 256,
            momentum=0.9,
            weight_decay=0.01,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, epochs
        )
        for _ in range(epochs):
            optimizer.zero_grad()
            F.cross_entropy(layer(features), labels).backward()
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(
            found.weight[i], layer.weight.data, rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            found.bias[i], layer.bias.data, rtol=1e-4, atol=1e-5
        )


def test_learns_and_repeats(data):
    features, labels = data
    settings = dict(num_classes=4, learning_rates=[1e-4, 10.0], batch_size=16)
    found = train_linear(features, labels, epochs=30, **settings)
    correct = (found.scores(features).argmax(-1) == labels).float().mean(-1)
    assert correct[1] > 0.95 > correct[0]
    again = train_linear(features, labels, epochs=30, **settings)
    assert torch.equal(found.weight, again.weight)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(epochs=0), 'epochs=0 must be at least 1'),
        (dict(batch_size=0), 'batch_size=0 must be at least 1'),
        (dict(learning_rates=[]), r'learning_rates=\[\] must be one or more'),
        (dict(learning_rates=[1, -1]), 'each > 0'),
    ],
)
def test_bad_settings_are_refused(data, change, message):
    settings = dict(learning_rates=[0.1]) | change
    with pytest.raises(ValueError, match=message):
        train_linear(*data, 4, **settings)
