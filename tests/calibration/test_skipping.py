"""--skip-bad-records: scores, ranges and files are those of the data without the bad records."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import lmdb
import numpy as np
import numpy.typing as npt
import pytest

from distcalib.caffe import read_weights
from distcalib.caffe.caffe_pb2 import Datum
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.cli.main import main
from distcalib.data import open_source
from distcalib.engine.batch import read_batch
from distcalib.engine.net import open_net
from distcalib.errors import DataError
from distcalib.journal import FILE_NAME
from distcalib.report import CalibrationReport
from distcalib.session.progress import Silent
from tests.calibration.reports import fields_of, lasting
from tests.data.databases import encoded_datum, noise, raw_datum, write_leveldb, write_lmdb
from tests.session.evaluated import evaluate
from tests.session.tiny import BATCH, ITERATIONS, N_RECORDS, Tiny, _forward, _make_blobs
from tests.session.tiny_ssd import TinySsd

Array = npt.NDArray[np.float32]
pytestmark = pytest.mark.usefixtures("actors")

#: By record, what stands in its place: three in one iteration, of which another is untouched; the first record, too.
BAD = {
    0: b"\xff\xff",
    9: raw_datum(noise(3, 8, 9)).SerializeToString(),
    10: Datum(channels=3, height=8, width=8, data=b"123").SerializeToString(),
    14: encoded_datum(noise(8, 8, 3)).SerializeToString()[:-90],
    47: b"",
}
REASONS = (
    "is not a Datum (2 bytes)",
    "gives 3 x 8 x 9 values where the first record gives 3 x 8 x 8",
    "declares 3 x 8 x 8 = 192 values but holds 3 bytes",
    "is not a Datum",
    "is empty",
)
GOOD = [i for i in range(N_RECORDS) if i not in BAD]


def entries(database: Path) -> list[tuple[bytes, bytes]]:
    """All records of an LMDB."""
    with lmdb.open(str(database), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(bytes(key), bytes(value)) for key, value in transaction.cursor()]


def corrupt(net: Tiny | TinySsd, folder: Path, bad: dict[int, bytes], backend: str = "LMDB") -> Tiny:
    """The net on a database in which the records of `bad` are others."""
    write = write_lmdb if backend == "LMDB" else write_leveldb
    records = [(key, bad.get(i, value)) for i, (key, value) in enumerate(entries(net.database))]
    folder.mkdir()
    return on(net, folder, write(folder / "db", records), backend)


def on(net: Tiny | TinySsd, folder: Path, database: Path, backend: str = "LMDB", batch: int | None = None) -> Tiny:
    """The net with another database, in `folder`."""
    text = net.prototxt.read_text().replace(str(net.database), str(database))
    text = text.replace("backend: LMDB", f"backend: {backend}")
    if batch is not None:
        text = re.sub("batch_size: [0-9]+", f"batch_size: {batch}", text)
    prototxt = folder / "net.prototxt"
    prototxt.write_text(text)
    return Tiny(prototxt, net.weights, database)


def without(net: Tiny | TinySsd, folder: Path, bad: dict[int, bytes], batch: int = 1) -> Tiny:
    """The net on a database that never had the records of `bad`."""
    folder.mkdir()
    good = [entry for i, entry in enumerate(entries(net.database)) if i not in bad]
    return on(net, folder, write_lmdb(folder / "db", good), batch=batch)


@pytest.fixture(scope="module")
def bad_net(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return corrupt(tiny, tmp_path_factory.mktemp("bad") / "net", BAD)


@pytest.mark.parametrize("backend", ["LMDB", pytest.param("LEVELDB", marks=pytest.mark.slow)])
def test_scores_are_those_of_the_records_that_are_good(tiny: Tiny, tmp_path: Path, backend: str) -> None:
    net = corrupt(tiny, tmp_path / "bad", BAD, backend)
    found = [evaluate(net.prototxt, net.weights, ITERATIONS, n_actors=n, skip_bad_records=True) for n in (1, 2)]
    clean = without(tiny, tmp_path / "clean", BAD)
    expected = evaluate(clean.prototxt, clean.weights, len(GOOD), n_actors=1)
    assert found[0].scores == found[1].scores
    assert found[0].bad_records == found[1].bad_records
    assert found[0].scores["accuracy-top1"] == expected.scores["accuracy-top1"]
    assert found[0].scores["accuracy-top2"] == expected.scores["accuracy-top2"]
    assert found[0].scores["loss"] == pytest.approx(expected.scores["loss"], rel=1e-6)
    assert found[0].n_values["accuracy-top1"] == BATCH
    # By the definition of the layers, without any of the program's.
    labels = [Datum.FromString(value).label for _, value in entries(tiny.database)]
    images = np.random.RandomState(1).randint(0, 256, (N_RECORDS, 3, 8, 8)).astype(np.uint8)
    best = _forward(images, _make_blobs(after_images())).argmax(axis=1)
    assert found[0].scores["accuracy-top1"] == sum(best[i] == labels[i] for i in GOOD) / len(GOOD)


def on_images(tiny: Tiny, folder: Path) -> tuple[Path, list[Datum], npt.NDArray[np.uint8]]:
    """The net on a list of images that are those of its database; its file, and the records as they were."""
    datums = [Datum.FromString(value) for _, value in entries(tiny.database)]
    images = np.stack([np.frombuffer(datum.data, np.uint8).reshape(3, 8, 8) for datum in datums])
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f"{i}.png"), image.transpose(1, 2, 0))
    (folder / "list.txt").write_text("".join(f"{i}.png {datum.label}\n" for i, datum in enumerate(datums)))
    text = tiny.prototxt.read_text().replace('type: "Data"', 'type: "ImageData"').replace("backend: LMDB", "")
    text = text.replace("data_param", "image_data_param").replace(str(tiny.database), "list.txt")
    (folder / "net.prototxt").write_text(text)
    return folder / "net.prototxt", datums, images


def test_scores_of_an_image_list_are_those_of_the_images_that_are_there(tiny: Tiny, tmp_path: Path) -> None:
    prototxt, datums, images = on_images(tiny, tmp_path)
    (tmp_path / "0.png").unlink()
    (tmp_path / "9.png").write_bytes(b"\x89PNG, and then nothing")
    cv2.imwrite(str(tmp_path / "47.png"), noise(8, 9, 3))
    found = evaluate(prototxt, tiny.weights, ITERATIONS, n_actors=2, skip_bad_records=True)
    best = _forward(images, _make_blobs(after_images())).argmax(axis=1)
    good = [i for i in range(N_RECORDS) if i not in (0, 9, 47)]
    assert found.scores["accuracy-top1"] == sum(best[i] == datums[i].label for i in good) / len(good)
    assert found.bad_records is not None
    assert [(one.key, one.reason) for one in found.bad_records.listed] == [
        ("line 1: '0.png'", "does not exist"),
        ("line 10: '9.png'", "is not an image that can be decoded (22 bytes)"),
        ("line 48: '47.png'", "gives 3 x 8 x 9 values where the first image gives 3 x 8 x 8"),
    ]


class Changing(Silent):
    """A reporter that changes files once the driver has looked for them; it remembers what was noted."""

    def __init__(self, change: Callable[[], object]) -> None:
        self.change = change
        self.notes: list[str] = []

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        self.change()

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_what_is_missing_was_decided_before_the_run(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that comes later, as one that another node has, is left out all the same; one that goes ends the run."""
    prototxt, _, _ = on_images(tiny, tmp_path)
    (tmp_path / "9.png").rename(tmp_path / "away.png")
    expected = evaluate(prototxt, tiny.weights, ITERATIONS, n_actors=1, skip_bad_records=True)
    monkeypatch.setattr("distcalib.session.bad_records._LOOK_SECONDS", 0.0)
    coming = Changing(lambda: (tmp_path / "away.png").rename(tmp_path / "9.png"))
    found = evaluate(prototxt, tiny.weights, ITERATIONS, n_actors=1, skip_bad_records=True, reporter=coming)
    assert (found.scores, found.bad_records) == (expected.scores, expected.bad_records)
    assert f"looking for the images: {N_RECORDS} of {N_RECORDS} in 0 s" in coming.notes
    going = Changing((tmp_path / "11.png").unlink)
    with pytest.raises(DataError, match=r"line 12: image '.*/11\.png' does not exist, and was there for the driver"):
        evaluate(prototxt, tiny.weights, ITERATIONS, n_actors=1, skip_bad_records=True, reporter=going)


