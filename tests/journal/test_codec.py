import json
import math
import struct
import zlib
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from distcalib.caffe.graph import Blob
from distcalib.data import LeftOut
from distcalib.engine.spec import Row
from distcalib.journal import codec as row_codec
from distcalib.journal.codec import KINDS, decode, encode
from distcalib.metrics import ByImage, Detections, Partial
from distcalib.metrics.partial import PartialScore
from distcalib.quantize.histogram import Histogram, count
from distcalib.quantize.ranges import Range, observe

NAN, INF = float("nan"), float("inf")
RNG = np.random.default_rng(3)


def _plain(value: object) -> Any:
    """`value` so that == compares it to the bit."""
    if isinstance(value, float):
        return type(value).__name__, struct.pack("<d", value)
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return [(key, _plain(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return type(value).__name__, _plain({name: getattr(value, name) for name in value.__dataclass_fields__})
    return type(value).__name__, value


def _row(**parts: Any) -> Row:
    return Row(**{"scores": {}, "ranges": (), "kernels": None, **parts})


DETECTIONS = Detections(
    np.array([1, 7, 1], np.int32), np.array([0.1, NAN, 1e-30], np.float32), np.array([True, False, True]), {1: 4, 7: 0}
)
ROWS: dict[str, object] = {
    "nothing": _row(),
    "counts": _row(scores={"top1": Partial(37, 50), "top5": Partial(0, 0)}, kernels={"conv1": "jit_avx512_I8"}),
    "counts by class": _row(scores={"top1": Partial(3, 5, 2, by_class=((2, 1), (3, 2), (0, 0)))}),
    "losses": _row(scores={f"loss{i}": Partial(x, 1) for i, x in enumerate([0.1, 1e-310, -0.0, NAN, INF, -INF, 3.0])}),
    "huge counts": _row(scores={"n": Partial(2**70 + 1, 2**65)}),
    "detections": _row(scores={"map": DETECTIONS}),
    "no detections": _row(
        scores={"map": Detections(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.bool_), {1: 2})}
    ),
    "ends": _row(ranges=(Range(-1.5, 0.1), Range(NAN, INF, (INF,)))),
    "histograms": _row(ranges=tuple(observe(RNG.normal(size=99).astype(np.float32)) for _ in range(3))),
    "images": _row(
        scores={"top1": Partial(1, 2)},
        by_image=ByImage(np.array([0, 3], np.int32), np.array([True, False]), np.array([1e-30, -INF], np.float32)),
    ),
    "values": _row(
        values={Blob("fc", 0): RNG.normal(size=(2, 3)).astype(np.float32), Blob("fc", 2): np.array([NAN], np.float32)}
    ),
    "kept values and scores": _row(scores={"a": Partial(1, 2)}, values={Blob("ä\n", 1): np.zeros((0, 4), np.float32)}),
    "distances": _row(distances={"conv1": 1 / 3, "conv2": INF}),
    "times": _row(seconds={"": 1e-5, "conv": 0.25}),
    "left out": _row(
        scores={"top1": Partial(30, 48, 48)},
        left_out=(LeftOut("data", 7, "'ä'", "is not a Datum"), LeftOut("x", 0, "", "")),
        n_missing=1,
    ),
    "a slice": (
        _row(scores={"a": Partial(1, 2)}),
        _row(ranges=(Range(0.0, 1.0, (1.0,), (0.5,), count(np.ones(3, np.float32))),)),
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_decode_returns_what_encode_was_given(row: object) -> None:
    payload = encode(row)
    assert _plain(decode(payload)) == _plain(row)
    assert encode(decode(payload)) == payload


def test_decode_keeps_counts_and_losses_apart() -> None:
    found = decode(
        encode(_row(scores={"count": Partial(3, 1), "loss": Partial(3.0, 1), "f32": Partial(np.float32(0.1), 1)}))
    )
    assert isinstance(found, Row)
    numerators = [part.numerator for part in found.scores.values() if isinstance(part, Partial)]
    assert [type(n) for n in numerators] == [int, float, float]
    assert numerators[2] == np.float32(0.1)


def test_decode_gives_arrays_that_can_be_written_to() -> None:
    found = decode(encode(_row(values={Blob("fc", 0): np.zeros(3, np.float32)})))
    assert isinstance(found, Row)
    array: npt.NDArray[np.float32] = found.values[Blob("fc", 0)]
    array[:] = 1.0
    assert math.fsum(array) == 3.0


class _Odd(Partial):
    """A kind that nobody registered."""


UNKNOWN = {
    "a kind": (_row(scores={"a": _Odd(1, 2)}), "_Odd: is not a kind of partial score that can be stored"),
    "no row": ("text", "str: is not a Row"),
    "objects": (_row(values={Blob("a", 0): np.array([None])}), "an array of objects has no bytes"),
}


@pytest.mark.parametrize(("row", "said"), UNKNOWN.values(), ids=list(UNKNOWN))
def test_encode_refuses_what_it_does_not_know(row: object, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        encode(row)


def test_kinds_cover_all_partial_scores() -> None:
    assert {kind.type for kind in KINDS.values()} == set(PartialScore.__args__)


def test_decode_refuses_other_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = encode(_row(scores={"a": Partial(1, 2)}))
    monkeypatch.setattr(row_codec, "FORMAT", 6)
    with pytest.raises(ValueError, match="a row of format 5, and this distcalib knows 6"):
        decode(payload)
    monkeypatch.undo()
    plain = zlib.decompress(payload).replace(b'"mean"', b'"mode"')
    with pytest.raises(ValueError, match="unknown kind 'mode'"):
        decode(zlib.compress(plain))
    with pytest.raises(ValueError, match="no row"):
        decode(json.dumps({}).encode())
    with pytest.raises(ValueError, match="of its images is not of as many"):
        decode(encode(_row(by_image=ByImage(np.zeros(2, np.int32), np.ones(1, bool), np.ones(2, np.float32)))))


def test_encode_knows_every_field_of_a_row() -> None:
    """A field that is added to any of these must be written too."""
    names = {
        kind: [field.name for field in fields(kind)] for kind in (Row, ByImage, Range, Partial, Detections, Histogram)
    }
    assert names == {
        Row: [
            "scores",
            "ranges",
            "kernels",
            "values",
            "distances",
            "seconds",
            "whole_seconds",
            "left_out",
            "by_image",
            "n_missing",
        ],
        ByImage: ["rows", "hits", "margins"],
        Range: ["low", "high", "maxima", "percentiles", "histogram"],
        Partial: ["numerator", "denominator", "n_records", "by_class"],
        Detections: ["labels", "scores", "hits", "positives"],
        Histogram: ["counts", "exponent"],
    }
