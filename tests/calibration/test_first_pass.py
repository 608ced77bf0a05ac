"""Which program scores which iteration of the FP32 pass, with rows that are made up."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distcalib.actors import Job, JobResult
from distcalib.caffe.graph import Blob
from distcalib.calibration import first_pass
from distcalib.calibration.first_pass import FirstPass
from distcalib.engine.spec import Kept, NetSpec, Row, Sampling
from distcalib.metrics import Partial

FC, TAP = Blob("fc", 0), Blob("conv", 1)
N = 6


class Session:
    """Says what jobs are to be made of."""

    batch = 10

    def scoring(self, key: str, spec: NetSpec, n: int, wanted: Sequence[int], phase: str) -> Job:
        return Job(key, spec, len(wanted), phase, order=tuple(wanted), may_fail=True)

    def by_iteration(self, job: Job, found: dict[int, object]) -> dict[int, object]:
        return found


def made(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> FirstPass:
    """One of six iterations, of which those from the second to the fourth are sampled."""
    monkeypatch.setattr(first_pass, "score_inputs", lambda net, metric: (FC,))
    base = SimpleNamespace(name="net", spec=lambda sampling=None, **also: NetSpec(b"", "net", sampling, **also))
    options = SimpleNamespace(**{"sampled": range(1, 4), "n_scored": N, "root": None, "ap_version": "", **changes})
    goal: Any = SimpleNamespace(metric="top1", options=options, ranked=(0, 3), natural="natural", confidence=None)
    return FirstPass(Session(), base, goal)  # type: ignore[arg-type]


SAMPLING = Sampling((TAP,), False, 1, 4, 1, by_channel=(TAP,))


def plain_row(iteration: int) -> Row:
    return Row({"top1": Partial(iteration, 10)}, (), {}, {FC: np.full((2, 3), iteration, np.float32)})


def observed_row(iteration: int, off: float = 0.0) -> Row:
    row = plain_row(iteration)
    return replace(row, values={FC: row.values[FC] + np.float32(off), TAP: np.zeros((4, 2), np.float32)})


def test_sampled_iterations_are_scored_where_they_are_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(monkeypatch).sharing([SAMPLING])
    spec = first.observing(SAMPLING)
    assert spec.sampling == replace(SAMPLING, scored=True)
    assert spec.kept == Kept((FC,), (0, 1, 3)), "iteration 1 is compared"
    plain = first.job("FP32/1", "FP32")
    assert (plain.order, plain.may_fail) == ((0, 1, 4, 5), False)
    done = plain, JobResult.of(plain, {i: plain_row(i) for i in plain.numbers}, run_seconds=8.0)
    observed = JobResult.of(Job("FP32/0", spec, 3, "FP32"), {i: observed_row(i + 1) for i in range(3)})
    assert first.rest("FP32/2", "FP32", done, observed) is None
    fp32 = first.scored([done], observed)
    assert fp32.values == [Partial(i, 10) for i in range(N)]
    assert {i: list(values) for i, values in fp32.kept.items()} == {0: [FC], 3: [FC]}
    assert fp32.seconds == pytest.approx(8.0 * 6 / 4), "of a whole pass of the plain program"


def test_one_bit_of_difference_has_the_plain_program_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(monkeypatch).sharing([SAMPLING])
    plain = first.job("FP32/1", "FP32")
    done = plain, JobResult.of(plain, {i: plain_row(i) for i in plain.numbers}, run_seconds=8.0)
    rows = {i: observed_row(i + 1, off=2.0**-23) for i in range(3)}
    observed = JobResult.of(Job("FP32/0", first.observing(SAMPLING), 3, "FP32"), rows)
    rest = first.rest("FP32/2", "FP32", done, observed)
    assert rest is not None
    assert (rest.key, rest.order, rest.spec) == ("FP32/2", (2, 3), plain.spec)
    also = rest, JobResult.of(rest, {i: plain_row(i) for i in (2, 3)}, run_seconds=4.0)
    fp32 = first.scored([done, also], observed)
    assert fp32.values == [Partial(i, 10) for i in range(N)]
    assert (fp32.kept[3][FC] == 3.0).all(), "what the plain program has shown"
    assert fp32.seconds == 12.0


def test_a_pass_that_is_nearly_all_observed_takes_what_both_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """One iteration alone, the first of its process, would stand badly for all."""
    first = made(monkeypatch, n_scored=3, sampled=range(3)).sharing([replace(SAMPLING, first=0, end=3)])
    plain = first.job("FP32/1", "FP32")
    assert plain.order == (0,)
    done = plain, JobResult.of(plain, {0: plain_row(0)}, run_seconds=9.0)
    rows = {i: observed_row(i) for i in range(3)}
    observed = JobResult.of(Job("FP32/0", first.observing(SAMPLING), 3, "FP32"), rows, run_seconds=6.0)
    first.goal.__dict__["ranked"] = (0,)
    assert first.scored([done], observed).seconds == 9.0 + 2 * 2.0


@pytest.mark.parametrize(
    ("samplings", "changes"),
    [
        pytest.param([SAMPLING, SAMPLING], {}, id="two programs"),
        pytest.param([], {}, id="nothing to observe"),
        pytest.param([replace(SAMPLING, values=True)], {}, id="all values"),
        pytest.param([replace(SAMPLING, block=2)], {}, id="several a row"),
        pytest.param([SAMPLING], {"n_scored": 3}, id="more sampled than scored"),
        pytest.param([SAMPLING], {"sampled": range(1, 2)}, id="a single one"),
        pytest.param([SAMPLING], {"root": Path("build")}, id="a build of Caffe's"),
    ],
)
def test_the_plain_program_scores_all_where_nothing_can_be_shared(
    samplings: Sequence[Sampling], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(monkeypatch, **changes).sharing(samplings)
    n = first.goal.options.n_scored
    assert first.observing(SAMPLING).sampling == SAMPLING
    job = first.job("FP32/1", "FP32")
    assert job.order == tuple(range(n))
    done = job, JobResult.of(job, {i: plain_row(i) for i in range(n)}, run_seconds=2.0)
    assert first.rest("FP32/2", "FP32", done, done[1]) is None
    assert first.scored([done], None).seconds == 2.0