def after_images() -> np.random.RandomState:
    """The generator as it is when make_tiny comes to the weights."""
    random = np.random.RandomState(1)
    random.randint(0, 256, (N_RECORDS, 3, 8, 8))
    return random


def test_bad_records_are_counted_and_named_in_their_order(bad_net: Tiny) -> None:
    found = evaluate(bad_net.prototxt, bad_net.weights, 3 * ITERATIONS, skip_bad_records=True).bad_records
    assert found is not None
    assert (found.count, found.n_records) == (5, N_RECORDS), "each once, however often it was met"
    assert [one.number for one in found.listed] == list(BAD)
    assert [one.key for one in found.listed] == [f"'{i:08d}'" for i in BAD]
    assert {one.layer for one in found.listed} == {"data"}
    for one, reason in zip(found.listed, REASONS, strict=True):
        assert one.reason.startswith(reason)


def test_records_of_two_layers_in_one_row_are_both_named(bad_net: Tiny, tmp_path: Path) -> None:
    """And the row is one that is missing, not two."""
    text = bad_net.prototxt.read_text() + (
        'layer { name: "more" type: "Data" top: "more" include { phase: TEST } '
        f'data_param {{ source: "{bad_net.database}" batch_size: {BATCH} backend: LMDB }} }} '
        'layer { name: "hush" type: "Silence" bottom: "more" include { phase: TEST } }'
    )
    (tmp_path / "net.prototxt").write_text(text)
    found = evaluate(tmp_path / "net.prototxt", bad_net.weights, ITERATIONS, n_actors=1, skip_bad_records=True)
    alone = evaluate(bad_net.prototxt, bad_net.weights, ITERATIONS, n_actors=1, skip_bad_records=True)
    assert found.scores == alone.scores
    assert found.bad_records is not None
    assert [(one.layer, one.number) for one in found.bad_records.listed] == [
        (layer, number) for layer in ("data", "more") for number in BAD
    ]
    assert (found.bad_records.count, found.bad_records.n_records) == (10, 2 * N_RECORDS)


