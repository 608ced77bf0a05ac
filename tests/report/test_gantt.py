"""Bars of actors, and what phases cost."""

from dataclasses import replace
from itertools import pairwise

import pytest

from distcalib.report import PhaseTime
from distcalib.report.gantt import LEFT, MOST_ROWS, N_COLORS, RIGHT, WIDTH, gantt, phase_rows
from tests.report.reports import REPORT

PHASES = (
    PhaseTime("FP32", 0.0, 4.0, 6.0, 1.0, 1.0, 1200, 0.8),
    PhaseTime("inputs", 4.0, 8.0, 0.0, 2.0, 0.0, 0, None),
)
TIMED = replace(
    REPORT, phases=PHASES, actor_spans=((0, 0, 0.0, 4.0, 4.0), (1, 0, 0.0, 4.0, 2.0), (1, 1, 4.0, 8.0, 2.0)), n_actors=2
)
ROOM = WIDTH - RIGHT - LEFT


def test_bars_lie_where_their_time_is() -> None:
    made = gantt(TIMED)
    assert made is not None
    assert [(bar.x - LEFT, bar.width, bar.color) for bar in made.bars] == [
        (0, ROOM / 2, 0),
        (0, ROOM / 2, 0),
        (ROOM / 2, ROOM / 2, 1),
    ]
    assert [bar.opacity for bar in made.bars] == [1.0, 0.62, 0.62]
    assert made.bars[1].told == "actor 1, FP32: 0.00 to 4.00 s, 50% at work"
    assert made.bars[0].y + made.bars[0].height < made.bars[1].y == made.bars[2].y
    assert [row.text for row in made.rows] == ["0", "1"]
    assert [tick.text for tick in made.ticks] == ["0", "2", "4", "6", "8"]
    assert made.n_left_out == 0


@pytest.mark.parametrize("n_known", [33, 64])
def test_of_many_actors_some_are_drawn(n_known: int) -> None:
    spans = tuple((16 * i, 0, 0.0, 1.0, 1.0) for i in range(n_known))
    made = gantt(replace(TIMED, actor_spans=spans, n_actors=1000, n_retired=24))
    assert made is not None
    assert len(made.bars) == MOST_ROWS
    assert made.n_left_out == 1024 - MOST_ROWS
    assert made.bottom <= 360
    places = [float(row.y) for row in made.rows]
    assert min(b - a for a, b in pairwise(places)) >= 11  # texts do not touch


def test_an_instant_has_a_bar_that_can_be_seen() -> None:
    made = gantt(replace(TIMED, actor_spans=((0, 0, 5.0, 5.0, 0.5), (0, 1, 5.0, 100.0, 95.0))))
    assert made is not None
    assert (made.bars[0].width, made.bars[0].opacity) == (0.5, 1.0)


def test_nothing_is_drawn_of_what_is_not_known() -> None:
    assert gantt(REPORT) is None
    assert gantt(replace(TIMED, actor_spans=((0, 7, 0.0, 1.0, 1.0),))) is None  # of no phase that there is
    assert gantt(replace(TIMED, actor_spans=((0, 0, 0.0, 0.0, 0.0),))) is not None


def test_phases_are_told_with_their_cost() -> None:
    first, second = phase_rows(TIMED)
    assert (first.actor_seconds, first.images_per_second, first.color) == (8.0, 200.0, 0)
    assert (second.actor_seconds, second.images_per_second, second.color) == (2.0, None, 1)
    assert phase_rows(replace(TIMED, phases=PHASES * N_COLORS))[N_COLORS].color == 0
