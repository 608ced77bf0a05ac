from pathlib import Path

import pytest

from distcalib.caffe.caffe_pb2 import AnnotatedDatum
from distcalib.data.objects import look_at_objects
from tests.data.databases import PROTOTXT, data_layer, noise, raw_datum, write_lmdb

Box = tuple[float, float, float, float]


def database(folder: Path, boxes: list[Box], difficult: bool = False) -> Path:
    records = []
    for i in range(2):
        record = AnnotatedDatum(datum=raw_datum(noise(1, 4, 4)), type=AnnotatedDatum.BBOX)
        for box in boxes:
            one = record.annotation_group.add(group_label=1).annotation.add().bbox
            one.xmin, one.ymin, one.xmax, one.ymax = box
            one.difficult = difficult
        records.append((b"%08d" % i, record.SerializeToString()))
    return write_lmdb(folder, records)


@pytest.mark.parametrize(
    ("boxes", "difficult", "said"),
    [
        pytest.param([(0.1, 0.1, 0.5, 0.5)], False, "", id="sound"),
        pytest.param([(-0.2, 0.1, 1.2, 0.5)], False, "", id="a_little_outside"),
        pytest.param(
            [(0.1, 0.1, 0.5, 0.5), (10, 20, 50, 60)],
            False,
            "2 of 4 boxes of the first 2 records lie outside 0 to 1 (such as 60), so they are in pixels; write them",
            id="pixels",
        ),
        pytest.param([], False, "the first 2 records have no boxes", id="none"),
        pytest.param([(0, 0, 1, 1)], True, "all 2 boxes of the first 2 records are difficult", id="difficult"),
    ],
)
def test_look_at_objects(tmp_path: Path, boxes: list[Box], difficult: bool, said: str) -> None:
    found = look_at_objects(data_layer(database(tmp_path / "db", boxes, difficult), 1), PROTOTXT, None)
    assert said in found.reason
    assert bool(found.reason) == bool(said)
    assert bool(found.pixels) == ("pixels" in said)


def test_look_at_objects_says_nothing_of_what_is_not_there(tmp_path: Path) -> None:
    assert look_at_objects(data_layer(tmp_path / "none", 1), PROTOTXT, None).reason == ""
