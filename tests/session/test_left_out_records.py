"""Records that one actor leaves out and another does not."""

import pytest

from distcalib.actors import Job, JobResult
from distcalib.caffe.graph import Blob
from distcalib.data import LeftOut
from distcalib.engine.spec import NetSpec, Row, Sampling
from distcalib.errors import DataError
from distcalib.session.bad_records import LeftOutRecords

BAD = LeftOut("data", 7, "00000007", "is cut short")
OBSERVING = Sampling((Blob("conv", 0),), False, 4, 6, 1)


def done(sampling: Sampling | None, rows: dict[int, tuple[LeftOut, ...]]) -> tuple[list[Job], list[JobResult]]:
    """A job with rows that leave out so much, by their numbers."""
    job = Job("a", NetSpec(b"", "net", sampling), len(rows), "FP32", order=tuple(rows))
    return [job], [JobResult.of(job, {i: Row({}, (), None, left_out=out) for i, out in rows.items()})]


def test_what_is_observed_alone_counts_blocks_not_iterations() -> None:
    records = LeftOutRecords()
    records.take(*done(OBSERVING, {0: (BAD,)}))
    records.take(*done(None, {0: (), 4: (BAD,)}))
    assert records.found == {BAD}


def test_iterations_that_are_scored_and_observed_are_compared_with_those_scored_later() -> None:
    records = LeftOutRecords()
    scored = Sampling(OBSERVING.taps, False, OBSERVING.first, OBSERVING.end, 1, scored=True)
    records.take(*done(scored, {1: (BAD,)}))
    with pytest.raises(DataError, match="another read it"):
        records.take(*done(None, {5: ()}))
