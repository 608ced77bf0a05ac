"""What a run took, phase by phase and actor by actor, for the report."""

from dataclasses import dataclass

from distcalib.calibration.meter import Meter
from distcalib.report import PhaseTime
from distcalib.session.session import Session


@dataclass(frozen=True)
class ActorTimes:
    """As a report has them: phases, spans of actors, and the part of the time in which actors worked."""

    phases: tuple[PhaseTime, ...] = ()
    spans: tuple[tuple[int, int, float, float, float], ...] = ()
    utilisation: float | None = None


def actor_times(session: Session, meter: Meter) -> ActorTimes:
    """What the actors of `session` did when."""
    timeline, unavoidable = session.timeline, meter.unavoidable
    phases = tuple(
        PhaseTime(
            phase.name,
            _rounded(phase.begin),
            _rounded(phase.end),
            _rounded(phase.run_seconds),
            _rounded(phase.compile_seconds),
            _rounded(phase.load_seconds),
            phase.n_iterations * session.batch_of(phase.name),
            _rounded(phase.busy / unavoidable) if unavoidable else None,
        )
        for phase in timeline.phases
    )
    spans = tuple(
        (span.actor, span.phase, _rounded(span.begin), _rounded(span.end), _rounded(span.busy))
        for span in timeline.spans
    )
    used = timeline.utilisation(session.n_actors + session.n_retired)
    return ActorTimes(phases, spans, None if used is None else _rounded(used))


def _rounded(value: float) -> float:
    """To milliseconds."""
    return round(value, 3)
