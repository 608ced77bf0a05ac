"""What was measured of each candidate, what follows from it, and what the strategy was told; it starts no work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan

from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.goal import Goal
from distcalib.errors import DistcalibError
from distcalib.metrics import Decider, Drawing, ImageOrder, PartialScore
from distcalib.quantize.candidate import Candidate
from distcalib.search import Decide, Measure, Measurement, Verdict
from distcalib.search.price import Loss

# A candidate that meets the tolerance is not stopped in the last tenth of the data.
NEARLY_ALL = 0.9


def decider_of(goal: Goal, fp32: Fp32Pass, order: ImageOrder | Drawing | None) -> Decider:
    """What decides candidates whose images are taken in `order`."""
    return Decider(
        fp32.values if order is None else order.reference,
        goal.options.accuracy_loss,
        upper=None if goal.lower_is_better else 1,
        confidence=goal.options.confidence,
        ap_version=goal.options.ap_version,
        probes=order.probes if isinstance(order, ImageOrder) else (),
        drawing=order if isinstance(order, Drawing) else None,
    )


@dataclass
class Scoreboard:
    """The candidates of one search.

    Iterations that were measured once are kept, by candidate: a verdict that stopped early is continued when the score
    is wanted.  `hard_first`: an iteration is a batch of images in another order than that of the data.  `stop_early`:
    a candidate that is decided is not measured to the end.
    """

    decider: Decider
    hard_first: bool = False
    stop_early: bool = True
    answered: dict[Candidate, Measurement | Verdict] = field(default_factory=dict)
    """What the strategy was told, in its order: the winner follows from it."""
    shares: dict[Candidate, float] = field(default_factory=dict)
    """Of each the part of the data that was measured of it by then."""
    _values: dict[Candidate, dict[int, PartialScore]] = field(default_factory=dict)
    _errors: dict[Candidate, DistcalibError] = field(default_factory=dict)

    @property
    def n_iterations(self) -> int:
        """Of a whole measurement."""
        return len(self.decider.reference)

    @property
    def failed(self) -> Mapping[Candidate, str]:
        """Candidates that could not be run, with the reason."""
        return {candidate: str(error) for candidate, error in self._errors.items()}

    def begin(self, candidate: Candidate) -> None:
        """Note that it is worked on."""
        self._values.setdefault(candidate, {})

    def take(self, candidate: Candidate, found: Mapping[int, PartialScore], error: DistcalibError | None) -> None:
        """Note what was measured of a candidate, by iteration, or why it cannot be run."""
        self._values.setdefault(candidate, {}).update(found)
        if error is not None:
            self._errors[candidate] = error

    def n_measured(self, candidate: Candidate) -> int:
        """Iterations of it that are known."""
        return len(self._values.get(candidate, ()))

    def wanted(self, request: Measure | Decide) -> tuple[int, ...]:
        """The iterations that are not known, in the order in which they should be measured."""
        known = self._values.get(request.candidate, {})
        return tuple(iteration for iteration in self._ordered(request) if iteration not in known)

    def is_known(self, request: Measure | Decide) -> bool:
        """Whether it can be answered."""
        candidate = request.candidate
        if candidate in self._errors or candidate not in self._values:
            return candidate in self._errors
        if isinstance(request, Decide):
            return self.decider.decide(self._values[candidate]) is not None
        return self.n_measured(candidate) == self.n_iterations or self.is_lost(request)

    def is_lost(self, request: Measure) -> bool:
        """Whether a verdict that the candidate loses too much is the answer, however much was measured of it."""
        candidate = request.candidate
        return self._may_be_lost(request) and candidate not in self._errors and self._loses(self._values[candidate])

    def may_stop(self, request: Measure | Decide) -> bool:
        """Whether it is probably answered before the end, and to ask `suffices` takes no time."""
        is_early = isinstance(request, Decide) or request.unless_lost
        return self.stop_early and self.hard_first and is_early

    def suffices(self, request: Measure | Decide, new: Mapping[int, PartialScore]) -> bool:
        """Whether nothing more need be measured than what is known and `new`."""
        if not self.stop_early:
            return False
        values = {**self._values.get(request.candidate, {}), **new}
        if isinstance(request, Measure):
            return self._may_be_lost(request) and self._loses(values)
        verdict = self.decider.decide(values)
        if verdict and len(values) >= NEARLY_ALL * self.n_iterations:
            return False  # it may be the one to be delivered, and to compile it again costs more than the rest
        return verdict is not None

    def answer(self, request: Measure | Decide) -> Measurement | Verdict:
        """What the strategy is told."""
        candidate, values = request.candidate, self._values[request.candidate]
        answer: Measurement | Verdict
        if isinstance(request, Measure):
            lost = self.is_lost(request)
            answer = Verdict(candidate, False, self.likely_drop(candidate)) if lost else self.measurement(candidate)
        else:
            answer = Verdict(candidate, self.meets(candidate))
        self.shares[candidate] = len(values) / self.n_iterations
        if not isinstance(self.answered.get(candidate), Measurement):
            self.answered[candidate] = answer
        return answer

    def meets(self, candidate: Candidate) -> bool:
        """Whether it is known that the candidate loses no more than is tolerated."""
        return candidate not in self._errors and bool(self.decider.decide(self._values[candidate]))

    def likely_drop(self, candidate: Candidate) -> float:
        """What it loses on the part of the data that decided."""
        return self.decider.likely_drop(self._values[candidate])

    def measurement(self, candidate: Candidate) -> Measurement:
        """The score over all iterations, and its drop; infinite of what cannot be run."""
        if candidate not in self._values and not candidate.int8:
            return Measurement(candidate, self.decider.fp32, 0.0)
        if candidate in self._errors:
            return Measurement(candidate, nan, inf)
        values = self.values(candidate)
        return Measurement(candidate, self.decider.score(values), self.decider.drop(values))

    def loss(self, request: Measure) -> Loss:
        """What a candidate that was measured loses, or about that, if it is lost."""
        candidate = request.candidate
        if self.is_lost(request):
            return Loss(candidate, self.likely_drop(candidate), about=True)
        return Loss(candidate, self.measurement(candidate).drop)

    def measured_again(self, measurement: Measurement) -> None:
        """There is a score of a candidate now, of which the strategy has a verdict, maybe."""
        if measurement.candidate in self.answered:
            self.answered[measurement.candidate] = measurement

    def values(self, candidate: Candidate) -> Sequence[PartialScore]:
        """What all iterations say of a candidate that was measured; none of one that cannot be run."""
        if candidate not in self._values and not candidate.int8:
            return self.decider.reference
        known = self._values[candidate]
        return [known[i] for i in range(self.n_iterations)] if len(known) == self.n_iterations else ()

    def unfinished(self) -> list[tuple[Candidate, tuple[int, ...]]]:
        """Candidates that can be run, with the iterations that are not known of them."""
        every = range(self.n_iterations)
        missing = {c: tuple(i for i in every if i not in known) for c, known in self._values.items()}
        return [(c, some) for c, some in missing.items() if some and c not in self._errors]

    def best_measured(self) -> Measurement | None:
        """The best of what all iterations measured; None: nothing was."""
        whole = [c for c in self._values if c not in self._errors and self.n_measured(c) == self.n_iterations]
        return min(map(self.measurement, whole), key=self._preference, default=None)

    def best(self) -> Candidate:
        """Of what was measured or decided: what meets the tolerance with most INT8 layers, else what loses least."""
        return min(self.answered.values(), key=self._preference).candidate

    def is_minimal(self, winner: Candidate) -> bool:
        """Whether it was checked that none of the FP32 layers of a winner that meets the tolerance can be INT8."""
        measured = self.answered.get(winner)
        met = isinstance(measured, Measurement) and measured.drop <= self.decider.tolerance
        return met and all(self._loses_too_much(candidate) for candidate in winner.returns.values())

    def _loses_too_much(self, candidate: Candidate) -> bool:
        said = self.answered.get(candidate)
        return said is not None and not self._told_to_meet(said)

    def _told_to_meet(self, said: Measurement | Verdict) -> bool:
        return said.meets if isinstance(said, Verdict) else said.drop <= self.decider.tolerance

    def _preference(self, said: Measurement | Verdict) -> tuple[bool, float, int, tuple[str, ...]]:
        """Less is better."""
        meets, drop = self._told_to_meet(said), inf if isinstance(said, Verdict) else said.drop
        candidate = said.candidate
        return not meets, 0.0 if meets else drop, -len(candidate.int8), candidate.fp32_layers

    def _ordered(self, request: Measure | Decide) -> Sequence[int]:
        if self.decider.order is not None:
            return self.decider.order
        probed = isinstance(request, Measure) and self._may_be_lost(request)
        return self.decider.probing if probed else range(self.n_iterations)

    def _may_be_lost(self, request: Measure) -> bool:
        """Whether a verdict can be the answer: of hard images first it is certain after a third of a pass."""
        return request.unless_lost and (self.decider.confidence is not None or self.hard_first)

    def _loses(self, values: Mapping[int, PartialScore]) -> bool:
        """Whether the beginning of what is measured of a candidate shows that it loses too much."""
        if self.decider.confidence is None:
            return self.decider.loses(values) is not None
        return self.decider.decide(values) is False
