"""Answers what a strategy asks, on the actors of a session: scores, verdicts and rankings.

Iterations that were measured once are kept, by candidate: a verdict that stopped early is continued when the score is
wanted.  What the strategy will probably ask next is looked into as well where that costs less time than asking later;
the strategy never learns of it, so that the result is the same on any number of actors.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, fsum, inf, isfinite, nan

import numpy as np
from numpy.typing import NDArray

from distcalib.actors import Job, JobResult
from distcalib.actors.dispatcher import HELP_SECONDS, n_useful
from distcalib.caffe.graph import Blob
from distcalib.calibration.image_order import at_home
from distcalib.calibration.measuring import RANKED_BYTES, Measuring
from distcalib.calibration.programs import Programs
from distcalib.engine.ranking import RankSpec, output_weights
from distcalib.engine.ranking_split import Pace, divided, most_pieces
from distcalib.engine.spec import NetSpec, Row
from distcalib.errors import DistcalibError
from distcalib.metrics import Decider, Drawing, ImageOrder, PartialScore
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.scales import Calibration
from distcalib.report import drop_text
from distcalib.search import Answer, Ask, Decide, Measure, Measurement, Rank, Ranking, Request, Verdict, make_strategy
from distcalib.session.backend import rows

# A candidate that meets the tolerance is not stopped in the last tenth of the data.
NEARLY_ALL = 0.9
# The chance that a candidate named as likely is asked for, and that of the next one if it is; and of one that only a
# surprise would ask for.
LIKELY, UNLIKELY = 0.8, 0.2


@dataclass(frozen=True)
class Switches:
    """Parts of the search that can be left out, to see what each is worth; the result is the same."""

    share_prefixes: bool = True
    stop_early: bool = True
    look_ahead: bool = True
    hard_first: bool = True


@dataclass
class _Known:
    """What was measured of a candidate."""

    spec: NetSpec
    values: dict[int, PartialScore] = field(default_factory=dict)
    error: DistcalibError | None = None


@dataclass
class Searching:
    """One search."""

    measuring: Measuring
    programs: Programs
    switches: Switches = Switches()
    label: str = ""
    """Stands before its phases, where it is not the search for what is delivered."""
    saved: Mapping[str, int] | None = None
    """By layer what INT8 saves there, in any unit; None: its multiply-adds stand for it."""
    _known: dict[Candidate, _Known] = field(init=False, default_factory=dict)
    _rankings: dict[Rank, Ranking] = field(init=False, default_factory=dict)
    _decider: Decider = field(init=False)
    _order: ImageOrder | Drawing | None = field(init=False)
    """Of the images, where what is called an iteration here is a batch of it."""
    _begin: float = field(init=False, default_factory=time.perf_counter)
    _n_rounds: int = field(init=False, default=0)
    _compile_seconds: float = field(init=False, default=0.0)
    _pass_seconds: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        options = self.measuring.options
        order = self._order = self.measuring.image_order if self.switches.hard_first else None
        self._decider = Decider(
            self.measuring.fp32_values if self._order is None else self._order.reference,
            options.accuracy_loss,
            upper=None if self.measuring.lower_is_better else 1,
            confidence=options.confidence,
            ap_version=options.ap_version,
            probes=order.probes if isinstance(order, ImageOrder) else (),
            drawing=order if isinstance(order, Drawing) else None,
        )

    def run(self) -> Candidate:
        """The winner, measured over all iterations."""
        options = self.measuring.options
        search = make_strategy(options.strategy, options.accuracy_loss).search(self.programs.start)
        try:
            ask = next(search)
            while True:
                ask = search.send([self._answer(request) for request in self._prepared(ask)])
        except StopIteration as stop:
            winner: Candidate = stop.value
        except _BudgetSpent as spent:
            self.measuring.stopped_by = str(spent)
            winner = self._best()
            final = Measure(winner)
            if not self._is_known(final):
                self._work([final])
            self._answer(final)
        self.measuring.cost.total += self.measuring.session.settle()
        self.measuring.winner_values = self._values(winner)
        return winner

    def interrupted(self, winner: Candidate | None, by: str) -> Candidate | None:
        """What is delivered after Ctrl-C: the `winner` if it was found, else the best that all iterations measured, if
        only in the round that was under way.

        None: nothing was.  No actor works any more.
        """
        if winner is None:
            self._take_recorded()
            n = len(self._decider.reference)
            whole = [c for c, known in self._known.items() if known.error is None and len(known.values) == n]
            found = [self.measurement(candidate) for candidate in whole]
            if not found:
                return None
            best = min(found, key=self._preference)
            winner = best.candidate
            self.measuring.answered[winner] = best
        self.measuring.stopped_by = by
        self.measuring.winner_values = self._values(winner)
        return winner

    def _take_recorded(self) -> None:
        """What the journal has of the candidates of a round that did not come to its end."""
        session, n_iterations = self.measuring.session, len(self._decider.reference)
        for i, (candidate, known) in enumerate(self._known.items()):
            missing = [iteration for iteration in range(n_iterations) if iteration not in known.values]
            if known.error is None and missing:
                job = self._job(f"recorded/{i}", known.spec, missing, "")
                found = session.recorded(job)
                if found is not None:
                    self._take(candidate, job, found)

    def _values(self, candidate: Candidate) -> Sequence[PartialScore]:
        """What all iterations say of a candidate that was measured; none of one that cannot be run."""
        if candidate not in self._known and not candidate.int8:
            return self._decider.reference
        known, n = self._known[candidate], len(self._decider.reference)
        return [known.values[i] for i in range(n)] if len(known.values) == n else ()

    def measurement(self, candidate: Candidate) -> Measurement:
        """The score over all iterations, and its drop."""
        if candidate not in self._known and not candidate.int8:
            return Measurement(candidate, self._decider.fp32, 0.0)
        known = self._known[candidate]
        if known.error is not None:
            return Measurement(candidate, nan, inf)
        values = [known.values[i] for i in range(len(self._decider.reference))]
        return Measurement(candidate, self._decider.score(values), self._decider.drop(values))

    def other(self, label: str, calibration: Calibration) -> "Searching":
        """The same search in the net with the weights of another calibration; its results are its own."""
        measuring = replace(self.measuring, answered={}, failed={}, shares={}, without_int8_kernel={}, stopped_by=None)
        return replace(self, measuring=measuring, programs=self.programs.of(calibration), label=f"{label}: ")

    def ranking(self, request: Rank) -> Ranking:
        """One look at every layer, made once."""
        if request not in self._rankings:
            self._rankings[request] = self._rank(request)
        return self._rankings[request]

    def scores(self, phase: str, candidates: Sequence[Candidate]) -> list[Measurement]:
        """The scores of `candidates` that can be run, measured together; no strategy learns of them."""
        requests = [Measure(candidate) for candidate in candidates if candidate.int8]
        missing = [request for request in requests if not self._is_known(request)]
        if missing:
            self._work(missing, phase)
        found = [self.measurement(candidate) for candidate in candidates]
        for measurement in found:
            if measurement.candidate in self.measuring.answered:  # with a verdict, maybe: now there is a score
                self.measuring.answered[measurement.candidate] = measurement
        return [measurement for measurement in found if isfinite(measurement.drop)]

    def measure_plain(self, candidate: Candidate) -> Measurement | None:
        """The score of a candidate's net without -fu, over all iterations; None if the candidate cannot be run."""
        measuring = self.measuring
        if candidate not in self._known or self._known[candidate].error is not None:
            return None
        n, phase = len(self._decider.reference), "without -fu"
        job = replace(self._job(phase, self._ordered(self.programs.plain(candidate)), range(n), phase), may_fail=False)
        [result] = measuring.timed(phase, [job])
        partials = measuring.partials(self._rows(job, result))
        values = [partials[i] for i in range(n)]
        found = Measurement(candidate, self._decider.score(values), self._decider.drop(values))
        told = drop_text(found.drop, measuring.lower_is_better)
        measuring.session.reporter.note(f"{phase}: {measuring.metric} = {found.score:.6g}, {told}")
        return found

    def _prepared(self, ask: Ask) -> Sequence[Request]:
        """Do what is needed to answer `ask`."""
        for request in ask.wanted:
            if isinstance(request, Rank):
                self.ranking(request)
        wanted = [r for r in ask.wanted if not isinstance(r, Rank) and not self._is_known(r)]
        if wanted:
            self._check_budget()
            likely = ask.maybe if ask.n_likely is None else ask.maybe[: ask.n_likely]
            ahead = [request for request in ask.maybe if not self._is_known(request)]
            n_likely = sum(not self._is_known(request) for request in likely)
            self._work([*wanted, *ahead[: self._n_ahead(len(wanted), n_likely)]])
        return ask.wanted

    def _answer(self, request: Request) -> Answer:
        if isinstance(request, Rank):
            return self._rankings[request]
        candidate, known = request.candidate, self._known[request.candidate]
        if known.error is not None:
            self.measuring.failed[candidate] = str(known.error)
        found: Measurement | Verdict
        if isinstance(request, Measure) and not self._is_lost(request):
            found = self.measurement(candidate)
        elif isinstance(request, Measure):
            found = Verdict(candidate, False, self._decider.likely_drop(known.values))
        else:
            found = Verdict(candidate, bool(known.error is None and self._decider.decide(known.values)))
        self.measuring.shares[candidate] = len(known.values) / len(self._decider.reference)
        if not isinstance(self.measuring.answered.get(candidate), Measurement):
            self.measuring.answered[candidate] = found
        return found

    def _is_known(self, request: Measure | Decide) -> bool:
        known = self._known.get(request.candidate)
        if known is None or known.error is not None:
            return known is not None
        if isinstance(request, Decide):
            return self._decider.decide(known.values) is not None
        return len(known.values) == len(self._decider.reference) or self._is_lost(request)

    def _may_be_lost(self, request: Measure) -> bool:
        """Whether a verdict can be the answer: of hard images first it is certain after a third of a pass."""
        return request.unless_lost and (self._decider.confidence is not None or self._order is not None)

    def _is_lost(self, request: Measure) -> bool:
        """Whether a verdict that the candidate loses too much is the answer, however much was measured of it."""
        known = self._known[request.candidate]
        return self._may_be_lost(request) and known.error is None and self._loses(known.values)

    def _loses(self, values: Mapping[int, PartialScore]) -> bool:
        """Whether the beginning of what is measured of a candidate shows that it loses too much."""
        if self._decider.confidence is None:
            return self._decider.loses(values) is not None
        return self._decider.decide(values) is False

    def _suffices(self, request: Measure | Decide, values: Mapping[int, PartialScore]) -> bool:
        """Whether nothing more need be measured than `values`."""
        if not self.switches.stop_early:
            return False
        if isinstance(request, Measure):
            return self._may_be_lost(request) and self._loses(values)
        verdict = self._decider.decide(values)
        if verdict and len(values) >= NEARLY_ALL * len(self._decider.reference):
            return False  # it may be the one to be delivered, and to compile it again costs more than the rest
        return verdict is not None

    def _work(self, requests: Sequence[Measure | Decide], phase: str | None = None) -> None:
        """Measure what is missing, all at once."""
        session = self.measuring.session
        is_first = not self._known
        phase = self._phase(requests) if phase is None else self.label + phase
        jobs = []
        for i, request in enumerate(requests):
            iterations = self._wanted(request)
            if request.candidate not in self._known:
                self._known[request.candidate] = _Known(self._ordered(self.programs.spec(request.candidate)))
            known = self._known[request.candidate]
            missing = tuple(iteration for iteration in iterations if iteration not in known.values)
            job = self._job(f"{self._n_rounds}/{i}", known.spec, missing, phase)
            jobs.append(replace(job, in_order=self._decider.order is not None))

        n_asked = [-self._decider.patience] * len(jobs)

        def enough(place: int, found: Mapping[int, object]) -> bool:
            if len(found) < n_asked[place] + self._decider.patience:
                return False
            n_asked[place] = len(found)
            order = jobs[place].order or ()
            new = session.by_iteration(jobs[place], {order[position]: row for position, row in found.items()})
            known = self._known[requests[place].candidate].values
            return self._suffices(requests[place], {**known, **self.measuring.partials(new)})

        results = self.measuring.timed(phase, jobs, enough)
        for request, job, result in zip(requests, jobs, results, strict=True):
            self._take(request.candidate, job, result)
        if is_first:
            self._pass_seconds = results[0].run_seconds * jobs[0].size / max(results[0].size, 1)
            self.measuring.cost.unavoidable += 0.0 if self.label else self._pass_seconds
            self._compile_seconds = results[0].compile_seconds + results[0].load_seconds / self._n_actors
        self._tell(phase, requests)
        self._n_rounds += 1

    def _wanted(self, request: Measure | Decide) -> Sequence[int]:
        """All iterations in the order in which they should be measured."""
        if self._decider.order is not None:
            return self._decider.order
        probed = isinstance(request, Measure) and self._may_be_lost(request)
        return self._decider.probing if probed else range(len(self._decider.reference))

    def _ordered(self, spec: NetSpec) -> NetSpec:
        """`spec` with the images in the order of the search."""
        if self._order is None:
            return spec
        by_image = self.measuring.metric if isinstance(self._order, Drawing) else ""
        return replace(spec, images=self._order.images, by_image=by_image)

    def _job(self, key: str, spec: NetSpec, missing: Sequence[int], phase: str) -> Job:
        """What scores the iterations `missing`."""
        job = self.measuring.session.scoring(key, spec, len(self._decider.reference), missing, phase)
        if not isinstance(self._order, ImageOrder):
            return job
        return at_home(job, self._order, n_useful(self._pass_seconds, self._n_actors))

    def _take(self, candidate: Candidate, job: Job, result: JobResult) -> None:
        known = self._known[candidate]
        known.error = result.error
        found = self._rows(job, result)
        known.values.update(self.measuring.partials(found))
        if found:
            missing = self.programs.without_kernel(known.spec, list(found.values()))
            self.measuring.without_int8_kernel.setdefault(candidate, missing)

    def _rows(self, job: Job, result: JobResult) -> dict[int, Row]:
        """The rows of a scoring job by iteration."""
        return self.measuring.session.by_iteration(job, dict(zip(result.iterations, result.rows, strict=True)))

    def _rank(self, request: Rank) -> Ranking:
        """One look at every layer, on a few iterations spread over the data."""
        measuring, programs, outputs = self.measuring, self.programs, self.programs.outputs
        reference = {i: tuple(values[blob] for blob in outputs) for i, values in self._reference().items()}
        iterations = tuple(sorted(reference))
        phase = f"{self.label}ranking {len(request.layers)} layers"
        weights = output_weights(reference)
        chunks = programs.chunks(request.layers, self.switches.share_prefixes)
        most = most_pieces(chunks, reference, RANKED_BYTES)
        pieces = list(divided(chunks, iterations, self._n_actors, most, self._pace))
        jobs = [
            Job(
                f"rank/{i}",
                RankSpec(
                    piece.candidates,
                    outputs,
                    {k: reference[k] for k in piece.iterations},
                    weights,
                    piece.begin,
                    piece.head,
                ),
                len(piece.iterations),
                phase,
                order=piece.iterations,
                may_fail=True,
                row_sizes=(len(piece.candidates),) * len(piece.iterations),
            )
            for i, piece in enumerate(pieces)
        ]
        seen: dict[str, list[float]] = {layer: [] for layer in request.layers}
        failed: set[str] = set()
        for piece, result in zip(pieces, measuring.timed(phase, jobs), strict=True):
            # The whole chunk: how it was divided must not show.
            failed.update(() if result.complete else piece.chunk)
            for row in rows(result):
                for name, one in row.distances.items():
                    seen[name].append(one)
        n = len(iterations)
        distances = {name: inf if name in failed else fsum(found) / n for name, found in seen.items()}
        measuring.distances = measuring.distances or distances
        worst = max(distances, key=lambda layer: distances[layer])
        measuring.session.reporter.note(f"{phase}: '{worst}' alone in INT8 does most to the output")
        return Ranking(distances, self.saved or measuring.session.work(request.layers))

    def _reference(self) -> Mapping[int, Mapping[Blob, NDArray[np.float32]]]:
        """What FP32 makes of the ranked iterations: kept from its pass, or made now if the engine showed nothing."""
        measuring = self.measuring
        if measuring.fp32_kept:
            return measuring.fp32_kept
        order, phase = measuring.ranked, "ranking, FP32"
        [found] = measuring.timed(phase, [Job("fp32", self.programs.fp32_outputs(), len(order), phase, order=order)])
        return {i: row.values for i, row in zip(order, rows(found), strict=True)}

    @property
    def _pace(self) -> Pace:
        """What the FP32 pass and the all-INT8 one took."""
        n_iterations = len(self._decider.reference)
        fp32, int8 = self.measuring.fp32_seconds, self._pass_seconds
        return Pace(self._compile_seconds, fp32 / n_iterations, int8 / n_iterations)

    @property
    def _n_actors(self) -> int:
        return self.measuring.session.n_actors

    def _n_ahead(self, n_wanted: int, n_likely: int) -> int:
        """How many likely candidates are worth measuring together with those that are wanted."""
        if not self.switches.look_ahead or not self._pass_seconds:
            return 0
        n_iterations = len(self._decider.reference)
        pace = self._pass_seconds / n_iterations
        return n_ahead(n_wanted, self._n_actors, n_iterations, pace, self._compile_seconds, n_likely)

    def _check_budget(self) -> None:
        """Raise _BudgetSpent; at least the all-INT8 candidate is always measured."""
        options = self.measuring.options
        if not self.measuring.answered:
            return
        if options.max_candidates is not None and len(self.measuring.answered) >= options.max_candidates:
            raise _BudgetSpent(f"--max-candidates {options.max_candidates}")
        if options.max_time is not None and time.perf_counter() - self._begin >= options.max_time:
            raise _BudgetSpent(f"--max-time {options.max_time:g}")

    def _best(self) -> Candidate:
        """Of what was measured or decided: what meets the tolerance with most INT8 layers, else what loses least."""
        return min(self.measuring.answered.values(), key=self._preference).candidate

    def _preference(self, said: Measurement | Verdict) -> tuple[bool, float, int, tuple[str, ...]]:
        """Less is better."""
        if isinstance(said, Verdict):
            meets, drop = said.meets, inf
        else:
            meets, drop = said.drop <= self._decider.tolerance, said.drop
        candidate = said.candidate
        return not meets, 0.0 if meets else drop, -len(candidate.int8), candidate.fp32_layers

    def _phase(self, requests: Sequence[Measure | Decide]) -> str:
        n = len(requests)
        told = f"round {self._n_rounds}, {n} candidate{'s' if n > 1 else ''}" if self._n_rounds else "all INT8"
        return self.label + told

    def _tell(self, phase: str, requests: Sequence[Measure | Decide]) -> None:
        """A line on the best of a round, or on each candidate that was decided only."""
        measured = [self.measurement(r.candidate) for r in requests if isinstance(r, Measure) and not self._is_lost(r)]
        note = self.measuring.session.reporter.note
        for request in requests:
            if self._known[request.candidate].error is not None:
                note(f"set aside: {self._known[request.candidate].error}")
        if measured:
            best = min(measured, key=lambda m: m.drop)
            fallen = fp32_text(best.candidate)
            told = f"{self.measuring.metric} = {best.score:.6g}, {drop_text(best.drop, self.measuring.lower_is_better)}"
            note(f"{phase}: {told}, {fallen}")
        else:
            for request in requests:
                known = self._known[request.candidate]
                if known.error is not None:
                    continue  # set aside, as was said
                share = len(known.values) / len(self._decider.reference)
                word = "meets the tolerance" if self._decider.decide(known.values) else "loses too much"
                if self._order is not None and isinstance(request, Measure):
                    word += f", about {self._decider.likely_drop(known.values):.2g}"
                note(f"{fp32_text(request.candidate)}: {word} (after {share:.0%} of the data)")


