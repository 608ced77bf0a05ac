"""Places of points, and the numbers at the axes."""

import pytest

from distcalib.report.charts import HEIGHT, WIDTH, Point, chart, ticks
from tests.every import every


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
        (-0.012, 0.043, [0.0, 0.02, 0.04]),
        (-3.0, 3.0, [-2.0, 0.0, 2.0]),
        (0.0, 0.0005, [0.0, 0.0001, 0.0002, 0.0003, 0.0004, 0.0005]),
        (940.0, 1060.0, [950.0, 1000.0, 1050.0]),
    ],
)
def test_ticks_are_round_numbers_between_the_ends(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_ticks_of_whole_numbers_are_whole() -> None:
    assert ticks(-0.1, 2.1, 1.0) == [0.0, 1.0, 2.0]


def test_chart_puts_more_to_the_right_and_up() -> None:
    made = chart([Point(0, 0.2, "a"), Point(5, 0.0, "b", chosen=True), Point(2, 0.1, "c")], "x", "y", 0.05)
    by_told = {point.told: point for point in made.points}
    assert made.points[-1].told == "b"
    assert made.left <= by_told["a"].x < by_told["c"].x < by_told["b"].x <= made.right
    assert made.top <= by_told["a"].y < by_told["c"].y < made.limit < by_told["b"].y <= made.bottom
    assert [by_told[name].good for name in "abc"] == [False, True, False]
    assert every(0 < tick.at < WIDTH for tick in made.x_ticks)
    assert every(0 < tick.at < HEIGHT for tick in made.y_ticks)


def test_the_tolerance_is_told_where_no_label_stands() -> None:
    points = [Point(0, 0.2, "a"), Point(8, 0.0, "b", label="FP32")]
    assert chart(points, "x", "y", 0.01).limit_label.anchor == "middle"
    middle = chart([*points, Point(4, 0.0, "c", label="delivered")], "x", "y", 0.01)
    assert middle.limit_label.x < (middle.left + middle.right) / 2
    high = chart([*points, Point(4, 0.2, "c", label="delivered")], "x", "y", 0.01)
    assert high.limit_label.anchor == "middle"


@pytest.mark.parametrize("value", [0.0, 7.0, -1e-9, 1e12])
def test_chart_of_one_point(value: float) -> None:
    [point] = chart([Point(value, value, "a")], "x", "y", 0.0).points
    assert 0 < point.x < WIDTH
    assert 0 < point.y < HEIGHT
