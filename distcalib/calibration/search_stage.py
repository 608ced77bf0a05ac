"""From what was observed to the winner, and what is measured of it then; whatever ends it, the best so far is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from distcalib.actors.cancellation import Cancelled
from distcalib.actors.signals import ended_by
from distcalib.calibration.budget import Budget
from distcalib.calibration.changes import changed_images, compared
from distcalib.calibration.delivery import Delivery
from distcalib.calibration.goal import Goal
from distcalib.calibration.layer_details import input_sizes
from distcalib.calibration.looks import look
from distcalib.calibration.lost_images import classify_lost
from distcalib.calibration.meter import Meter
from distcalib.calibration.observation import Observing
from distcalib.calibration.pareto import LayerTimes, layer_times, measure_curve
from distcalib.calibration.programs import NetPrograms
from distcalib.calibration.recovery import recovered_search
from distcalib.calibration.results import Afterwards, Observed, SearchResult
from distcalib.calibration.run_record import signal_name
from distcalib.calibration.savings import count_saved
from distcalib.calibration.search_driver import Searching, Switches
from distcalib.calibration.search_price import better_search, price_warnings
from distcalib.calibration.speeds import speeds
from distcalib.engine.net import Net
from distcalib.quantize.quantizer import Quantizer
from distcalib.session.session import Session


@dataclass(frozen=True)
class Searched:
    """What the search and what came after it found; `observed` may be other scales than it began with."""

    observed: Observed
    result: SearchResult
    after: Afterwards = field(default_factory=Afterwards)
    interrupted: bool = False


@dataclass(frozen=True)
class SearchStage:
    """Searches on the actors of `session` for the layers of `base` that fall back."""

    base: Net
    session: Session
    meter: Meter
    goal: Goal
    switches: Switches
    observing: Observing

    def search(self, quantizer: Quantizer) -> Searched:
        """Observe, then measure until the winner is known; after Ctrl-C the best that was measured, if anything was.

        All INT8 where nothing is measured.
        """
        observed = self.observing.observe(quantizer)
        fp32 = observed.fp32
        if fp32 is None:
            return Searched(observed, SearchResult(quantizer.space.all_int8))
        programs = NetPrograms(self.base, observed.calibration, self.goal.metric, self.session.inputs.shapes)
        budget = Budget(self.goal.options)
        searching = Searching(self.meter, programs, self.goal, fp32, self.switches, budget=budget)
        kept = [(searching, observed)]  # what is searched, better weights behind those before
        result: SearchResult | None = None
        after = Afterwards()
        try:
            kept += better_search(*kept[-1])
            for better in recovered_search(*kept[-1], self.observing):
                kept.append(better)
            searching, observed = kept[-1]
            times = self._times(searching)
            result = searching.run()
            for afterwards in self._afterwards(searching, observed, result, times):
                after = afterwards
        except KeyboardInterrupt as interrupt:
            by = "cancellation" if isinstance(interrupt, Cancelled) else signal_name(ended_by())
            return self._interrupted(kept, result, after, by, interrupt)
        # Once more, for what was measured of other candidates since.
        return Searched(observed, searching.result(result.winner, result.stopped_by), after)

    def _interrupted(
        self,
        kept: Sequence[tuple[Searching, Observed]],
        result: SearchResult | None,
        after: Afterwards,
        by: str,
        interrupt: KeyboardInterrupt,
    ) -> Searched:
        """The winner if it was found, else the best that was measured with the best weights of which anything was."""
        winner = None if result is None else result.winner
        for searching, observed in reversed(kept):
            best = searching.interrupted(winner, by=by)
            if best is not None:
                changes = changed_images(compared(searching.fp32, best))
                return Searched(observed, best, replace(after, changes=changes), interrupted=True)
        raise interrupt

    def _times(self, searching: Searching) -> LayerTimes | None:
        """--by-time, --pareto: those of the layers."""
        options, start = self.goal.options, searching.programs.start
        if not (options.by_time or options.pareto):
            return None
        int8 = searching.programs.spec(start)
        self.meter.settle()  # or actors that still work on something would seem slow
        times = layer_times(self.meter, self.goal, self.base.spec(), int8, self.session.cores_per_actor)
        if options.by_time:
            searching.ranking.saved = {name: round(1e9 * times.saved(name)) for name in start.space.order}
        return times

    def _afterwards(
        self, searching: Searching, observed: Observed, result: SearchResult, times: LayerTimes | None
    ) -> Iterator[Afterwards]:
        """What is measured when the winner is known, step by step."""
        options, winner, n_cores = self.goal.options, result.winner, self.session.cores_per_actor
        images = compared(searching.fp32, result)
        afterwards = Afterwards(changed_images(images))
        yield afterwards
        afterwards = replace(afterwards, price=price_warnings(searching, result, afterwards.changes))
        yield afterwards
        self.meter.settle()
        fp32 = self.base.spec()
        timed = speeds(searching, fp32, result, times, n_cores)
        [found] = look(self.session, "speeds", timed)  # with nothing beside it
        afterwards = replace(afterwards, speeds=found.rates, layer_seconds=found.layers)
        yield afterwards
        inputs, lost = look(
            self.session,
            "details for the report",
            input_sizes(self.session, self.base, observed.calibration, options.sampled),
            classify_lost(searching, self.base, winner, images),
        )
        afterwards = replace(afterwards, lost=lost, inputs=inputs)
        yield afterwards
        if times is not None and options.pareto:
            afterwards = replace(afterwards, curve=measure_curve(searching, winner, times))
            yield afterwards
        delivery = Delivery.of(self.base, observed, winner, options)
        if delivery.plain is not None:
            yield replace(afterwards, plain=searching.measure_plain(winner))
        elif delivery.made.changed and options.count_saved:
            yield replace(afterwards, savings=count_saved(searching, observed.without, result))
