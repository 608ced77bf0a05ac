"""What the stages of a calibration found, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob
from distcalib.calibration.algorithms import Chosen
from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.metrics import PartialScore
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.histogram import Histogram
from distcalib.quantize.scales import Calibration
from distcalib.report import Changes, CurvePoint
from distcalib.search import Measurement, Verdict


@dataclass(frozen=True)
class Observed:
    """What a calibration knows of the net before it quantizes anything.

    `fp32`: None where nothing is measured.  `chosen`: by `-a auto`.  `pairs`: the layers that --equalize scaled, each
    with the one that reads it.  `without`: of --equalize and --bias-correction, in the order in which they apply, what
    each was given.  `ends`: of the values whose channels may be scaled those of each channel, (C, 2), as far as they
    were observed.
    """

    calibration: Calibration
    fp32: Fp32Pass | None = None
    chosen: Chosen | None = None
    pairs: Mapping[str, str] = field(default_factory=dict)
    without: Mapping[str, Calibration] = field(default_factory=dict)
    ends: Mapping[Blob, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchResult:
    """The candidate to be delivered, and what it follows from.

    `answered`: what the strategy was told, in its order; `shares`: of each the part of the data that was measured of
    it.  `failed`: candidates that could not be run, with the reason.  `values`: of the winner by iteration, batches of
    the order of the search; empty if it was not measured to the end.  `distances`: what the ranking saw of each layer,
    in net order.  `minimal`: no FP32 layer of the winner can be INT8, and that was measured.  `stopped_by`: what ended
    the search before its time.
    """

    winner: Candidate
    answered: Mapping[Candidate, Measurement | Verdict] = field(default_factory=dict)
    shares: Mapping[Candidate, float] = field(default_factory=dict)
    failed: Mapping[Candidate, str] = field(default_factory=dict)
    values: Sequence[PartialScore] = ()
    distances: Mapping[str, float] = field(default_factory=dict)
    minimal: bool = False
    without_int8_kernel: tuple[str, ...] = ()
    stopped_by: str | None = None

    def measured(self, candidate: Candidate) -> Measurement | None:
        """The score of a candidate that was measured over all iterations."""
        said = self.answered.get(candidate)
        return said if isinstance(said, Measurement) else None


@dataclass(frozen=True)
class Savings:
    """FP32 layers that --equalize and --bias-correction saved each, empty where that was not searched or a search
    failed; and the score of the all-INT8 net with the weights given, None where it was not measured to the end.
    """

    layers: Mapping[str, int] = field(default_factory=dict)
    all_int8_score: float | None = None


@dataclass(frozen=True)
class Classified:
    """Of lost images by number the label, FP32's class and the delivered net's; `evenly`: those that stand for all."""

    classes: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    evenly: Sequence[int] = ()


@dataclass(frozen=True)
class Afterwards:
    """What was measured when the winner was known.

    `changes`: None where images were not scored one by one.  `price`: what is to be said of the layers that fell back.
    `speeds`: images/s of one core, by net; `layer_seconds`: by layer those of one iteration, in FP32 and in INT8.
    `lost`: what lost images are taken for.  `inputs`: what layers read.
    `curve`: with --pareto.  `plain`: with -fu the same net without it.
    """

    changes: Changes | None = None
    price: tuple[str, ...] = ()
    speeds: Mapping[str, float] = field(default_factory=dict)
    layer_seconds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    lost: Classified = field(default_factory=Classified)
    inputs: Mapping[Blob, Histogram] = field(default_factory=dict)
    curve: tuple[CurvePoint, ...] = ()
    plain: Measurement | None = None
    savings: Savings = field(default_factory=Savings)
