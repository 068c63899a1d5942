# Copyright (c) mmscfs contributors. Licensed under Apache-2.0.
import math

import numpy as np

from mmscfs.visualization.report.curves import POINTS, make_curve


def test_curve_of_many_values_has_their_means_and_range():
    x = np.arange(1000.0)
    y = np.where(x % 5 == 0, 10.0, 0.0)
    y[5:10] = math.nan
    y[12] = math.inf
    curve = make_curve(x, y)
    assert curve.per_point == 5
    assert len(curve.x) == 200 <= POINTS
    assert curve.x[:3].tolist() == [2, 7, 12]
    assert curve.y[0] == 2  # of 10, 0, 0, 0, 0
    assert math.isnan(curve.y[1])
    assert curve.y[2] == 2.5  # of 10, 0, 0, 0
    assert (curve.low[0], curve.high[0]) == (0, 10)
    odd = make_curve(np.arange(481.0), np.arange(481.0))
    assert odd.per_point == 3
    assert (odd.x[-1], odd.y[-1]) == (480, 480)


def test_curve_of_few_values_has_them_all():
    curve = make_curve([1, 2, 3], [1, math.inf, 3])
    assert curve.per_point == 1
    np.testing.assert_equal(curve.y, [1, math.nan, 3])
