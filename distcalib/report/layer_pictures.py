"""What a layer of the page opens to: a histogram of its input with the threshold, and the sizes of its weights.

Two paths of SVG a layer, since a net may have hundreds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distcalib.report.record import CalibrationReport, LayerDetail

WIDTH, HEIGHT = 320, 90
MOST_EMPTY = 4.0
"""Times the largest value: a threshold beyond that is not drawn, or nothing would be seen of the values."""


@dataclass(frozen=True)
class Bars:
    """Bars without gaps as the outline of an SVG path, `WIDTH` x `HEIGHT`; `mark`: the x of a line, None for none."""

    path: str
    end: float
    """What the right edge stands for."""
    mark: float | None = None


@dataclass(frozen=True)
class Opened:
    """What is told of a layer, and its pictures where there are some."""

    told: str
    inputs: Bars | None
    weights: Bars | None
    n_shown: int
    """Of the channels, those that have a bar."""
    n_channels: int


def opened(report: CalibrationReport, name: str) -> Opened | None:
    """The line that is seen of a layer, and what it opens to; None where nothing is known."""
    detail = report.layer_details.get(name)
    if detail is None:
        return None
    parts = [*_time(report.layer_seconds, name), f"reads {detail.input}, {detail.low:.4g} to {detail.high:.4g}"]
    if detail.threshold is not None:
        clipped = "" if detail.clipped is None else ", nothing clipped"
        if detail.clipped:
            clipped = f", {100 * detail.clipped:.2g} % clipped"
        parts.append(f"threshold {detail.threshold:.4g}{clipped}")
    spread = _spread(detail.channels)
    if spread is not None:
        parts.append(f"widest channel {spread:.3g} × the median")
    return Opened(
        "; ".join(parts),
        _inputs(detail) if detail.sizes else None,
        _weights(detail.channels) if len(detail.channels) > 1 else None,
        len(detail.channels),
        detail.n_channels,
    )


def _time(seconds: Mapping[str, tuple[float, float]], name: str) -> list[str]:
    """The part of an FP32 pass that a layer takes, and what it gains in INT8."""
    fp32, int8 = seconds.get(name, (0.0, 0.0))
    whole = sum(one for one, _ in seconds.values())
    if not (fp32 > 0.0 and int8 > 0.0):
        return []
    return [f"{100 * fp32 / whole:.2g} % of FP32's time, in INT8 {_times(fp32 / int8)} × as fast"]


def _times(ratio: float) -> str:
    """A ratio to two digits, or as many as it has before the point."""
    return f"{ratio:.2g}" if ratio < 10.0 else f"{ratio:,.0f}"


def _spread(channels: Sequence[float]) -> float | None:
    """How many times the median channel the widest is."""
    median = channels[len(channels) // 2] if channels else 0.0
    return channels[0] / median if median > 0.0 else None


def _inputs(detail: LayerDetail) -> Bars:
    """By logarithm: after a ReLU most values are 0, and the few large ones are what is looked for."""
    filled = detail.bin_width * len(detail.sizes)
    threshold = detail.threshold
    if threshold is None or not 0.0 < threshold <= MOST_EMPTY * filled:
        return Bars(_path([math.log1p(count) for count in detail.sizes]), filled)
    end = max(filled, threshold)
    path = _path([math.log1p(count) for count in detail.sizes], WIDTH * filled / end)
    return Bars(path, end, round(WIDTH * threshold / end, 1))


def _weights(channels: Sequence[float]) -> Bars:
    return Bars(_path(channels), channels[0])


def _path(heights: Sequence[float], whole: float = WIDTH) -> str:
    """The outline of bars, the highest as high as the picture, all of them `whole` wide."""
    largest = max(heights) or 1.0
    width = whole / len(heights)
    steps = [f"V{HEIGHT * (1.0 - height / largest):.1f}H{width * i:.1f}" for i, height in enumerate(heights, 1)]
    return f"M0 {HEIGHT}{''.join(steps)}V{HEIGHT}Z".replace(".0V", "V").replace(".0H", "H")
