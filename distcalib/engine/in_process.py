"""Programs of a net, compiled and run in this process: for what needs rows of a net and no actors.

It is a worker that compiles, loads, runs and drops as it does in an actor, so that rows are those of an actor; only the
pool is left out, which takes seconds to start."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import Weights, share
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.net import Net
from distcalib.engine.ranking import RankSpec
from distcalib.engine.spec import ElsewhereSpec, NetSpec, Row
from distcalib.engine.timing import TimingSpec
from distcalib.engine.worker import NetWorker, Setting


class InProcess:
    """Runs programs of `net` with `weights`, as they are in its caffemodel, on `n_threads` cores.

    `arithmetic`: of INT8 layers. `arrays`, by top: what feeds Input layers. `skip_bad`: whether records that cannot be
    read are left out. Raises what reading the weights into the net's layers does.
    """

    def __init__(
        self,
        net: Net,
        weights: Weights,
        n_threads: int = 1,
        arithmetic: Arithmetic = NATIVE,
        arrays: Mapping[str, NDArray[np.generic]] | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.weights = share(net.test.layer, weights, net.name)
        setting = Setting(net.path.resolve(), self.weights, "weights", {}, arrays, skip_bad)
        self._worker = NetWorker(setting, n_threads, arithmetic=arithmetic)

    def rows(self, spec: NetSpec | RankSpec | TimingSpec | ElsewhereSpec, iterations: Sequence[int]) -> list[Row]:
        """One row of the program of `spec` for each of `iterations`, as NetWorker.run gives them."""
        program = self._worker.compile(spec)
        try:
            self._worker.load("here", program)
            return self._worker.run("here", iterations)
        finally:
            self._worker.drop("here")
