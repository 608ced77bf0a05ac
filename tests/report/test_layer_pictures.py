"""Bars of a layer, and the line that opens to them."""

import math
import re
from dataclasses import replace

import pytest

from distcalib.report import LayerDetail
from distcalib.report.layer_pictures import HEIGHT, WIDTH, Opened, opened
from tests.report.reports import REPORT

DETAIL = LayerDetail("conv1", -0.5, 4.0, 3.0, 0.0125, 0.5, (99, 9, 0, 0, 0, 0, 0, 9), 96, (8.0, 4.0, 2.0, 1.0))


def open_one(detail: LayerDetail) -> Opened:
    made = opened(replace(REPORT, layer_details={"conv2": detail}), "conv2")
    assert made is not None
    return made


def bars(path: str) -> list[tuple[float, float]]:
    """The right end of each bar and its height."""
    assert path.startswith(f"M0 {HEIGHT}V")
    assert path.endswith(f"V{HEIGHT}Z")
    return [(float(x), HEIGHT - float(y)) for y, x in re.findall(r"V([\d.]+)H([\d.]+)", path)]


def test_inputs_are_drawn_by_logarithm_with_the_threshold() -> None:
    shown = open_one(DETAIL).inputs
    assert shown is not None
    found = bars(shown.path)
    assert [x for x, _ in found] == [40.0 * i for i in range(1, 9)]
    assert [y for _, y in found] == pytest.approx([90, 45, 0, 0, 0, 0, 0, 45], abs=0.1)
    assert (shown.end, shown.mark) == (4.0, 240.0)


def test_a_threshold_beyond_all_values_is_drawn_as_long_as_they_can_be_seen() -> None:
    far = open_one(replace(DETAIL, threshold=8.0)).inputs
    assert far is not None
    assert (far.end, far.mark, bars(far.path)[-1][0]) == (8.0, WIDTH, WIDTH / 2)
    too_far = open_one(replace(DETAIL, threshold=17.0)).inputs
    assert too_far is not None
    assert (too_far.end, too_far.mark, bars(too_far.path)[-1][0]) == (4.0, None, WIDTH)


def test_weights_are_drawn_from_the_widest_channel_down() -> None:
    shown = open_one(DETAIL).weights
    assert shown is not None
    found = bars(shown.path)
    assert [x for x, _ in found] == [80.0, 160.0, 240.0, 320.0]
    assert [y for _, y in found] == pytest.approx([90.0, 45.0, 22.5, 11.25], abs=0.1)
    assert shown.end == 8.0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "reads conv1, -0.5 to 4; threshold 3, 1.2 % clipped; widest channel 4 × the median"),
        ({"clipped": 0.0}, "reads conv1, -0.5 to 4; threshold 3, nothing clipped; widest channel 4 × the median"),
        ({"threshold": None, "clipped": None, "channels": (0.0, 0.0)}, "reads conv1, -0.5 to 4"),
        ({"clipped": None, "channels": ()}, "reads conv1, -0.5 to 4; threshold 3"),
        ({"channels": ()}, "reads conv1, -0.5 to 4; threshold 3, 1.2 % clipped"),
    ],
)
def test_the_line_of_a_layer(changes: dict[str, object], told: str) -> None:
    assert open_one(replace(DETAIL, **changes)).told == told  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"sizes": ()}, {"sizes": (0, 0)}, {"channels": (0.0, 0.0)}, {"channels": (1.0,)}])
def test_nothing_can_be_drawn_of_nothing(changes: dict[str, object]) -> None:
    made = open_one(replace(DETAIL, **changes))  # type: ignore[arg-type]
    assert (made.inputs is None) is (changes.get("sizes") == ())
    assert (made.weights is None) is (changes.get("channels") == (1.0,))
    for shown in (made.inputs, made.weights):
        assert shown is None or all(math.isfinite(y) for _, y in bars(shown.path))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        ({"conv2": (0.25, 0.1), "": (0.75, 0.7)}, "25 % of FP32's time, in INT8 2.5 × as fast; reads conv1, "),
        ({"conv2": (25.0, 0.1), "": (75.0, 0.7)}, "25 % of FP32's time, in INT8 250 × as fast; reads conv1, "),
        ({"conv2": (0.0, 0.1), "": (0.75, 0.7)}, "reads conv1, "),
        ({"conv3": (0.25, 0.1)}, "reads conv1, "),
    ],
)
def test_the_line_tells_what_time_a_layer_takes(seconds: dict[str, tuple[float, float]], told: str) -> None:
    made = opened(replace(REPORT, layer_details={"conv2": DETAIL}, layer_seconds=seconds), "conv2")
    assert made is not None
    assert made.told.startswith(told)


def test_a_layer_of_which_nothing_is_known_does_not_open() -> None:
    assert opened(REPORT, "conv2") is None