def test_the_rows_that_a_block_lacks_are_counted_once(bad_net: Tiny) -> None:
    layer = open_net(bad_net.prototxt).graph.nodes[0].layer
    twice = [open_source(layer, bad_net.prototxt, skip_bad=True) for _ in range(2)]
    batch = read_batch(twice, 1, True)
    assert (sorted(batch.bad), len(batch.left_out), len(batch.good)) == ([1, 2, 6], 6, BATCH - 3)


@pytest.mark.slow
def test_a_run_that_meets_no_bad_record_says_so(tiny: Tiny, bad_net: Tiny) -> None:
    found = evaluate(tiny.prototxt, tiny.weights, 2, skip_bad_records=True)
    assert found.bad_records is not None
    assert (found.bad_records.count, found.bad_records.n_records) == (0, 16)
    assert found.scores == evaluate(tiny.prototxt, tiny.weights, 2).scores
    assert evaluate(tiny.prototxt, tiny.weights, 2).bad_records is None


def test_without_the_flag_a_bad_record_ends_the_run_and_the_flag_is_named(tiny: Tiny, tmp_path: Path) -> None:
    net = corrupt(tiny, tmp_path / "bad", {9: b"\xff\xff"})
    with pytest.raises(DataError, match=r"record '00000009' is not a Datum .*, or give --skip-bad-records$"):
        evaluate(net.prototxt, net.weights, ITERATIONS)


def test_an_iteration_without_a_good_record_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    net = corrupt(tiny, tmp_path / "bad", dict.fromkeys(range(8, 16), b"\xff\xff"))
    said = (
        r"/db: the 8 records of an iteration, from number 8 on, are all bad \('00000008' is not a Datum \(2 bytes\)\), "
        "and --skip-bad-records needs one that is good; take them out of the data, or raise batch_size"
    )
    with pytest.raises(DataError, match=said):
        evaluate(net.prototxt, net.weights, ITERATIONS, skip_bad_records=True)
    assert evaluate(net.prototxt, net.weights, 1, skip_bad_records=True).scores["accuracy-top1"] > 0.0


OPTIONS = CalibrationOptions(
    recover="off",
    iterations=ITERATIONS,
    sampling_iterations=ITERATIONS,
    accuracy_loss=0.1,
    blob_name="accuracy-top1",
    skip_bad_records=True,
    n_actors=1,
)


def plain(report: CalibrationReport) -> dict[str, object]:
    """What does not depend on how it ran."""
    return lasting(report, "model")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(OPTIONS, marks=pytest.mark.slow),
        pytest.param(replace(OPTIONS, calibration_algos="auto"), marks=pytest.mark.slow),
        pytest.param(
            replace(OPTIONS, equalize=True, bias_correction=True, calibration_algos="KL"), marks=pytest.mark.slow
        ),
        pytest.param(replace(OPTIONS, confidence=0.9, strategy="greedy"), marks=pytest.mark.slow),
    ],
    ids=["ranked", "auto", "recover", "confidence"],
)
def test_calibrate_writes_the_same_bytes_on_any_number_of_actors_wherever_the_data_is(
    bad_net: Tiny, tmp_path: Path, options: CalibrationOptions
) -> None:
    found = []
    for n, ship_data in ((1, False), (2, False), (2, True)):
        changed = replace(options, n_actors=n, ship_data=ship_data, out=tmp_path / f"{n}{ship_data}")
        report = calibrate(bad_net.prototxt, bad_net.weights, changed)
        found.append((plain(report)["sha256"], plain(report)["candidates"], plain(report)["bad_records"]))
    assert found[0] == found[1] == found[2]
    assert report.bad_records is not None
    assert (report.bad_records.count, report.bad_records.n_records) == (5, N_RECORDS)
    assert "skip_bad_records" in report.flags


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["DIRECT", "KL", "MSE"])
def test_ranges_are_those_of_the_good_records(tiny: Tiny, bad_net: Tiny, tmp_path: Path, algorithm: str) -> None:
    """Of the very file: scales are written with all their digits."""
    clean = without(tiny, tmp_path / "clean", BAD, batch=len(GOOD))
    written = []
    for net, n in ((bad_net, ITERATIONS), (clean, 1)):
        options = CalibrationOptions(
            sampling_iterations=n,
            quantize_model=True,
            calibration_algos=algorithm,
            skip_bad_records=True,
            out=tmp_path / str(n),
        )
        report = calibrate(net.prototxt, net.weights, options)
        text = Path(report.output).read_text()
        written.append([line for line in text.splitlines() if "scale_" in line])
    assert written[0] == written[1]
    assert len(written[0]) > 6


