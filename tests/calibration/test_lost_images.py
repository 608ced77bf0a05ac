"""Lost images: where they are, what they were taken for, how they look; against a run through all the data."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
import pytest
from markupsafe import escape

from distcalib.caffe.graph import Blob
from distcalib.calibration import lost_images
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.net import Net, open_net
from distcalib.engine.spec import Outputs
from distcalib.errors import DataError
from distcalib.report import CalibrationReport, Changes
from distcalib.session.backend import rows
from distcalib.session.options import SessionOptions
from distcalib.session.progress import Silent
from distcalib.session.session import Session
from tests.calibration.reports import lasting
from tests.data.databases import write_lmdb
from tests.every import every
from tests.session.tiny import BATCH, ITERATIONS, Tiny, make_tiny

pytestmark = pytest.mark.usefixtures("actors")

OPTIONS = CalibrationOptions(iterations=ITERATIONS, sampling_iterations=2, n_actors=1, accuracy_loss=1.0, recover="off")
"""All INT8 is delivered, which `conv3` ruins."""


def first_classes(net: Net, weights: Path) -> tuple[list[int], list[list[int]]]:
    """The labels of all records, and by record its classes by falling score, in the order of the data."""
    outputs = Outputs((Blob("fc", 0), Blob("label", 0)))
    with Session(net, weights, Silent(), SessionOptions(n_actors=1, iterations=ITERATIONS)) as session:
        [result] = session.measure("all", [(net.spec(outputs=outputs), ITERATIONS)])
    found = [[row.values[blob] for blob in outputs.blobs] for row in rows(result)]
    labels = np.concatenate([labels for _, labels in found]).astype(int).tolist()
    return labels, np.argsort(-np.concatenate([scores for scores, _ in found]), axis=1, kind="stable").tolist()


def changes_of(report: CalibrationReport) -> Changes:
    assert report.changes is not None
    return report.changes


@pytest.mark.parametrize(
    ("blob", "top_k"), [pytest.param("accuracy-top1", 1, marks=pytest.mark.slow), ("accuracy-top2", 2)]
)
def test_lost_images_are_those_of_a_run_through_all_the_data(tiny: Tiny, tmp_path: Path, blob: str, top_k: int) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, blob_name=blob, out=tmp_path))
    labels, before = first_classes(open_net(tiny.prototxt), tiny.weights)
    _, after = first_classes(open_net(Path(report.output)), tiny.weights)
    told = zip(labels, before, after, strict=True)
    lost = [n for n, (y, a, b) in enumerate(told) if y in a[:top_k] and y not in b[:top_k]]
    found = changes_of(report)
    assert (len(lost) > BATCH) is (top_k == 1)  # more than a batch of them, and less
    assert {labels[n] == before[n][0] for n in lost} == ({True} if top_k == 1 else {True, False})
    assert [(one.number, one.label, one.fp32_class, one.int8_class) for one in found.records] == [
        (n, labels[n], before[n][0], after[n][0]) for n in lost
    ]
    assert [one.key for one in found.records] == [f"'{n:08d}'" for n in lost]
    counts = Counter((before[n][0], after[n][0]) for n in lost)
    assert {(one.fp32_class, one.int8_class): one.count for one in found.class_changes} == dict(counts.most_common(10))
    assert [one.count for one in found.class_changes] == sorted(counts.values(), reverse=True)
    assert found.n_classified == len(lost) == found.lost


def test_lost_images_are_shown_as_they_are(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    assert list(report.thumbnails) == list(changes_of(report).lost_images)
    assert len(set(report.thumbnails.values())) == len(report.thumbnails)
    assert every(uri.startswith("data:image/png;base64,") for uri in report.thumbnails.values())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [page.count(uri) for uri in report.thumbnails.values()] == [1] * len(report.thumbnails)
    assert json.loads((tmp_path / "report.json").read_text())["pictures"]["thumbnails"] == {
        str(number): uri for number, uri in report.thumbnails.items()
    }


@pytest.mark.slow
def test_pictures_of_private_data_are_left_out(tiny: Tiny, tmp_path: Path) -> None:
    shown = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "shown"))
    hidden = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "hidden", no_thumbnails=True))
    assert hidden.thumbnails == {}
    assert "data:image" not in (tmp_path / "hidden" / "report.html").read_text(encoding="utf-8")
    assert "--no-thumbnails" in hidden.commands["calibrate"]
    assert hidden.flags == ()
    assert lasting(replace(shown, thumbnails={})) == lasting(hidden)


@pytest.mark.slow
def test_lost_images_are_the_same_on_any_number_of_actors(tiny: Tiny, tmp_path: Path) -> None:
    one = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "1"))
    two = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "2", n_actors=2))
    assert lasting(one) == lasting(two)


@pytest.mark.slow
def test_pictures_end_where_a_page_has_no_more_room(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "whole")).thumbnails
    room = sum(map(len, list(whole.values())[:3]))
    monkeypatch.setattr(lost_images, "MOST_PICTURE_BYTES", room)
    few = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "few"))
    assert few.thumbnails == dict(list(whole.items())[:3])
    assert len(changes_of(few).records) == len(whole)


@pytest.mark.slow
def test_some_lost_images_stand_for_many(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = changes_of(calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "whole")))
    monkeypatch.setattr(lost_images, "MOST_CLASSIFIED", 4)
    few = changes_of(calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "few")))
    assert few.records == whole.records  # all that are listed are classified
    assert few.n_classified == 4
    evenly = [whole.records[i * whole.lost // 4] for i in range(4)]
    counts = Counter((one.fp32_class, one.int8_class) for one in evenly)
    assert {(one.fp32_class, one.int8_class): one.count for one in few.class_changes} == counts


def test_nothing_is_run_again_where_nothing_is_lost(tiny: Tiny, tmp_path: Path) -> None:
    options = replace(OPTIONS, accuracy_loss=0.0, keep_fp32=("conv*",), out=tmp_path)
    report = calibrate(tiny.prototxt, tiny.weights, options)
    assert changes_of(report).lost == 0
    assert report.thumbnails == {}
    assert lost_images.PHASE not in report.images_per_second


def test_data_that_are_gone_at_the_end_cost_no_result(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[str] = []

    class Noting(Silent):
        def note(self, text: str) -> None:
            noted.append(text)

    def gone(*given: object) -> None:
        raise DataError("db: cannot be read; look for it")

    monkeypatch.setattr(lost_images, "open_source", gone)
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path), reporter=Noting())
    assert "lost images are not shown: db: cannot be read; look for it" in noted
    records = changes_of(report).records
    assert records
    assert {one.key for one in records} == {""}
    assert None not in {one.int8_class for one in records}
    assert report.thumbnails == {}


def test_a_run_that_is_ended_names_lost_images_without_their_classes(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distcalib.calibration.search_stage.classify_lost", interrupt)
    with pytest.raises(KeyboardInterrupt) as raised:
        calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path))
    found = changes_of(raised.value.report)  # type: ignore[attr-defined]
    assert {one.int8_class for one in found.records} == {None}
    assert [one.key for one in found.records] == [f"'{n:08d}'" for n in found.lost_images]


@pytest.mark.slow
@pytest.mark.parametrize("tail", [b"", b"\xff"], ids=["text", "bytes"])
def test_a_hostile_key_is_shown_as_it_is(tmp_path: Path, tail: bytes) -> None:
    net = make_tiny(tmp_path)
    with lmdb.open(str(net.database), readonly=True, lock=False) as environment, environment.begin() as transaction:
        values = [bytes(value) for _, value in transaction.cursor()]
    keys = [b"%04d<script>alert(1)</script><img src=x onerror='alert(1)'>" % i + tail for i in range(len(values))]
    hostile = write_lmdb(tmp_path / "hostile", zip(keys, values, strict=True))
    net.prototxt.write_text(net.prototxt.read_text().replace(str(net.database), str(hostile)))
    found = changes_of(calibrate(net.prototxt, net.weights, OPTIONS))
    expected = [f"0x{keys[n].hex()}" if tail else f"'{keys[n].decode()}'" for n in found.lost_images]
    assert [one.key for one in found.records] == expected
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert every(str(escape(key)) in page for key in expected)
    assert "<script" not in page
    assert "<img src=x" not in page
