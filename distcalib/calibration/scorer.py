"""Jobs that score nets in the order of a search, and what their rows say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distcalib.actors import Job, JobResult
from distcalib.actors.dispatcher import n_useful
from distcalib.calibration.fp32_pass import partials
from distcalib.calibration.image_order import at_home
from distcalib.calibration.lookahead import n_ahead
from distcalib.calibration.meter import Meter
from distcalib.engine.spec import NetSpec, Row
from distcalib.metrics import Drawing, ImageOrder, PartialScore
from distcalib.session.protocol import Actors


@dataclass
class Scorer:
    """Scores by `metric` over `n_iterations`; `order`: of the images, where an iteration is a batch of it.

    `pass_seconds`: what all iterations took of an actor, and `compile_seconds` a program, once one net was measured.
    """

    session: Actors
    metric: str
    n_iterations: int
    order: ImageOrder | Drawing | None
    pass_seconds: float = 0.0
    compile_seconds: float = 0.0

    def program(self, spec: NetSpec) -> NetSpec:
        """`spec` with the images in the order of the search."""
        if self.order is None:
            return spec
        return replace(spec, images=self.order.images, by_image=self.metric)

    def job(self, key: str, spec: NetSpec, missing: Sequence[int], phase: str) -> Job:
        """What scores the iterations `missing`."""
        job = self.session.scoring(key, spec, self.n_iterations, missing, phase)
        if self.order is None:
            return job
        return at_home(job, self.order, n_useful(self.pass_seconds, self.session.n_actors))

    def rows(self, job: Job, found: Mapping[int, object]) -> dict[int, Row]:
        """The rows of a job by iteration, from those by number."""
        return self.session.by_iteration(job, found)

    def learn_times(self, job: Job, result: JobResult) -> None:
        """Take over how long the first net took."""
        self.pass_seconds = result.run_seconds * job.size / max(result.size, 1)
        self.compile_seconds = result.compile_seconds + result.load_seconds / self.session.n_actors

    def n_ahead(self, n_wanted: int, n_likely: int, share: float) -> int:
        """How many likely candidates are worth measuring together with those that are wanted; a candidate that fails is
        measured on `share` of the data."""
        if not self.pass_seconds:
            return 0
        n, n_actors = self.n_iterations, self.session.n_actors
        return n_ahead(n_wanted, n_actors, n, self.pass_seconds / n, self.compile_seconds, n_likely, share)

    def whole(self, meter: Meter, spec: NetSpec, phase: str) -> list[PartialScore]:
        """What all iterations score; it must not fail."""
        n = self.n_iterations
        job = replace(self.job(phase, self.program(spec), range(n), phase), may_fail=False)
        [result] = meter.run(phase, [job])
        made = partials(self.rows(job, result.by_number), self.metric)
        return [made[i] for i in range(n)]
