from __future__ import annotations

import pickle
import random
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import AnnotatedDatum, Datum, LayerParameter
from distcalib.data import VARIES, open_source
from distcalib.data.annotated import AnnotatedSource
from distcalib.data.database import DatabaseSource
from distcalib.data.records import Records
from distcalib.errors import DataError
from tests.data.databases import PROTOTXT, data_layer, encoded_datum, noise, raw_datum, write_leveldb, write_lmdb


def annotated(datum: Datum, n_boxes: int = 1, label: int = 1) -> AnnotatedDatum:
    """A record with `n_boxes` objects, the i-th with instance_id i."""
    record = AnnotatedDatum(datum=datum, type=AnnotatedDatum.BBOX)
    for i in range(n_boxes):
        one = record.annotation_group.add(group_label=label).annotation.add(instance_id=i)
        one.bbox.xmin, one.bbox.ymin, one.bbox.xmax, one.bbox.ymax = 0.25, 0.25, 0.5, 0.75
    return record


def numbered(n: int) -> list[AnnotatedDatum]:
    """Record i is filled with i, and has i % 3 objects of class i + 1."""
    return [annotated(raw_datum(np.full((1, 4, 4), i, np.uint8)), i % 3, i + 1) for i in range(n)]


def entries(records: Iterable[AnnotatedDatum]) -> list[tuple[bytes, bytes]]:
    return [(b"%08d" % i, record.SerializeToString()) for i, record in enumerate(records)]


def layer(source: Path, batch: int = 1, transform: str = "", data: str = "", backend: str = "LMDB") -> LayerParameter:
    made = data_layer(source, batch, transform, data, backend)
    made.type = "AnnotatedData"
    return made


def opened(folder: Path, batch: int = 1, transform: str = "") -> AnnotatedSource:
    return AnnotatedSource(layer(folder, batch, transform), PROTOTXT)


@pytest.mark.parametrize(("backend", "write"), [("LMDB", write_lmdb), ("LEVELDB", write_leveldb)])
@pytest.mark.parametrize(
    ("n", "batch", "iteration", "records"),
    [(6, 3, 0, [0, 1, 2]), (6, 3, 2, [0, 1, 2]), (5, 3, 1, [3, 4, 0]), (2, 5, 1, [1, 0, 1, 0, 1]), (1, 3, 7, [0] * 3)],
)
def test_batch_wraps_around_at_the_end_of_the_data(
    tmp_path: Path, n: int, batch: int, iteration: int, records: list[int], backend: str, write: object
) -> None:
    folder = write(tmp_path / "db", entries(numbered(n)))  # type: ignore[operator]
    source = AnnotatedSource(layer(folder, batch, backend=backend), PROTOTXT)
    got = source.batch(iteration)
    assert got["data"][:, 0, 0, 0].tolist() == records
    rows = [
        [item, record + 1, i, 0.25, 0.25, 0.5, 0.75, 0]
        for item, record in enumerate(records)
        for i in range(record % 3)
    ]
    assert got["label"].tolist() == [[rows or [[-1.0] * 8]]]
    assert got["label"].dtype == np.float32
    assert source.shapes == {"data": (batch, 1, 4, 4), "label": (1, 1, VARIES, 8)}


def test_batches_are_the_same_in_any_order_with_and_without_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Records, "MAX_KEYS", 4)
    made = layer(write_lmdb(tmp_path / "db", entries(numbered(23))), batch=5, transform="scale: 0.1 crop_size: 2")
    in_order = AnnotatedSource(made, PROTOTXT)
    expected = [in_order.batch(k) for k in range(12)]
    index = pickle.loads(pickle.dumps(in_order.index))
    for source in (AnnotatedSource(made, PROTOTXT), AnnotatedSource(made, PROTOTXT, index)):
        for iteration in random.Random(1).sample(range(12), 12):
            for top, values in source.batch(iteration).items():
                assert values.tobytes() == expected[iteration][top].tobytes()


