"""Points in a plane as SVG has them: the template draws, the places are reckoned here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 16, 44
N_TICKS = 5
NEAR, LETTER, FAR = 32, 9, 100
"""Pixels: how far a label reaches up and down, how wide a letter is on a telephone, and what is far enough."""


@dataclass(frozen=True)
class Point:
    """A point in units of the data, and what is said of it; `chosen`: what was delivered.

    Not `exact`: its y was estimated.  `label` stands beside it.
    """

    x: float
    y: float
    told: str
    chosen: bool = False
    exact: bool = True
    label: str = ""


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: its place in pixels and its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Placed:
    """A point in pixels."""

    x: float
    y: float
    told: str
    chosen: bool
    good: bool
    exact: bool
    label: str

    @property
    def anchor(self) -> str:
        """Where its label begins, so that it stays inside."""
        return "end" if self.x > 0.6 * WIDTH else "start"

    @property
    def label_x(self) -> float:
        """Beside the point."""
        return round(self.x + (-12 if self.anchor == "end" else 12), 1)

    @property
    def label_y(self) -> float:
        """Above the point, as long as that is inside."""
        return round(self.y - 9 if self.y > TOP + 16 else self.y + 18, 1)


@dataclass(frozen=True)
class LimitLabel:
    """A place on the line of the tolerance, and how its text is anchored there."""

    x: float
    anchor: str


_LIMIT_LABELS = (
    LimitLabel((LEFT + WIDTH - RIGHT) / 2, "middle"),
    LimitLabel(LEFT + 4.0, "start"),
    LimitLabel(WIDTH - RIGHT - 4.0, "end"),
    LimitLabel(LEFT + (WIDTH - RIGHT - LEFT) / 4, "middle"),
    LimitLabel(LEFT + 3 * (WIDTH - RIGHT - LEFT) / 4, "middle"),
)


@dataclass(frozen=True)
class Chart:
    """All that the template needs to draw; places are in pixels, y downwards."""

    x_title: str
    y_title: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    points: Sequence[Placed]
    limit: float
    """The y of the tolerance."""
    limit_label: LimitLabel
    """Where it is told that this is the tolerance."""
    front: str = ""
    """A line through the best ones, as SVG writes its points."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(
    points: Sequence[Point],
    x_title: str,
    y_title: str,
    limit: float,
    whole: bool = False,
    front: Sequence[tuple[float, float]] = (),
) -> Chart:
    """At least one point, against a limit that y should not exceed; the chosen ones are drawn last.

    `whole`: x is a number of things.  `front`: the line through the best ones.
    """
    x_ends = _ends([point.x for point in points])
    y_ends = _ends([0.0, limit, *(point.y for point in points)])

    def x_at(x: float) -> float:
        return round(LEFT + (x - x_ends[0]) / (x_ends[1] - x_ends[0]) * (WIDTH - RIGHT - LEFT), 1)

    def y_at(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y_ends[0]) / (y_ends[1] - y_ends[0]) * (HEIGHT - BOTTOM - TOP), 1)

    placed = [Placed(x_at(p.x), y_at(p.y), p.told, p.chosen, p.y <= limit, p.exact, p.label) for p in points]
    return Chart(
        x_title,
        y_title,
        [Tick(x_at(x), f"{x:,.6g}") for x in ticks(*x_ends, 1.0 if whole else 0.0)],
        [Tick(y_at(y), f"{y:,.6g}") for y in ticks(*y_ends)],
        sorted(placed, key=lambda point: point.chosen),
        y_at(limit),
        _limit_label(placed, y_at(limit)),
        " ".join(f"{x_at(x)},{y_at(y)}" for x, y in front) if len(front) > 1 else "",
    )


def _limit_label(placed: Sequence[Placed], limit: float) -> LimitLabel:
    """The first place that is far from labels and points near the line, else the farthest."""
    taken: list[float] = []
    for point in placed:
        if abs(point.y - limit) < NEAR:
            length = LETTER * len(point.label)
            taken += [point.x, point.label_x + (-length if point.anchor == "end" else length) / 2]

    def free(label: LimitLabel) -> float:
        middle = label.x + {"middle": 0.0, "start": 1.0, "end": -1.0}[label.anchor] * LETTER * len("tolerance") / 2
        return min([FAR, *(abs(x - middle) for x in taken)])

    return max(_LIMIT_LABELS, key=free)


def ticks(low: float, high: float, least: float = 0.0) -> list[float]:
    """Some N_TICKS round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten, `least` or more."""
    rough = max((high - low) / N_TICKS, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step + 0.0 for i in range(first, last + 1)]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis: a little more than what it shows."""
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - margin, high + margin
