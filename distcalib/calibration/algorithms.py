"""`-a auto` on actors: what each choice of algorithms does to the net's output on the sampled iterations.

The error is taken from the values that the score is made of, not from the score: it needs no labels and has no steps,
so ten iterations tell choices apart that a score would call equal.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum, inf, isfinite

import numpy as np
from numpy.typing import NDArray

from distcalib.actors import JobResult
from distcalib.caffe.graph import Blob
from distcalib.calibration.candidate_net import deliver
from distcalib.engine.net import Net
from distcalib.engine.score_inputs import score_inputs
from distcalib.engine.spec import NetSpec, Outputs
from distcalib.quantize.blob_algorithms import Choice, search_choices
from distcalib.quantize.scales import Calibration
from distcalib.quantize.thresholds import ALGORITHMS, AUTO
from distcalib.session.backend import rows

# Values that the driver holds at a time, of as many programs as that are, until it has taken the errors from them.
MAX_HELD_BYTES = 256 * 2**20

Values = Sequence[Mapping[Blob, NDArray[np.float32]]]
"""Of some blobs, by iteration in their order."""
Measure = Callable[[str, Sequence[tuple[NetSpec, int]]], Sequence[JobResult]]
"""Phase, then programs and how many rows of each: as Session.measure."""


@dataclass(frozen=True)
class Chosen:
    """The algorithms, and the errors at the output: of each of them for all values, and of the choice as `auto`."""

    choice: Choice
    blobs: tuple[Blob, ...]
    """The values that scales are made from, in net order."""
    errors: Mapping[str, float]

    @property
    def algorithms(self) -> dict[str, str]:
        """The algorithm by blob."""
        return {str(blob): self.choice.algorithm(blob) for blob in self.blobs}

    def __str__(self) -> str:
        if not self.errors:
            return "auto: nothing to choose for"
        best = min(ALGORITHMS, key=self.errors.__getitem__)
        counts = Counter(self.algorithms.values())
        shares = ", ".join(f"{name} for {counts[name]}" for name in ALGORITHMS if counts[name])
        before = f"{self.errors[best]:.4g} ({best} for all)"
        return f"auto: output error {before} -> {self.errors[AUTO]:.4g}; of {len(self.blobs)} blobs {shares}"


def choose(base: Net, calibration: Calibration, metric: str, sampled: range, measure: Measure) -> Chosen:
    """The algorithms for the all-INT8 net of `calibration`, by the error over the iterations `sampled`."""
    blobs = calibration.scaled(calibration.quantizer.space.all_int8)
    search = search_choices(blobs)
    errors = _Errors(base, calibration, Outputs(score_inputs(base, metric), sampled.start), len(sampled), measure)
    try:
        asked = next(search)
        for n_round in range(1, 1000):
            counted = f"{len(asked)} choice{'s' if len(asked) > 1 else ''}"
            asked = search.send(errors.of(f"auto, round {n_round}, {counted}", asked))
        raise AssertionError("the search for algorithms does not end")
    except StopIteration as stop:
        choice: Choice = stop.value
    if not blobs:
        return Chosen(choice, (), {})
    told = {name: errors.known[Choice(name)] for name in ALGORITHMS}
    return Chosen(choice, blobs, {**told, AUTO: errors.known[choice]})


class _Errors:
    """Measures choices; what the parameters of two choices agree in is measured once."""

    def __init__(
        self, base: Net, calibration: Calibration, outputs: Outputs, n_iterations: int, measure: Measure
    ) -> None:
        self._base, self._calibration, self._outputs = base, calibration, outputs
        self._n_iterations, self._measure = n_iterations, measure
        self._expected: Values = ()
        self._of_net: dict[bytes, float] = {}
        self.known: dict[Choice, float] = {}

    def of(self, phase: str, choices: Sequence[Choice]) -> list[float]:
        """The error of each."""
        if not self._expected:
            [result] = self._measure("auto, FP32", [(self._base.spec(outputs=self._outputs), self._n_iterations)])
            self._expected = _values(result)
        specs = [self._spec(choice) for choice in choices]
        new = list({spec.net: spec for spec in specs if spec.net not in self._of_net}.values())
        n_bytes = sum(array.nbytes for values in self._expected for array in values.values())
        n_at_once = max(1, MAX_HELD_BYTES // n_bytes)
        parts = [new[i : i + n_at_once] for i in range(0, len(new), n_at_once)]
        for i, part in enumerate(parts, 1):
            told = phase if len(parts) == 1 else f"{phase}, part {i} of {len(parts)}"
            results = self._measure(told, [(spec, self._n_iterations) for spec in part])
            for spec, result in zip(part, results, strict=True):
                self._of_net[spec.net] = output_error(_values(result), self._expected)
        answers = [self._of_net[spec.net] for spec in specs]
        self.known.update(zip(choices, answers, strict=True))
        return answers

    def _spec(self, choice: Choice) -> NetSpec:
        calibration = replace(self._calibration, choice=choice)
        return deliver(self._base, calibration, calibration.quantizer.space.all_int8).spec(self._outputs)


def output_error(found: Values, expected: Values) -> float:
    """The mean over the blobs of Σ(found - expected)² / Σ expected²: relative, so that several outputs count alike.

    In float64 and summed exactly over the iterations; infinite where a value is not finite.
    """
    shares = []
    for blob in expected[0]:
        distance = fsum(_distance(a[blob], b[blob]) for a, b in zip(found, expected, strict=True))
        size = fsum(_distance(b[blob], np.zeros(1, np.float32)) for b in expected)
        shares.append(distance / size if size > 0.0 else distance)
    error = fsum(shares) / len(shares)
    return error if isfinite(error) else inf


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Σ(a - b)²."""
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.sum(np.square(a.astype(np.float64) - b)))


def _values(result: JobResult) -> Values:
    return [row.values for row in rows(result)]
