"""Runs jobs on the actors of a calibration, and counts what they cost."""

import time
from collections.abc import Iterable, Mapping, Sequence

from distcalib.actors import Enough, Job, JobResult
from distcalib.engine.spec import Row
from distcalib.session.evaluate import rate
from distcalib.session.progress import Decided, Watcher
from distcalib.session.protocol import Actors, images_a_row

WARM = 10
"""Iterations an actor of all INT8 that are worth a pass: the first that a program runs takes half as long again."""


class Meter:
    """Actor-seconds of a calibration on the actors of `session`."""

    def __init__(self, session: Actors) -> None:
        self.session = session
        self._seconds = self._fp32 = self._int8 = 0.0
        self._int8_is_known = True
        self._images_per_second: dict[str, float] = {}

    def run(self, phase: str, jobs: Sequence[Job], enough: Enough | None = None) -> list[JobResult]:
        """Run jobs, and count what they cost."""
        begin = time.perf_counter()
        results = self.session.run(phase, jobs, enough)
        self.count(sum(r.run_seconds + r.compile_seconds + r.load_seconds for r in results))
        if len(results) == 1 and results[0].rows and enough is None and not results[0].n_recorded:
            batch, seconds = images_a_row(jobs[0], self.session.batch), time.perf_counter() - begin
            self._images_per_second[phase] = rate(results[0], self.session.n_actors, batch, seconds)
        return results

    def settle(self) -> None:
        """Wait for what stopped jobs left under way, and count it."""
        self.count(self.session.settle())

    def count(self, seconds: float) -> None:
        """Count actor-seconds that no result has."""
        self._seconds += seconds

    def count_fp32(self, seconds: float) -> None:
        """Count what the FP32 pass took, a half of the unit of `passes`."""
        self._fp32 = seconds

    def count_int8(self, seconds: float, result: JobResult) -> None:
        """Count what a pass of all INT8 takes, the other half, as reckoned from what was run of it.

        Where its arithmetic is emulated, which its rows tell by naming no kernels, no speed says more.
        """
        emulated = any(isinstance(row, Row) and row.kernels is None for row in result.rows)
        self._int8 = seconds
        self._int8_is_known = result.complete or emulated or result.size >= WARM * self.session.n_actors

    def learn_speeds(self, fp32: float, int8: float) -> None:
        """Take a pass of all INT8 for as much faster than that of FP32 as inference alone is, where few iterations
        were run of it; `fp32` and `int8` in images/s."""
        if not self._int8_is_known:
            self._int8 = self._fp32 * fp32 / int8

    @property
    def unavoidable(self) -> float:
        """Actor-seconds of one FP32 and one all-INT8 pass, as far as they were run."""
        return self._fp32 + self._int8

    @property
    def passes(self) -> float | None:
        """The total in units of the unavoidable; None where nothing was."""
        return self._seconds / self.unavoidable if self.unavoidable else None

    @property
    def images_per_second(self) -> Mapping[str, float]:
        """Of all actors together, by phase that was one job."""
        return dict(self._images_per_second)

    def decided(self, verdicts: Iterable[Decided]) -> None:
        """Tell a user who watches."""
        reporter = self.session.reporter
        if isinstance(reporter, Watcher):
            for verdict in verdicts:
                reporter.decided(verdict)

    def note(self, text: str) -> None:
        """Tell the user."""
        self.session.reporter.note(text)
