"""Jobs that score nets in the order of a search, and what their rows say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from distcalib.actors import Job
from distcalib.actors.dispatcher import n_useful
from distcalib.calibration.image_order import at_home
from distcalib.engine.spec import NetSpec, Row
from distcalib.metrics import Drawing, ImageOrder
from distcalib.session.protocol import Actors


@dataclass
class Scorer:
    """Scores by `metric` over `n_iterations`; `order`: of the images, where an iteration is a batch of it.

    `pass_seconds`: what all iterations took of an actor, once one net was measured.
    """

    session: Actors
    metric: str
    n_iterations: int
    order: ImageOrder | Drawing | None
    pass_seconds: float = 0.0

    def program(self, spec: NetSpec) -> NetSpec:
        """`spec` with the images in the order of the search."""
        if self.order is None:
            return spec
        return replace(spec, images=self.order.images, by_image=self.metric)

    def job(self, key: str, spec: NetSpec, missing: Sequence[int], phase: str) -> Job:
        """What scores the iterations `missing`."""
        job = self.session.scoring(key, spec, self.n_iterations, missing, phase)
        if not isinstance(self.order, ImageOrder):
            return job
        return at_home(job, self.order, n_useful(self.pass_seconds, self.session.n_actors))

    def rows(self, job: Job, found: Mapping[int, object]) -> dict[int, Row]:
        """The rows of a job by iteration, from those by number."""
        return self.session.by_iteration(job, found)
