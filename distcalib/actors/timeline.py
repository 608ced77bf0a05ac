"""When each actor worked on what, in few numbers however long a run is.

Times are the driver's: a task ends when its answer is taken, so that the clocks of nodes need not agree.  What one
actor does of one phase without another between is one span, whose busy seconds tell how much of it was work; the rounds
of a search are one phase.  Of many actors only some, which lie evenly among them, have spans.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_ACTORS = 64
"""That have spans."""
_ROUND = re.compile(r"round \d+, .*")


@dataclass
class Span:
    """What an actor did of phase number `phase`, in seconds from the first task on; `busy`: how many it worked."""

    actor: int
    phase: int
    begin: float
    end: float
    busy: float


@dataclass
class PhaseWork:
    """What all actors did of a phase: from its first task to its last in seconds from the very first task on,
    actor-seconds by kind, and the iterations that were run.
    """

    name: str
    begin: float
    end: float
    run_seconds: float = 0.0
    compile_seconds: float = 0.0
    load_seconds: float = 0.0
    n_iterations: int = 0

    @property
    def busy(self) -> float:
        """All actor-seconds."""
        return self.run_seconds + self.compile_seconds + self.load_seconds


@dataclass
class Timeline:
    """Spans of actors and work of phases, in the order in which they began."""

    clock: Callable[[], float] = time.monotonic
    phases: list[PhaseWork] = field(default_factory=list)
    _spans: dict[int, list[Span]] = field(default_factory=dict)
    _number: dict[str, int] = field(default_factory=dict)
    _stride: int = 1
    _first: float | None = None
    """When the first task began."""

    def take(
        self,
        actor: int,
        label: str,
        *,
        run_seconds: float = 0.0,
        compile_seconds: float = 0.0,
        load_seconds: float = 0.0,
        n_iterations: int = 0,
    ) -> None:
        """A task of the phase `label` that `actor` has just finished, and what it took."""
        busy = run_seconds + compile_seconds + load_seconds
        now = self.clock()
        self._first = now - busy if self._first is None else self._first
        end = now - self._first
        begin = max(0.0, end - busy)
        name = _ROUND.sub("rounds", label)
        number = self._number.setdefault(name, len(self.phases))
        if number == len(self.phases):
            self.phases.append(PhaseWork(name, begin, end))
        phase = self.phases[number]
        phase.begin, phase.end = min(phase.begin, begin), max(phase.end, end)
        phase.run_seconds += run_seconds
        phase.compile_seconds += compile_seconds
        phase.load_seconds += load_seconds
        phase.n_iterations += n_iterations
        self._enter(Span(actor, number, begin, end, busy))

    def _enter(self, span: Span) -> None:
        if span.actor % self._stride:
            return
        own = self._spans.setdefault(span.actor, [])
        if own and own[-1].phase == span.phase:
            own[-1].end = span.end
            own[-1].busy += span.busy
        else:
            own.append(Span(span.actor, span.phase, max(span.begin, own[-1].end if own else 0.0), span.end, span.busy))
        while len(self._spans) > MOST_ACTORS:
            self._stride *= 2
            self._spans = {actor: spans for actor, spans in self._spans.items() if actor % self._stride == 0}

    @property
    def spans(self) -> list[Span]:
        """By actor, in the order of time."""
        return [span for actor in sorted(self._spans) for span in self._spans[actor]]

    def utilisation(self, n_actors: int) -> float | None:
        """The part of the time from the first task to the last in which `n_actors` worked; None if there was none."""
        if not self.phases:
            return None
        length = max(phase.end for phase in self.phases) - min(phase.begin for phase in self.phases)
        return min(1.0, sum(phase.busy for phase in self.phases) / (n_actors * length)) if length > 0.0 else None
