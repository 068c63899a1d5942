# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import pytest

from mmscfs.evaluation import CollapseCriteria

K = 65536
TOP = 11.0903548889591  # ln K
LN_100 = 4.605170185988


@pytest.mark.parametrize(
    ('entropy', 'loss', 'words'),
    [
        (
            0.01,
            0.3,
            ('same prototype (entropy 0.01 of at most 11.1)', 'Raise'),
        ),
        (TOP - 0.01, TOP, ('equally likely (entropy 11.08 of', 'Lower')),
        (10.5, 10.6, ('to predict (divergence 0.1, entropy 10.5', 'Freeze')),
        (4.0, TOP, ('stays at ln K = 11.09 (11.09)', 'learning rate')),
    ],
)
def test_every_finding_has_its_figures_and_its_remedy(entropy, loss, words):
    text = CollapseCriteria().diagnose(entropy, loss, K)
    finding, remedy = text.split('. ')
    assert words[0] in finding
    assert words[1] in remedy


@pytest.mark.parametrize(
    ('entropy', 'loss'),
    [
        (4.0, 7.0),
        (1.0, 2.0),
        (4.0, TOP + 1),  # bad, but no collapse
        (TOP - 1, TOP - 0.5),
        (3.0, 3.23),  # 0.0207 of ln K apart
        (math.nan, math.nan),  # no finding
    ],
)
def test_healthy_figures(entropy, loss):
    assert CollapseCriteria().diagnose(entropy, loss, K) is None


@pytest.mark.parametrize('share', [0.9, 1.1])
def test_limits_are_shares_of_the_entropy_of_all_prototypes(share):
    criteria = CollapseCriteria(tolerance=0.01)
    near = 0.0461 * share  # 1 % of ln 100, in nats
    findings = [
        criteria.diagnose(near, 2.0, 100),
        criteria.diagnose(LN_100 - near, 6.0, 100),
        criteria.diagnose(2.0, LN_100 + near, 100),
        criteria.diagnose(2.0, LN_100 - near, 100),
        # 5 % of ln 100.
        CollapseCriteria(min_divergence=0.05).diagnose(
            3.0, 3.0 + 0.2303 * share, 100
        ),
    ]
    assert [bool(finding) for finding in findings] == [share < 1] * 5


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('begin', -1),
        ('window', 0),
        ('tolerance', 0.5),
        ('min_divergence', 1.0),
    ],
)
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=f'{name}={value}'):
        CollapseCriteria(**{name: value})
