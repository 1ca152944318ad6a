from __future__ import annotations

import math
import re

from mmjax.reports.charts import Series, line_chart


def coordinates(chart, kind="line"):
    path = re.search(rf'<path d="M([^"]*)" class="{kind} s0">', chart)[1].rstrip("Z")
    return [tuple(map(float, point.split())) for point in path.split("L")]


def test_points_stand_where_their_values_are():
    chart = line_chart("t", [Series("a", [0, 5, 10], [0.0, 1.0, 2.0])], "step")
    points = coordinates(chart)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert points[1][0] * 2 == points[0][0] + points[2][0]
    assert abs(points[1][1] * 2 - points[0][1] - points[2][1]) <= 0.2
    assert points[2][1] < points[0][1]  # up is more


def test_logarithmic_axis_spaces_factors_evenly():
    series = [Series("a", [0, 1, 2], [0.01, 0.1, 1.0])]
    (_, first), (_, middle), (_, last) = coordinates(line_chart("t", series, "step", log=True))
    assert abs(middle * 2 - first - last) <= 0.2


def test_logarithmic_axis_needs_positive_values():
    series = [Series("a", [0, 1, 2], [0.0, 0.1, 1.0])]
    assert line_chart("t", series, "step", log=True) == line_chart("t", series, "step")


def test_values_that_are_not_finite_are_gaps():
    chart = line_chart("t", [Series("a", [0, 1, 2, 3], [1.0, math.nan, math.inf, 2.0])], "step")
    assert len(coordinates(chart)) == 2
    assert "nan" not in chart and "inf" not in chart


def test_a_single_point_makes_no_chart():
    assert line_chart("t", [Series("a", [1], [1.0])], "step") is None
    assert line_chart("t", [Series("a", [1, 2], [1.0, math.nan])], "step") is None


def test_a_constant_line_has_a_place():
    points = coordinates(line_chart("t", [Series("a", [0, 1], [3.0, 3.0])], "step"))
    assert points[0][1] == points[1][1]
    assert all(10 <= y <= 190 for _, y in points)


def test_a_long_line_becomes_means_with_their_range():
    xs = list(range(10_000))
    chart = line_chart("t", [Series("a", xs, [float(x % 2) for x in xs])], "step")
    assert len(coordinates(chart)) <= 240
    assert len(coordinates(chart, "band")) == 2 * len(coordinates(chart))
    assert len(chart) < 20_000


def test_labels_are_escaped():
    chart = line_chart("<one>", [Series("<two>", [0, 1], [0.0, 1.0])], "<three>")
    assert not re.search("<(one|two|three)>", chart)
