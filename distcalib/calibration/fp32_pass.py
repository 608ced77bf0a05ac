"""What the FP32 net answers, iteration by iteration: all candidates are compared with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob
from distcalib.calibration.goal import Goal
from distcalib.engine.spec import Row
from distcalib.errors import EngineError
from distcalib.metrics import ByImage, Drawing, Hits, ImageOrder, Partial, PartialScore, drawn, hard_first, merged
from distcalib.report import score_name


@dataclass(frozen=True)
class Fp32Pass:
    """The FP32 net's score and what it is made of; `seconds` of actors it took.

    `values`: by iteration.  `kept`: of the iterations that a ranking looks at, what the score is made from, by blob.
    `images`: by iteration, where images are scored one by one; `order`: that in which a search takes them then, with a
    confidence as they are drawn; None: that of the data.
    """

    score: float
    values: Sequence[PartialScore]
    seconds: float = 0.0
    kept: Mapping[int, Mapping[Blob, NDArray[np.float32]]] = field(default_factory=dict)
    images: Sequence[ByImage] = ()
    order: ImageOrder | Drawing | None = None

    @classmethod
    def of(cls, made: Sequence[Row], seconds: float, goal: Goal, batch: int, where: str) -> "Fp32Pass":
        """What the rows of one pass say; EngineError, which begins with `where`, if the score is no number."""
        values = [row.scores[goal.metric] for row in made]
        score = merged(values, goal.options.ap_version)
        if not math.isfinite(score):
            raise EngineError(
                f"{where}: '{goal.metric}' is {score} in FP32 already; "
                "correct the weights or the data, `distcalib evaluate` shows all scores"
            )
        images = [row.by_image for row in made if row.by_image is not None]
        kept = {i: row.values for i, row in enumerate(made) if row.values}
        if not images or len(images) < len(made):
            return cls(score, values, seconds, kept)
        ordered = hard_first if goal.options.confidence is None else drawn
        return cls(score, values, seconds, kept, images, ordered(images, batch))

    def told(self, goal: Goal) -> str:
        """It in a line for the user."""
        return f"FP32: {score_name(goal.metric, goal.lower_is_better)} = {self.score:.6g}"


def partials(found: Mapping[int, object], metric: str) -> dict[int, PartialScore]:
    """What rows say of the score `metric`, by iteration."""
    return {i: _partial(row, metric) for i, row in found.items() if isinstance(row, Row)}


def _partial(row: Row, metric: str) -> PartialScore:
    score = row.scores[metric]
    if row.by_image is None or not isinstance(score, Partial):
        return score
    right = row.by_image.hits.tobytes()
    return Hits(score.numerator, score.denominator, score.n_records, right, by_class=score.by_class)