@pytest.mark.parametrize(
    "transform",
    [
        "",
        "mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.017",
        "resize_param { height: 9 width: 12 interp_mode: AREA }",
        "resize_param { height: 9 width: 12 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_mode: MIRRORED }",
        "resize_param { height: 9 width: 12 resize_mode: FIT_SMALL_SIZE interp_mode: NEAREST } crop_size: 8",
        "crop_size: 6",
    ],
)
def test_images_are_those_of_a_data_layer(tmp_path: Path, transform: str) -> None:
    datums = [encoded_datum(noise(11, 16, 3, seed=i)) for i in range(4)]
    for datum in datums:
        datum.height, datum.width, datum.channels = 11, 16, 3
    batch = 1 if "FIT_SMALL" in transform else 4
    source = opened(write_lmdb(tmp_path / "db", entries(annotated(d, 8 // batch) for d in datums)), batch, transform)
    plain = write_lmdb(tmp_path / "plain", [(b"%08d" % i, d.SerializeToString()) for i, d in enumerate(datums)])
    expected = DatabaseSource(data_layer(plain, batch, transform), PROTOTXT)
    got = source.batch(0)
    assert got["data"].tobytes() == expected.batch(0)["data"].tobytes()
    assert source.shapes["data"] == expected.shapes["data"] == got["data"].shape
    assert got["label"].shape == (1, 1, 8, 8)


def test_boxes_follow_the_crop(tmp_path: Path) -> None:
    source = opened(write_lmdb(tmp_path / "db", entries([annotated(raw_datum(noise(1, 8, 8)))])), 1, "crop_size: 4")
    # The crop is [0.25, 0.75) of both axes, so that (0.25, 0.25, 0.5, 0.75) is its left half.
    assert source.batch(0)["label"].tolist() == [[[[0, 1, 0, 0.0, 0.0, 0.5, 1.0, 0]]]]


@pytest.mark.parametrize("declared", [False, True], ids=["untyped", "anno_type"])
def test_records_without_a_type_of_annotation_have_labels_of_images(tmp_path: Path, declared: bool) -> None:
    records = [AnnotatedDatum(datum=raw_datum(noise(1, 2, 2), label=i + 3)) for i in range(2)]
    made = layer(write_lmdb(tmp_path / "db", entries(records)), 2)
    if declared:
        made.annotated_data_param.anno_type = AnnotatedDatum.BBOX
        with pytest.raises(DataError, match="record '00000000' has no type of annotation"):
            AnnotatedSource(made, PROTOTXT)
        return
    source = AnnotatedSource(made, PROTOTXT)
    assert source.shapes["label"] == (2, 1, 1, 1)
    assert source.batch(0)["label"].ravel().tolist() == [3, 4]


def test_what_caffe_draws_at_random_is_not_applied(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "db", entries(numbered(3)))
    made = layer(folder, 3, "distort_param { brightness_prob: 1 } expand_param { prob: 1 max_expand_ratio: 4 }")
    made.annotated_data_param.batch_sampler.add().sampler.min_scale = 0.3
    made.annotated_data_param.label_map_file = "labelmap.prototxt"
    assert AnnotatedSource(made, PROTOTXT).batch(0)["data"].tobytes() == opened(folder, 3).batch(0)["data"].tobytes()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"\xff\xff", "is not an AnnotatedDatum (2 bytes); write it again or leave it out"),
        (b"", "has no datum; it is not an AnnotatedDatum, or one without an image: write it again"),
        (
            annotated(Datum(data=b"xx", encoded=True)).SerializeToString(),
            "is not an image that can be decoded (2 bytes)",
        ),
        (annotated(raw_datum(noise(1, 5, 4))).SerializeToString(), "gives 1 x 5 x 4 values where the first record"),
        (AnnotatedDatum(datum=raw_datum(noise(1, 4, 4))).SerializeToString(), "has no type of annotation"),
    ],
    ids=["garbage", "empty", "undecodable", "size", "untyped"],
)
def test_batch_names_the_record_that_is_at_fault(tmp_path: Path, value: bytes, said: str) -> None:
    folder = write_lmdb(tmp_path / "db", [*entries(numbered(2)), (b"broken", value)])
    source = opened(folder, 3)
    with pytest.raises(DataError) as caught:
        source.batch(0)
    assert str(caught.value).startswith(f"{folder}: record 'broken' {said}")


@pytest.mark.parametrize("value", [b"\xff\xff", b"", annotated(Datum()).SerializeToString()])
def test_source_refuses_a_first_record_that_is_at_fault(tmp_path: Path, value: bytes) -> None:
    with pytest.raises(DataError, match="record 'a' "):
        opened(write_lmdb(tmp_path / "db", [(b"a", value)]))


@pytest.mark.parametrize(
    ("transform", "data", "said"),
    [
        ("random_resize_param { min_size: 2 max_size: 2 }", "", "random_resize_param does not move the boxes"),
        ("", "rand_skip: 3", "rand_skip: 3 begins at a random record"),
        ("bgr2rgb: true", "", "bgr2rgb is not done"),
    ],
)
def test_source_refuses_what_is_not_done(tmp_path: Path, transform: str, data: str, said: str) -> None:
    folder = write_lmdb(tmp_path / "db", entries(numbered(1)))
    with pytest.raises(DataError, match=said):
        AnnotatedSource(layer(folder, 1, transform, data), PROTOTXT)


def sampled_layer(
    folder: Path, batch: int = 1, transform: str = "", sampler: str = "batch_sampler {}"
) -> LayerParameter:
    made = layer(folder, batch, transform)
    text_format.Merge(f"annotated_data_param {{ {sampler} }}", made)
    return made


def through_jpeg(image: npt.NDArray[np.uint8], times: int, flag: int = cv2.IMREAD_UNCHANGED) -> npt.NDArray[np.uint8]:
    """`image` after so many rounds of OpenCV's JPEG."""
    for _ in range(times):
        image = np.asarray(cv2.imdecode(cv2.imencode(".jpg", image)[1], flag), np.uint8)
    return image


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize(
    ("sampler", "transform", "times"),
    [
        ("", "", 0),
        ("batch_sampler {}", "", 1),
        ("batch_sampler {} batch_sampler { sampler { min_scale: 0.1 } }", "", 1),
        ("batch_sampler { max_sample: 0 }", "", 0),
        ("batch_sampler { sample_constraint { min_jaccard_overlap: 0.9 } }", "", 0),
        ("batch_sampler { sample_constraint { min_jaccard_overlap: 0.1 } }", "", 1),
        ("", "distort_param {}", 1),
        ("batch_sampler {}", "distort_param { hue_prob: 0.5 }", 2),
        ("batch_sampler {}", "expand_param { prob: 0.5 max_expand_ratio: 4 }", 1),
        ("batch_sampler {}", "force_color: true", 1),
    ],
)
def test_a_sample_of_an_encoded_image_is_encoded_again(
    tmp_path: Path, sampler: str, transform: str, times: int, suffix: str
) -> None:
    image = noise(20, 24, 3)
    datum = encoded_datum(image, suffix=suffix)
    datum.height, datum.width = 20, 24
    folder = write_lmdb(tmp_path / "db", entries([annotated(datum)]))
    sizes = "resize_param { height: 10 width: 12 }"
    got = AnnotatedSource(sampled_layer(folder, 1, f"{transform} {sizes}", sampler), PROTOTXT).batch(0)["data"][0]
    stored = through_jpeg(image, suffix == ".jpg")
    expected = cv2.resize(through_jpeg(stored, times), (12, 10)).transpose(2, 0, 1)
    np.testing.assert_array_equal(got, expected)
    assert times == 0 or not np.array_equal(got, cv2.resize(stored, (12, 10)).transpose(2, 0, 1))


def test_a_gray_sample_is_encoded_as_it_was_forced(tmp_path: Path) -> None:
    image = noise(20, 24, 3)
    folder = write_lmdb(tmp_path / "db", entries([annotated(encoded_datum(image))]))
    got = AnnotatedSource(sampled_layer(folder, 1, "force_gray: true"), PROTOTXT).batch(0)["data"][0, 0]
    gray = cv2.imdecode(np.frombuffer(encoded_datum(image).data, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(got, through_jpeg(np.asarray(gray, np.uint8), 1, cv2.IMREAD_GRAYSCALE))


@pytest.mark.parametrize("transform", ["", "distort_param {}"])
def test_a_raw_sample_loses_nothing(tmp_path: Path, transform: str) -> None:
    pixels = noise(3, 8, 9)
    folder = write_lmdb(tmp_path / "db", entries([annotated(raw_datum(pixels))]))
    source = AnnotatedSource(sampled_layer(folder, 1, transform), PROTOTXT)
    np.testing.assert_array_equal(source.batch(0)["data"][0], pixels)


def test_a_sample_makes_a_new_record(tmp_path: Path) -> None:
    """With the size of its image, a type and a label, whatever the record says; its boxes end at the image's border."""
    record = AnnotatedDatum(datum=encoded_datum(noise(20, 40, 3)), type=AnnotatedDatum.BBOX)
    record.datum.ClearField("label")
    for box in [(-0.5, 0.0, 0.5, 0.5), (1.25, 0.0, 1.5, 0.5), (0.25, 0.25, 0.75, 0.75)]:
        one = record.annotation_group.add(group_label=2).annotation.add().bbox
        one.xmin, one.ymin, one.xmax, one.ymax = box
    untyped = AnnotatedDatum.FromString(record.SerializeToString())
    untyped.ClearField("type")
    sizes = "resize_param { height: 40 width: 40 resize_mode: FIT_LARGE_SIZE_AND_PAD }"
    folder = write_lmdb(tmp_path / "db", entries([record, untyped]))
    made = AnnotatedSource(sampled_layer(folder, 2, sizes), PROTOTXT).batch(0)["label"][0, 0]
    boxes = [[0, 0.25, 0.5, 0.5], [0.25, 0.375, 0.75, 0.625]]  # the image is in the middle half of its rows
    np.testing.assert_allclose(made[:, 3:7], [*boxes, *boxes], atol=1e-6)
    with pytest.raises(DataError, match="has boxes and no height and width"):
        AnnotatedSource(sampled_layer(folder, 1, sizes, ""), PROTOTXT)
    alone = write_lmdb(tmp_path / "alone", entries([untyped]))
    assert AnnotatedSource(sampled_layer(alone), PROTOTXT).batch(0)["label"].tolist() == [[[[0.0]]]]


@pytest.mark.parametrize(
    ("datum", "transform", "said"),
    [
        pytest.param(encoded_datum(noise(8, 8, 4)), "", "has 4 channels, of which JPEG keeps 3", id="alpha"),
        pytest.param(raw_datum(np.ones((1, 4, 4), np.float32)), "", "holds floats", id="floats"),
        pytest.param(
            encoded_datum(noise(8, 8, 3)),
            "resize_param { height: 4 width: 4 resize_mode: FIT_SMALL_SIZE }",
            "resize_mode: FIT_SMALL_SIZE goes with a batch_size of 1 only",
            id="small_size",
        ),
    ],
)
def test_what_intel_caffe_aborts_at_with_a_sampler_is_refused(
    tmp_path: Path, datum: Datum, transform: str, said: str
) -> None:
    folder = write_lmdb(tmp_path / "db", entries([annotated(datum)] * 2))
    with pytest.raises(DataError, match=said):
        AnnotatedSource(sampled_layer(folder, 2, transform), PROTOTXT).batch(0)


def test_a_database_for_the_other_layer_is_told_by_its_type(tmp_path: Path) -> None:
    boxes = AnnotatedDatum(type=AnnotatedDatum.BBOX)
    boxes.datum.CopyFrom(Datum(channels=1, height=2, width=2, data=bytes(4)))
    with_boxes = write_lmdb(tmp_path / "boxes", [(b"0", boxes.SerializeToString())])
    without = write_lmdb(tmp_path / "plain", [(b"0", boxes.datum.SerializeToString())])
    for source, kind, said in (
        (with_boxes, "Data", "record '0' is an AnnotatedDatum, an image with boxes; write type: \"AnnotatedData\"$"),
        (without, "AnnotatedData", "record '0' is a Datum, an image without boxes; write type: \"Data\"$"),
    ):
        proto = data_layer(source)
        proto.type = kind
        with pytest.raises(DataError, match=said):
            open_source(proto, PROTOTXT)
