"""Actors over time: a bar for what each did of a phase, the fuller the more of it was work."""

from collections.abc import Sequence
from dataclasses import dataclass

from distcalib.report.charts import Tick, ticks
from distcalib.report.record import CalibrationReport, PhaseTime

WIDTH, LEFT, RIGHT, BOTTOM = 640, 64, 16, 40
MOST_ROWS = 32
N_COLORS = 8
_ROOM = 360.0
"""Pixels of all rows together, at the most."""


@dataclass(frozen=True)
class Bar:
    """A bar in pixels; `color` is a number below N_COLORS."""

    x: float
    y: float
    width: float
    height: float
    color: int
    opacity: float
    told: str


@dataclass(frozen=True)
class Row:
    """An actor: the middle of its row, and its number where there is room for it."""

    y: float
    text: str


@dataclass(frozen=True)
class Gantt:
    """All that the template needs to draw."""

    rows: Sequence[Row]
    bars: Sequence[Bar]
    ticks: Sequence[Tick]
    bottom: float
    n_left_out: int
    """Actors that are not drawn."""
    width: int = WIDTH
    left: int = LEFT
    right: int = WIDTH - RIGHT

    @property
    def height(self) -> float:
        """Of the whole picture."""
        return self.bottom + BOTTOM


@dataclass(frozen=True)
class PhaseRow:
    """A phase in the table that is also the legend."""

    one: PhaseTime
    color: int
    actor_seconds: float
    images_per_second: float | None
    """Of one actor while it runs."""


def phase_rows(report: CalibrationReport) -> list[PhaseRow]:
    """In the order in which they began."""
    return [
        PhaseRow(
            one,
            number % N_COLORS,
            one.run_seconds + one.compile_seconds + one.load_seconds,
            one.n_images / one.run_seconds if one.n_images and one.run_seconds > 0.0 else None,
        )
        for number, one in enumerate(report.phases)
    ]


def gantt(report: CalibrationReport) -> Gantt | None:
    """None where no actor did anything that is known."""
    spans = [span for span in report.actor_spans if 0 <= span[1] < len(report.phases)]
    actors = sorted({actor for actor, *_ in spans})
    if not actors:
        return None
    shown = [actors[i * len(actors) // MOST_ROWS] for i in range(MOST_ROWS)] if len(actors) > MOST_ROWS else actors
    place = {actor: i for i, actor in enumerate(shown)}
    step = min(22.0, _ROOM / len(shown))
    end = max(end for _, _, _, end, _ in spans) or 1.0

    def x_at(seconds: float) -> float:
        return round(LEFT + (WIDTH - RIGHT - LEFT) * seconds / end, 1)

    bars = []
    for actor, phase, begin, until, busy in spans:
        if actor not in place:
            continue
        share = min(1.0, busy / (until - begin)) if until > begin else 1.0
        told = f"actor {actor}, {report.phases[phase].name}: {begin:.2f} to {until:.2f} s, {share:.0%} at work"
        width = max(0.5, round(x_at(until) - x_at(begin), 1))
        y, height = round(place[actor] * step + 0.1 * step, 1), round(0.8 * step, 1)
        bars.append(Bar(x_at(begin), y, width, height, phase % N_COLORS, round(0.25 + 0.75 * share, 2), told))
    every = -(-14 // int(max(1.0, step)))  # rows whose numbers do not touch
    rows = [Row(round((i + 0.5) * step, 1), str(actor)) for actor, i in place.items() if i % every == 0]
    marks = [Tick(x_at(one), f"{one:,.6g}") for one in ticks(0.0, end)]
    n_known = max(report.n_actors + report.n_retired, len(actors))
    return Gantt(rows, bars, marks, round(len(shown) * step, 1), n_known - len(shown))
