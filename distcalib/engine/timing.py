"""How long each layer of a net takes in one actor, by the engine's own clock: what the speed of other mixtures of FP32
and INT8 is predicted from.

A convolution's time is that of the kernel which multiplies; what is fused into it comes with it.  All else (pooling,
reorders between layouts and types, softmax) is the rest, since it belongs to no layer that could fall back.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from distcalib.engine.builder import BuiltModel
from distcalib.engine.program import compile_model, infer, kernels_by_op
from distcalib.engine.spec import NetSpec

REST = ""
"""Stands for all that is not a layer with a kernel of its own; no layer has an empty name."""


@dataclass(frozen=True)
class TimingSpec:
    """A net that is to be timed, and its layers, one iteration per row, by actors of `n_cores` cores: times are of
    these."""

    net: NetSpec
    n_cores: int


class TimedProgram:
    """A net that tells its times; it is run where it was compiled.

    The engine's own clock is read some hundred times an iteration, which no time of a whole net shows: resnet20 takes
    0.973 times as long with it, examples/digits, at 0.2 ms an iteration, 1.001 times.
    """

    def __init__(self, spec: NetSpec, built: BuiltModel, n_threads: int) -> None:
        self.spec = spec
        self._inputs = built.inputs
        self._is_warm = False
        compiled = compile_model(built, spec.where, n_threads, {"PERF_COUNT": True})
        self._layer_of = kernels_by_op(compiled, built.multipliers)
        self._request = compiled.create_infer_request()

    def seconds(self, batch: Mapping[str, NDArray[np.float32]]) -> tuple[float, dict[str, float]]:
        """Seconds of one iteration: of the whole net, and by layer, `REST` for all others; the very first of two runs
        only warms the caches."""
        if not self._is_warm:
            infer(self._request, self._inputs, batch, self.spec.where)
            self._is_warm = True
        begin = time.perf_counter()
        infer(self._request, self._inputs, batch, self.spec.where)
        whole = time.perf_counter() - begin
        seconds_of = dict.fromkeys([REST, *self._layer_of.values()], 0.0)
        for info in self._request.get_profiling_info():
            if info.status == ov.ProfilingInfo.Status.EXECUTED:
                seconds_of[self._layer_of.get(info.node_name, REST)] += info.real_time.total_seconds()
        return whole, dict(sorted(seconds_of.items()))
