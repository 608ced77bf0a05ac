"""Measure candidates in this process: for scripts and tests that need scores of many candidates and no actors.

Their nets are made as the search makes them, and run by engine/in_process.py, so that scores are those that `calibrate`
finds."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from math import fsum

import numpy as np
from numpy.typing import NDArray

from distcalib.actors.isa import isa_here
from distcalib.caffe import Weights
from distcalib.calibration.candidate_net import deliver
from distcalib.calibration.goal import ranked_iterations
from distcalib.data import open_source
from distcalib.engine.in_process import InProcess
from distcalib.engine.net import Net
from distcalib.engine.ranking import distance
from distcalib.engine.score_inputs import score_inputs
from distcalib.engine.spec import NetSpec, Outputs, Sampling
from distcalib.engine.worker import data_nodes
from distcalib.metrics import choose_score
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import merge_ranges
from distcalib.quantize.scales import Calibration
from distcalib.session.evaluate import scores

N_SAMPLED = 10  # as -s by default


class Trial:
    """A net with weights, to be quantized as `options` say and measured over `n_iterations`."""

    def __init__(
        self,
        net: Net,
        weights: Weights,
        options: Options,
        n_iterations: int,
        n_threads: int = 1,
        metric: str | None = None,
    ) -> None:
        """`metric`: the blob that scores; None: as `calibrate` chooses it."""
        self._net, self._n_iterations = net, n_iterations
        self.here = InProcess(net, weights, n_threads, isa_here().arithmetic)
        self._metric = choose_score(net.test, metric)
        self._found: dict[Candidate, float] = {}
        self._distances: dict[Candidate, float] = {}
        self.quantizer = Quantizer(net.graph, options)

    @property
    def all_int8(self) -> Candidate:
        """Every layer INT8 that can be."""
        return self.quantizer.space.all_int8

    @cached_property
    def calibration(self) -> Calibration:
        """From the ranges over the first iterations."""
        n_sampled = min(N_SAMPLED, self._n_iterations)
        sampling = Sampling(self.quantizer.observed, False, 0, n_sampled, n_sampled)
        observed = self.here.rows(self._net.spec(sampling), range(1))
        ranges = merge_ranges(self.quantizer.observed, [row.ranges for row in observed])
        return Calibration(self.quantizer, ranges, self.here.weights)

    @cached_property
    def fp32_scores(self) -> Mapping[str, float]:
        """Every score of the FP32 net, by blob."""
        return scores(self.here.rows(self._net.spec(), range(self._n_iterations)))

    @property
    def fp32_score(self) -> float:
        """The score of the FP32 net."""
        return self.fp32_scores[self._metric]

    def score(self, candidate: Candidate) -> float:
        """The score of `candidate`; measured once."""
        if candidate not in self._found:
            spec = deliver(self._net, self.calibration, candidate).spec()
            self._found[candidate] = scores(self.here.rows(spec, range(self._n_iterations)))[self._metric]
        return self._found[candidate]

    def loss(self, candidate: Candidate) -> float:
        """What `candidate` loses against FP32."""
        return round(self.fp32_score - self.score(candidate), 12)

    def distance(self, candidate: Candidate) -> float:
        """How far what the score is made of is from FP32's, on the iterations that a ranking looks at."""
        if candidate not in self._distances:
            values = self._values(deliver(self._net, self.calibration, candidate).spec)
            parts = [distance(a, b) for a, b in zip(values, self._reference, strict=True)]
            self._distances[candidate] = fsum(parts) / len(parts)
        return self._distances[candidate]

    @cached_property
    def _reference(self) -> list[list[NDArray[np.float32]]]:
        return self._values(self._net.spec)

    def _values(self, spec: Callable[..., NetSpec]) -> list[list[NDArray[np.float32]]]:
        """By ranked iteration, what the score is made of."""
        blobs = score_inputs(self._net, self._metric)
        [node] = data_nodes(self._net.graph)
        batch = open_source(node.layer, self._net.path).batch_size
        iterations = ranked_iterations(self._n_iterations, batch)
        rows = self.here.rows(spec(outputs=Outputs(blobs)), iterations)
        return [[row.values[blob] for blob in blobs] for row in rows]

    def drop(self, *fp32: str) -> float:
        """What is lost against FP32 with the layers `fp32`, and what they pull along, in FP32."""
        return self.loss(self.all_int8.without(*fp32))

    def cure_and_gap(self, layers: Iterable[str]) -> tuple[float, float]:
        """Drop with all of `layers` in FP32, and the least drop with one of them in INT8 again.

        A tolerance in between needs all of them.
        """
        cure = self.all_int8.without(*layers)
        back = {self.all_int8.without(*(set(layers) - {name})) for name in layers} - {cure}
        return self.drop(*layers), min(self.loss(candidate) for candidate in back)
