"""What measuring needs of a session, so that what stands behind it may as well be simulated."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from distcalib.actors import Enough, Job, JobResult
from distcalib.engine.spec import NetSpec, Row
from distcalib.session.progress import Reporter


def images_a_row(job: Job, batch: int) -> int:
    """Images an iteration of a job: as many as the net's `batch` has, or as stand in the batches that it names."""
    images = getattr(job.spec, "images", None)
    return batch if images is None else int(images.shape[1])


class Actors(Protocol):
    """Actors that have a net's data; Session is what real ones are."""

    @property
    def n_actors(self) -> int:
        """How many they are."""
        ...

    @property
    def batch(self) -> int:
        """Images an iteration."""
        ...

    @property
    def reporter(self) -> Reporter:
        """Who is told."""
        ...

    def scoring(self, key: str, spec: NetSpec, n_iterations: int, wanted: Sequence[int], phase: str) -> Job:
        """A job that scores the iterations `wanted` of `n_iterations`, in that order; it may fail by itself."""
        ...

    def by_iteration(self, job: Job, found: Mapping[int, object]) -> dict[int, Row]:
        """The rows of a scoring job by iteration, from those by the numbers that stand in its `order`."""
        ...

    def run(self, phase: str, jobs: Sequence[Job], enough: Enough | None = None) -> list[JobResult]:
        """Run jobs; results in their order."""
        ...

    def recorded(self, job: Job) -> JobResult | None:
        """What the journal has of a job; None without a journal."""
        ...

    def settle(self) -> float:
        """Wait for what stopped jobs left under way; the actor-seconds of it, which no result has."""
        ...

    def work(self, layers: Sequence[str]) -> Mapping[str, int]:
        """The multiply-adds of one image in each of `layers`."""
        ...