@pytest.mark.slow
def test_bias_correction_is_by_the_good_records(tiny: Tiny, bad_net: Tiny, tmp_path: Path) -> None:
    clean = without(tiny, tmp_path / "clean", BAD, batch=len(GOOD))
    made: list[dict[str, Array]] = []
    for net, n in ((bad_net, ITERATIONS), (clean, 1), (tiny, ITERATIONS)):
        options = CalibrationOptions(
            sampling_iterations=n,
            quantize_model=True,
            bias_correction=True,
            skip_bad_records=True,
            out=tmp_path / str(len(made)),
        )
        report = calibrate(net.prototxt, net.weights, options)
        assert report.output_weights is not None
        made.append(read_biases(Path(report.output_weights)))
    for name, bias in made[0].items():  # kernels of another batch sum in another order
        np.testing.assert_allclose(bias, made[1][name], atol=1e-5)
    assert max(np.abs(bias - made[2][name]).max() for name, bias in made[0].items()) > 1e-4, "all records tell another"


def read_biases(path: Path) -> dict[str, Array]:
    return {name: blobs[1] for name, blobs in read_weights(path).items()}


@pytest.mark.slow
def test_rows_without_bad_records_are_shared_with_a_run_without_the_flag(tiny: Tiny, tmp_path: Path) -> None:
    """What was measured until a bad record ended the run is of use to the same command with the flag; not so the rows
    that records were left out of, the other way around.
    """
    net = corrupt(tiny, tmp_path / "bad", {41: b"\xff\xff"})
    options = replace(OPTIONS, sampling_iterations=1, out=tmp_path / "out", strategy="none")
    with pytest.raises(DataError, match="record '00000041'"):
        calibrate(net.prototxt, net.weights, replace(options, skip_bad_records=False))
    first = calibrate(net.prototxt, net.weights, options)
    assert first.n_rows_from_journal > 0
    again = calibrate(net.prototxt, net.weights, options)
    assert plain(again) == plain(first)
    assert again.bad_records is not None
    assert again.bad_records.count == 1
    with pytest.raises(DataError, match="record '00000041'"):
        calibrate(net.prototxt, net.weights, replace(options, skip_bad_records=False))
    fresh = calibrate(net.prototxt, net.weights, replace(options, out=tmp_path / "fresh"))
    assert plain(fresh) == plain(first)
    assert (tmp_path / "fresh" / FILE_NAME).is_file()


@pytest.mark.slow
def test_calibrate_goes_on_where_a_killed_run_ended(
    bad_net: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = calibrate(bad_net.prototxt, bad_net.weights, replace(OPTIONS, out=tmp_path / "whole"))

    def die(*_: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr("distcalib.calibration.search_driver.round_lines", die)
    options = replace(OPTIONS, out=tmp_path / "out")
    with pytest.raises(RuntimeError, match="killed"):
        calibrate(bad_net.prototxt, bad_net.weights, options)
    monkeypatch.undo()
    found = calibrate(bad_net.prototxt, bad_net.weights, options)
    assert found.n_rows_from_journal > 0
    assert plain(found) == plain(whole)


def test_commands_tell_in_a_line(bad_net: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "5 of 48 records could not be read and were left out: '00000000' is not a Datum (2 bytes), '00000009' gives"
    common = [*bad_net.args, "-i", str(ITERATIONS), "--actors", "1", "--skip-bad-records"]
    assert main(["evaluate", *common]) == 0
    assert line in capsys.readouterr().out
    assert main(["calibrate", *common, "-l", "0.9", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2].startswith(line)
    assert shown[-2].endswith(" and 2 more")
    report = fields_of(tmp_path / "report.json")
    assert (report["bad_records"]["count"], report["bad_records"]["n_records"]) == (5, 48)
    assert hashlib.sha256((tmp_path / "net_quantized.prototxt").read_bytes()).hexdigest() == report["sha256"]
