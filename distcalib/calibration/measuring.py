"""What a run measures on its actors, what it was told, and what that cost."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distcalib.actors import Enough, Job, JobResult
from distcalib.caffe.graph import Blob
from distcalib.calibration.algorithms import Chosen
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.spec import Row
from distcalib.errors import EngineError
from distcalib.metrics import Drawing, Hits, ImageOrder, Partial, PartialScore, drawn, hard_first, merged
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.scales import Calibration
from distcalib.report import CurvePoint, score_name
from distcalib.search import Measurement, Verdict
from distcalib.session.backend import rows
from distcalib.session.evaluate import rate
from distcalib.session.protocol import Actors

# Images that a ranking looks at, in at least two iterations: 200 of 10,000 rank resnet20 as 1,000 do.
RANKED_IMAGES = 200


@dataclass
class Cost:
    """Actor-seconds of the run."""

    total: float = 0.0
    unavoidable: float = 0.0
    """Those of one FP32 and one all-INT8 pass."""

    @property
    def passes(self) -> float | None:
        """The total in units of the unavoidable."""
        return self.total / self.unavoidable if self.unavoidable else None

    def add(self, results: Sequence[JobResult]) -> None:
        """Count what `results` took."""
        self.total += sum(r.run_seconds + r.compile_seconds + r.load_seconds for r in results)


# What FP32's values of these images may take, unless two iterations take more: every actor gets them. An SSD300 has
# 0.9 MB of boxes and confidences an image, of so many priors that fewer images tell as much.
RANKED_BYTES = 64 * 2**20


def ranked_iterations(n_iterations: int, batch: int, image_bytes: int = 0) -> tuple[int, ...]:
    """The iterations that a ranking looks at, spread evenly over the data, which may be sorted by class.

    `image_bytes`: what the compared values of an image take.
    """
    n_images = min(RANKED_IMAGES, RANKED_BYTES // image_bytes) if image_bytes else RANKED_IMAGES
    n = min(n_iterations, max(2, math.ceil(n_images / batch)))
    return tuple(i * n_iterations // n for i in range(n))


@dataclass(kw_only=True)
class Results:
    """The measurements of one run, by candidate."""

    fp32_score: float | None = None
    fp32_seconds: float = 0.0
    """Actor-seconds of its pass."""
    fp32_values: Sequence[PartialScore] = ()
    """By iteration."""
    fp32_kept: Mapping[int, Mapping[Blob, NDArray[np.float32]]] = field(default_factory=dict)
    """By iteration, of those that a ranking looks at: what the score is made of."""
    natural: str = ""
    """Why images are taken in the order of the data."""
    image_order: ImageOrder | Drawing | None = None
    """The other one, that of the search, with a confidence as they are drawn; None: that of the data."""
    distances: Mapping[str, float] = field(default_factory=dict)
    """What the ranking saw of each layer, in net order."""
    answered: dict[Candidate, Measurement | Verdict] = field(default_factory=dict)
    """What the strategy was told, in its order: the winner follows from it."""
    shares: dict[Candidate, float] = field(default_factory=dict)
    """Of each the part of the data that was measured of it by then."""
    failed: dict[Candidate, str] = field(default_factory=dict)
    """Candidates that could not be run, with the reason."""
    stopped_by: str | None = None
    """The flag that ended the search before its time."""
    without_int8_kernel: dict[Candidate, tuple[str, ...]] = field(default_factory=dict)
    images_per_second: dict[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    curve: tuple[CurvePoint, ...] = ()
    """With --pareto."""
    price: tuple[str, ...] = ()
    """What is to be said of the layers that fell back."""
    image_bytes: int = 0
    """What the values that a ranking compares take of an image; 0: not worth counting."""
    winner_values: Sequence[PartialScore] = ()
    """Of the delivered candidate, by iteration."""
    chosen: Chosen | None = None
    """What `-a auto` chose."""
    pairs: Mapping[str, str] = field(default_factory=dict)
    """The layers that --equalize scaled, each with the one that reads it."""
    without: dict[str, Calibration] = field(default_factory=dict)
    """Of --equalize and --bias-correction, in the order in which they apply, what each was given."""

    def measured(self, candidate: Candidate) -> Measurement | None:
        """The score of a candidate that was measured over all iterations."""
        said = self.answered.get(candidate)
        return said if isinstance(said, Measurement) else None

    def loses_too_much(self, candidate: Candidate, tolerance: float) -> bool:
        """Whether it is known that the candidate does not meet the tolerance."""
        said = self.answered.get(candidate)
        return not said.meets if isinstance(said, Verdict) else said is not None and said.drop > tolerance

    def is_minimal(self, winner: Candidate, tolerance: float) -> bool:
        """Whether it was checked that none of the FP32 layers of a winner that meets the tolerance can be INT8."""
        measured = self.measured(winner)
        met = measured is not None and measured.drop <= tolerance
        return met and all(self.loses_too_much(candidate, tolerance) for candidate in winner.returns.values())


@dataclass
class Measuring(Results):
    """Measures on actors."""

    session: Actors
    metric: str
    lower_is_better: bool
    options: CalibrationOptions

    def take_fp32(self, result: JobResult, where: str) -> None:
        """The FP32 net's scores, which all others are compared with; EngineError if they are no numbers."""
        found = rows(result)
        self.fp32_values = [row.scores[self.metric] for row in found]
        self.fp32_score = merged(self.fp32_values, self.options.ap_version)
        images = [row.by_image for row in found if row.by_image is not None]
        if images and len(images) == len(found):
            ordered = hard_first if self.options.confidence is None else drawn
            self.image_order = ordered(images, self.session.batch)
        self.fp32_kept = {i: row.values for i, row in enumerate(found) if row.values}
        self.fp32_seconds = result.run_seconds
        self.cost.unavoidable += result.run_seconds
        if not math.isfinite(self.fp32_score):
            raise EngineError(
                f"{where}: '{self.metric}' is {self.fp32_score} in FP32 already; "
                "correct the weights or the data, `distcalib evaluate` shows all scores"
            )
        self.session.reporter.note(f"FP32: {score_name(self.metric, self.lower_is_better)} = {self.fp32_score:.6g}")

    @property
    def ranked(self) -> tuple[int, ...]:
        """The iterations that a ranking looks at."""
        return ranked_iterations(self.options.iterations, self.session.batch, self.image_bytes)

    def partials(self, found: Mapping[int, object]) -> dict[int, PartialScore]:
        """What rows say of the score, by iteration."""
        return {i: self._partial(row) for i, row in found.items() if isinstance(row, Row)}

    def _partial(self, row: Row) -> PartialScore:
        score = row.scores[self.metric]
        if row.by_image is None or not isinstance(score, Partial):
            return score
        return Hits(score.numerator, score.denominator, score.n_records, row.by_image.hits.tobytes())

    def timed(self, phase: str, jobs: Sequence[Job], enough: Enough | None = None) -> list[JobResult]:
        """Run jobs, and count what they cost."""
        begin = time.perf_counter()
        results = self.session.run(phase, jobs, enough)
        self.cost.add(results)
        if len(results) == 1 and results[0].rows and enough is None and not results[0].n_recorded:
            self.images_per_second[phase] = rate(results[0], self.session, time.perf_counter() - begin)
        return results
