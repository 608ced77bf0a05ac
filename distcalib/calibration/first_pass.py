"""The FP32 pass, of which the program that observes the ranges takes over the iterations that are sampled.

That computes what the plain program does, and the ends of some values beside it; run by both, the sampled iterations
would cost twice. That its kernels answer alike is not taken for granted: one iteration is run by both, and unless all
that the score is made from is the same to the last bit, the plain program runs the other ones, too. (So far they differ
in one net of four, SSD300-MobileNet, with AVX2 kernels, in the seventh digit.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distcalib.actors import Job, JobResult
from distcalib.caffe.graph import Blob
from distcalib.calibration.fp32_pass import Fp32Pass
from distcalib.calibration.goal import Goal
from distcalib.engine.net import Net
from distcalib.engine.score_inputs import score_inputs
from distcalib.engine.spec import Kept, NetSpec, Row, Sampling
from distcalib.session.backend import rows
from distcalib.session.session import Session

Done = tuple[Job, JobResult]


@dataclass(frozen=True)
class FirstPass:
    """The plain program of `base` and the observing one, which scores the iterations that are `shared`, maybe none."""

    session: Session
    base: Net
    goal: Goal
    shared: range = range(0)

    def sharing(self, samplings: Sequence[Sampling]) -> "FirstPass":
        """With the sampled iterations shared where one program observes them all, each in a row of its own."""
        sampled, options = self.goal.options.sampled, self.goal.options
        alone = len(samplings) == 1 and not samplings[0].values and samplings[0].block == 1
        inside = len(sampled) > 1 and sampled.stop <= self._n
        return replace(self, shared=sampled) if alone and inside and options.root is None else self

    def observing(self, sampling: Sampling) -> NetSpec:
        """What observes, and scores what is shared."""
        if not self.shared:
            return self.base.spec(sampling)
        return replace(self._plain, sampling=replace(sampling, scored=True))

    def job(self, key: str, phase: str) -> Job:
        """The plain program on what is not shared, and on the first iteration that is."""
        return self._job(key, phase, [i for i in range(self._n) if i not in self.shared[1:]])

    def rest(self, key: str, phase: str, plain: Done, observed: JobResult) -> Job | None:
        """The plain program on the others, if the iteration that both have run shows that it must."""
        if not self.shared:
            return None
        ours, theirs = self._by_iteration(plain)[self.shared[0]], rows(observed)[0]
        if all(np.array_equal(_bits(ours.values[blob]), _bits(theirs.values[blob])) for blob in self._compared):
            return None
        return self._job(key, phase, self.shared[1:])

    def scored(self, plain: Sequence[Done], observed: JobResult | None) -> Fp32Pass:
        """What all iterations say: those of the plain program, in one job or two, and what else is `observed`."""
        found = {i: row for done in plain for i, row in self._by_iteration(done).items()}
        n_run = len(found)
        if n_run < self._n:
            assert observed is not None, "the observing program has run the others"
            found = dict(zip(self.shared, rows(observed), strict=True)) | found
        wanted = set(self.goal.ranked)
        made = [replace(found[i], values=self._kept_of(found[i]) if i in wanted else {}) for i in range(self._n)]
        seconds = self._seconds(sum(result.run_seconds for _, result in plain), n_run, observed)
        return Fp32Pass.of(made, seconds, self.goal, self.session.batch, self.base.name)

    def _seconds(self, plain: float, n_run: int, observed: JobResult | None) -> float:
        """Of a pass of the plain program, which took `plain` for `n_run` iterations; few, the first of a process among
        them, would stand badly for all."""
        if observed is None or 2 * n_run >= self._n:
            return plain * self._n / n_run
        return plain + observed.run_seconds * (self._n - n_run) / len(self.shared)

    @property
    def _n(self) -> int:
        return self.goal.options.n_scored

    @property
    def _compared(self) -> tuple[Blob, ...]:
        return score_inputs(self.base, self.goal.metric)

    @property
    def _plain(self) -> NetSpec:
        goal = self.goal
        kept = Kept(self._compared, tuple(sorted({*goal.ranked, *self.shared[:1]})))
        return self.base.spec(kept=kept, by_image="" if goal.natural else goal.metric)

    def _job(self, key: str, phase: str, wanted: Sequence[int]) -> Job:
        return replace(self.session.scoring(key, self._plain, self._n, wanted, phase), may_fail=False)

    def _kept_of(self, row: Row) -> Mapping[Blob, NDArray[np.float32]]:
        """What the score is made from, without what was observed beside it."""
        return {blob: row.values[blob] for blob in self._compared if blob in row.values}

    def _by_iteration(self, done: Done) -> dict[int, Row]:
        job, result = done
        return self.session.by_iteration(job, result.by_number)


def _bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)