class _BudgetSpent(Exception):
    """The run may not measure any more; the text is the flag that says so."""


def n_ahead(
    n_wanted: int,
    n_actors: int,
    n_iterations: int,
    iteration_seconds: float,
    compile_seconds: float,
    n_likely: int = 16,
) -> int:
    """The number of further candidates that makes the time for each one that will have been of use least; of these
    `n_likely` are, and the others may be asked for after a surprise only.

    While a program is compiled by one actor the others wait, and where there are more actors than iterations some
    have nothing to do: with several candidates at once they have.
    """

    n_wide = min(n_iterations, n_useful(n_iterations * iteration_seconds, n_actors))

    def seconds_each(n_more: int) -> float:
        n = n_wanted + n_more
        n_busy = min(n_actors, n * n_wide)
        compiling = ceil(n / n_actors) * compile_seconds
        running = ceil(n * n_iterations / n_busy) * iteration_seconds
        n_of_use = n_wanted + sum(LIKELY ** (i + 1) for i in range(min(n_more, n_likely)))
        n_of_use += sum(UNLIKELY * LIKELY**i for i in range(n_more - n_likely))
        return (compiling + running + max(n, n_busy) * HELP_SECONDS) / n_of_use

    return min(range(16), key=lambda n: (seconds_each(n), n))


def fp32_text(candidate: Candidate) -> str:
    """The layers in FP32 as far as a line has room for them."""
    fallen = candidate.fp32_layers
    if not fallen:
        return "no layer in FP32"
    names = ", ".join(fallen[:4]) + (", ..." if len(fallen) > 4 else "")
    return f"{len(fallen)} layer{'s' if len(fallen) > 1 else ''} in FP32: {names}"
