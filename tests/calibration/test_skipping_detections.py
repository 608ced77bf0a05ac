"""Bad records of detection nets: the mAP is that of the good ones."""

from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.caffe.caffe_pb2 import AnnotatedDatum
from distcalib.calibration.calibrate import calibrate
from tests.calibration.test_skipping import OPTIONS, corrupt, without
from tests.data.databases import noise, raw_datum
from tests.session import tiny_ssd as ssd
from tests.session.evaluated import evaluate
from tests.session.tiny import Tiny
from tests.session.tiny_ssd import TinySsd

pytestmark = pytest.mark.usefixtures("actors")


BAD_BOXES = {
    0: b"\xff\xff",
    5: b"",
    6: AnnotatedDatum(datum=raw_datum(noise(3, 16, 17)), type=AnnotatedDatum.BBOX).SerializeToString(),
}


@pytest.fixture(scope="module")
def bad_ssd(tiny_ssd: TinySsd, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return corrupt(tiny_ssd, tmp_path_factory.mktemp("bad_ssd") / "net", BAD_BOXES)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [False, True], ids=["", "sizes"])
def test_map_is_that_of_the_good_records(tiny_ssd: TinySsd, tmp_path: Path, sizes: bool) -> None:
    net, clean = corrupt(tiny_ssd, tmp_path / "bad", BAD_BOXES), without(tiny_ssd, tmp_path / "clean", BAD_BOXES)
    if sizes:  # so that an image that is taken for its neighbour is one of other pixels
        lines = [f"image{i} {3 + 7 * i % 40} {2 + 5 * i % 30}\n" for i in range(ssd.N_RECORDS)]
        for one, kept in ((net, lines), (clean, [line for i, line in enumerate(lines) if i not in BAD_BOXES])):
            file = one.prototxt.with_name("sizes.txt")
            file.write_text("".join(kept))
            text, begin = one.prototxt.read_text(), "detection_evaluate_param { "
            assert begin in text
            one.prototxt.write_text(text.replace(begin, f'{begin}name_size_file: "{file}" '))
    found = [evaluate(net.prototxt, net.weights, ssd.ITERATIONS, n_actors=n, skip_bad_records=True) for n in (1, 2)]
    expected = evaluate(clean.prototxt, clean.weights, ssd.N_RECORDS - len(BAD_BOXES), n_actors=1)
    assert found[0].scores == found[1].scores
    assert found[0].scores["map"] == pytest.approx(expected.scores["map"], abs=1e-6)
    assert found[0].average_precisions["map"] == pytest.approx(expected.average_precisions["map"], abs=1e-6)
    assert found[0].bad_records is not None
    assert [one.number for one in found[0].bad_records.listed] == list(BAD_BOXES)


@pytest.mark.slow
@pytest.mark.parametrize("skip", [False, True], ids=["", "skip"])
def test_the_batch_is_that_of_the_layer_with_the_boxes(tiny_ssd: TinySsd, tmp_path: Path, skip: bool) -> None:
    """And not of an array before it that is no row a record, such as the size of the image."""
    info = (
        'layer { name: "info" type: "DummyData" top: "info" include { phase: TEST } '
        "dummy_data_param { shape { dim: 1 dim: 3 } } } "
        'layer { name: "hush" type: "Silence" bottom: "info" include { phase: TEST } }'
    )
    sizes = tmp_path / "sizes.txt"
    sizes.write_text("".join(f"image{i} {3 + 7 * i % 40} {2 + 5 * i % 30}\n" for i in range(ssd.N_RECORDS)))
    begin = "detection_evaluate_param { "
    text = tiny_ssd.prototxt.read_text().replace(begin, f'{begin}name_size_file: "{sizes}" ')
    found = []
    for name, net in (("plain", text), ("info", f"{info}\n{text}")):
        prototxt = tmp_path / f"{name}.prototxt"
        prototxt.write_text(net)
        found.append(evaluate(prototxt, tiny_ssd.weights, ssd.ITERATIONS, n_actors=1, skip_bad_records=skip))
    assert found[0].scores == found[1].scores
    assert found[0].batch == found[1].batch == ssd.BATCH


@pytest.mark.slow
def test_calibrate_of_detections_is_the_same_on_any_number_of_actors(bad_ssd: Tiny, tmp_path: Path) -> None:
    found = []
    for n in (1, 2):
        options = replace(OPTIONS, blob_name=None, detection=True, n_actors=n, out=tmp_path / str(n))
        report = calibrate(bad_ssd.prototxt, bad_ssd.weights, options)
        found.append((report.sha256, report.score, report.candidates, report.bad_records))
    assert found[0] == found[1]
    assert report.bad_records is not None
    assert report.bad_records.count == 3
