"""When actors worked, in bounded memory."""

import pytest

from distcalib.actors.timeline import MOST_ACTORS, Span, Timeline


class Clock:
    """A time that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_phase_has_the_work_of_all_its_tasks(clock: Clock) -> None:
    timeline = Timeline(clock)
    timeline.take(0, "FP32", compile_seconds=2.0, load_seconds=1.0)
    clock.now += 4.0
    timeline.take(0, "FP32", run_seconds=4.0, n_iterations=8)
    timeline.take(1, "FP32", run_seconds=3.0, load_seconds=0.5, n_iterations=5)
    [phase] = timeline.phases
    assert (phase.name, phase.begin, phase.end) == ("FP32", 0.0, 7.0)
    assert (phase.run_seconds, phase.compile_seconds, phase.load_seconds) == (7.0, 2.0, 1.5)
    assert (phase.n_iterations, phase.busy) == (13, 10.5)
    assert timeline.spans == [Span(0, 0, 0.0, 7.0, 7.0), Span(1, 0, 3.5, 7.0, 3.5)]
    assert timeline.utilisation(2) == 10.5 / 14
    assert timeline.utilisation(1) == 1.0  # an actor that came later is not counted


def test_spans_of_one_phase_are_one_until_another_comes_between(clock: Clock) -> None:
    timeline = Timeline(clock)
    for label in ("FP32", "FP32", "ranking", "FP32"):
        clock.now += 2.0
        timeline.take(3, label, run_seconds=1.0)
    assert [(s.phase, s.begin, s.end, s.busy) for s in timeline.spans] == [
        (0, 0.0, 3.0, 2.0),
        (1, 4.0, 5.0, 1.0),
        (0, 6.0, 7.0, 1.0),
    ]
    assert [phase.name for phase in timeline.phases] == ["FP32", "ranking"]


def test_spans_of_an_actor_do_not_overlap(clock: Clock) -> None:
    timeline = Timeline(clock)
    timeline.take(0, "FP32", run_seconds=5.0)
    timeline.take(0, "all INT8", run_seconds=1.0)  # the driver was busy, and took both answers at once
    assert [(s.begin, s.end, s.busy) for s in timeline.spans] == [(0.0, 5.0, 5.0), (5.0, 5.0, 1.0)]


def test_rounds_are_one_phase(clock: Clock) -> None:
    timeline = Timeline(clock)
    for label in ("round 1, 2 candidates", "round 2, 1 candidate", "without --equalize: round 1, 3 candidates"):
        timeline.take(0, label, run_seconds=1.0)
    assert [phase.name for phase in timeline.phases] == ["rounds", "without --equalize: rounds"]


def test_memory_does_not_grow_with_actors(clock: Clock) -> None:
    timeline = Timeline(clock)
    for label in ("FP32", "all INT8"):
        for actor in range(1024):
            clock.now += 0.001
            timeline.take(actor, label, run_seconds=1.0)
    actors = sorted({span.actor for span in timeline.spans})
    assert MOST_ACTORS / 2 <= len(actors) <= MOST_ACTORS
    assert actors == list(range(0, 1024, 1024 // len(actors)))
    assert len(timeline.spans) == 2 * len(actors)
    assert [phase.busy for phase in timeline.phases] == [1024.0, 1024.0]


def test_nothing_is_known_of_a_run_without_tasks() -> None:
    timeline = Timeline()
    assert (timeline.phases, timeline.spans, timeline.utilisation(2)) == ([], [], None)
