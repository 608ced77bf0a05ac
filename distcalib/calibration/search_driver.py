"""Answers what a strategy asks, on the actors of a calibration: scores, verdicts and rankings.

What the strategy will probably ask next is looked into as well where that costs less time than asking later; the
strategy never learns of it, so that the result is the same on any number of actors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

from distcalib.actors import Enough, Job
from distcalib.calibration.budget import Budget, BudgetSpent
from distcalib.calibration.fp32_pass import Fp32Pass, partials
from distcalib.calibration.goal import Goal
from distcalib.calibration.layer_ranking import LayerRanking
from distcalib.calibration.messages import round_lines, round_name, round_verdicts, score_text
from distcalib.calibration.meter import Meter
from distcalib.calibration.programs import Programs
from distcalib.calibration.results import SearchResult
from distcalib.calibration.scoreboard import Scoreboard, decider_of
from distcalib.calibration.scorer import Scorer
from distcalib.calibration.search_path import SearchPath
from distcalib.engine.ranking_split import Pace
from distcalib.engine.spec import NetSpec, Row
from distcalib.errors import DistcalibError
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.scales import Calibration
from distcalib.search import Answer, Ask, Decide, Measure, Measurement, Rank, Ranking, Request, make_strategy
from distcalib.search.price import Loss


@dataclass(frozen=True)
class Switches:
    """Parts of the search that can be left out, to see what each is worth; the file is the same."""

    share_parts: bool = True
    stop_early: bool = True
    look_ahead: bool = True
    hard_first: bool = True


@dataclass
class Searching:
    """One search, of the net of `programs`; `label` stands before its phases if it is not for what is delivered.
    `is_main`: the first net that it measures is the unit of what all costs."""

    meter: Meter
    programs: Programs
    goal: Goal
    fp32: Fp32Pass
    switches: Switches = Switches()
    label: str = ""
    is_main: bool = True
    budget: Budget = field(kw_only=True)
    ranking: LayerRanking = field(init=False)
    board: Scoreboard = field(init=False)
    _scorer: Scorer = field(init=False)
    _specs: dict[Candidate, NetSpec] = field(init=False, default_factory=dict)
    _without_kernel: dict[Candidate, tuple[str, ...]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        switches = self.switches
        order = self.fp32.order if switches.hard_first else None
        self.board = Scoreboard(decider_of(self.goal, self.fp32, order), order is not None, switches.stop_early)
        self._n_calls = self._n_rounds = 0
        self._scorer = Scorer(self.meter.session, self.goal.metric, self.board.n_iterations, order)
        self.ranking = LayerRanking(self.meter, self.programs, self.goal, self.fp32, switches.share_parts)

    def run(self) -> SearchResult:
        """What the strategy finds; the winner is measured over all iterations."""
        options, stopped_by = self.goal.options, None
        path = SearchPath(make_strategy(options.strategy, options.accuracy_loss).search(self.programs.start))
        try:
            while path.ask is not None:
                self._prepare(path.ask, path)
                path.go_on(self._is_known, self._answer)
            winner = path.result
        except BudgetSpent as spent:
            stopped_by, winner = str(spent), self.board.best()
            final = Measure(winner)
            if not self.board.is_known(final):
                self._work([final])
            self._answer(final)
        self.meter.settle()
        return self.result(winner, stopped_by)

    def result(self, winner: Candidate, stopped_by: str | None = None) -> SearchResult:
        """What is known now, with `winner` to be delivered."""
        board = self.board
        return SearchResult(
            winner,
            dict(board.answered),
            {candidate: board.shares.get(candidate, 0.0) for candidate in board.answered},
            board.failed,
            board.values(winner),
            self.ranking.distances,
            board.is_minimal(winner),
            self._without_kernel.get(winner, ()),
            stopped_by,
        )

    def interrupted(self, winner: Candidate | None, by: str) -> SearchResult | None:
        """What is delivered after Ctrl-C: the `winner` if it was found, else the best that all iterations measured, if
        only in the round that was under way.

        None: nothing was.  No actor works any more.
        """
        if winner is None:
            self._take_recorded()
            best = self.board.best_measured()
            if best is None:
                return None
            winner = best.candidate
            self.board.answered[winner], self.board.shares[winner] = best, 1.0
        return self.result(winner, by)

    def other(self, label: str, calibration: Calibration) -> "Searching":
        """The same search in the net with the weights of another calibration; its results are its own."""
        other = replace(self, programs=self.programs.of(calibration), label=f"{label}: ", is_main=False)
        other.ranking.saved = self.ranking.saved
        return other

    def ranked(self, request: Rank) -> Ranking:
        """One look at every layer, made once."""
        pace = Pace(self._scorer.compile_seconds, self.fp32.seconds / self.board.n_iterations)
        return self.ranking.of(request, pace, self.label)

    def scores(self, phase: str, candidates: Sequence[Candidate]) -> list[Measurement]:
        """The scores of `candidates` that can be run, measured together; no strategy learns of them."""
        requests = [Measure(candidate) for candidate in candidates if candidate.int8]
        self._learn(phase, requests)
        measurements = [self.board.measurement(candidate) for candidate in candidates]
        for measurement in measurements:
            self.board.measured_again(measurement)
        return [measurement for measurement in measurements if isfinite(measurement.drop)]

    def losses(self, phase: str | None, candidates: Sequence[Candidate]) -> list[Loss]:
        """What `candidates` lose; where a part of the data shows that it is too much, about that.  No strategy learns
        of them."""
        requests = [Measure(candidate, unless_lost=True) for candidate in candidates]
        self._learn(phase, requests)
        return [self.board.loss(request) for request in requests]

    def measure_plain(self, candidate: Candidate) -> Measurement | None:
        """The score of a candidate's net without -fu, over all iterations; None if the candidate cannot be run."""
        if candidate not in self._specs or candidate in self.board.failed:
            return None
        phase, decider = "without -fu", self.board.decider
        values = self._scorer.whole(self.meter, self.programs.plain(candidate), phase)
        measured = Measurement(candidate, decider.score(values), decider.drop(values))
        self.meter.note(f"{phase}: {score_text(measured, self.goal)}")
        return measured

    def _prepare(self, ask: Ask, path: SearchPath) -> None:
        """Do what is needed to answer `ask`, the question that `path` is at."""
        for request in ask.wanted:
            if isinstance(request, Rank):
                self.ranked(request)
        is_known = self.board.is_known
        wanted = [r for r in ask.wanted if not isinstance(r, Rank) and not is_known(r)]
        if wanted:
            self.budget.check(len(self.board.answered))
            ahead = [request for request in ask.maybe if not is_known(request)]
            n_likely = sum(not is_known(request) for request in ask.maybe[: ask.n_likely])
            share = self.board.shares.get(self.programs.start, 1.0)
            n_ahead = self._scorer.n_ahead(len(wanted), n_likely, share) if self.switches.look_ahead else 0
            self._work([*wanted, *ahead[:n_ahead]], path=path)

    def _learn(self, phase: str | None, requests: Sequence[Measure]) -> None:
        if missing := [request for request in requests if not self.board.is_known(request)]:
            self._work(missing, phase)

    def _answer(self, request: Request) -> Answer:
        return self.ranked(request) if isinstance(request, Rank) else self.board.answer(request)

    def _is_known(self, request: Request) -> bool:
        return self.ranking.is_made(request) if isinstance(request, Rank) else self.board.is_known(request)

    def _work(
        self, requests: Sequence[Measure | Decide], phase: str | None = None, path: SearchPath | None = None
    ) -> None:
        """Measure what is missing, all at once; candidates that `path` will not ask about are stopped."""
        is_first = not self._specs
        if phase is None:
            of_start = [request.candidate for request in requests] == [self.programs.start]
            self._n_rounds += not of_start
            phase = "all INT8" if of_start else round_name(self._n_rounds, len(requests))
        phase, self._n_calls = self.label + phase, self._n_calls + 1
        jobs = []
        for i, request in enumerate(requests):
            candidate = request.candidate
            if candidate not in self._specs:
                self._specs[candidate] = self._scorer.program(self.programs.spec(candidate))
            self.board.begin(candidate)
            job = self._scorer.job(f"{self._n_calls}/{i}", self._specs[candidate], self.board.wanted(request), phase)
            in_order = job.homes is None and self.board.decider.order is not None
            jobs.append(replace(job, in_order=in_order, may_stop=self.board.may_stop(request)))
        results = self.meter.run(phase, jobs, self._enough(requests, jobs, path))
        for request, job, result in zip(requests, jobs, results, strict=True):
            self._note(request.candidate, self._scorer.rows(job, result.by_number), result.error)
        if is_first:
            self._scorer.learn_times(jobs[0], results[0])
            if self.is_main:
                self.meter.count_int8(self._scorer.pass_seconds, results[0])
        for line in round_lines(phase, self.label, requests, self.board, self.goal):
            self.meter.note(line)
        self.meter.decided(round_verdicts(requests, self.board))

    def _enough(self, requests: Sequence[Measure | Decide], jobs: Sequence[Job], path: SearchPath | None) -> Enough:
        """What tells whether a job need not go on."""
        n_asked = [-(patience := self.board.decider.patience)] * len(jobs)

        def enough(place: int, found: Mapping[int, object]) -> bool:
            is_whole = len(found) == jobs[place].n_iterations
            if len(found) < n_asked[place] + patience and not is_whole:
                return False
            n_asked[place] = len(found)
            candidate, made = requests[place].candidate, self._scorer.rows(jobs[place], found)
            suffices = self.board.suffices(requests[place], partials(made, self.goal.metric))
            if path is None or not self.switches.stop_early:
                return suffices
            if suffices or is_whole:
                self._note(candidate, made)
                path.go_on(self._is_known, self._answer)
            # One that is known to meet the tolerance may be the winner by now, and goes on to its end.
            return (suffices and not path.measures(candidate)) or not path.may_ask(candidate)

        return enough

    def _note(self, candidate: Candidate, made: Mapping[int, Row], error: DistcalibError | None = None) -> None:
        """Note what was measured of a candidate, by iteration, and whether its INT8 layers have kernels."""
        self.board.take(candidate, partials(made, self.goal.metric), error)
        if made and candidate not in self._without_kernel:
            self._without_kernel[candidate] = self.programs.without_kernel(self._specs[candidate], list(made.values()))

    def _take_recorded(self) -> None:
        """What the journal has of the candidates of a round that did not come to its end."""
        for i, (candidate, missing) in enumerate(self.board.unfinished()):
            job = self._scorer.job(f"recorded/{i}", self._specs[candidate], missing, "")
            recorded = self.meter.session.recorded(job)
            if recorded is not None:
                self._note(candidate, self._scorer.rows(job, recorded.by_number), recorded.error)
