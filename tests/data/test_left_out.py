"""What a batch has in the place of records that cannot be used."""

import errno
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from distcalib.caffe.caffe_pb2 import AnnotatedDatum, Datum
from distcalib.data import Bad, SkippableError, open_source
from distcalib.errors import DataError
from tests.data.databases import (
    PROTOTXT,
    data_layer,
    encoded_datum,
    layer,
    noise,
    raw_datum,
    write_leveldb,
    write_lmdb,
)

Write = Callable[[Path, Iterable[tuple[bytes, bytes]]], Path]
GOOD = [raw_datum(noise(3, 4, 4, seed=i), label=i).SerializeToString() for i in range(8)]
BROKEN: dict[str, tuple[bytes, str]] = {
    "no datum": (b"\xff\xff", "is not a Datum (2 bytes)"),
    "another size": (
        raw_datum(noise(3, 4, 5)).SerializeToString(),
        "gives 3 x 4 x 5 values where the first record gives 3 x 4 x 4",
    ),
    "short": (
        Datum(channels=3, height=4, width=4, data=b"123").SerializeToString(),
        "declares 3 x 4 x 4 = 48 values but holds 3 bytes",
    ),
    "cut JPEG": (
        Datum(data=encoded_datum(noise(4, 4, 3), suffix=".jpg").data[:20], encoded=True).SerializeToString(),
        "is not an image that can be decoded (20 bytes)",
    ),
    "PNG that is none": (
        Datum(data=b"\x89PNGbroken", encoded=True).SerializeToString(),
        "is not an image that can be decoded (10 bytes)",
    ),
}


@pytest.mark.parametrize(("backend", "write"), [("LMDB", write_lmdb), ("LEVELDB", write_leveldb)])
@pytest.mark.parametrize(
    ("kind", "at"),
    [(kind, at) for kind in BROKEN for at in (0, 2, 5) if (kind, at) != ("another size", 0)],  # the first one decides
)
def test_a_bad_record_is_replaced_by_the_first_good_one(
    tmp_path: Path, backend: str, write: Write, kind: str, at: int
) -> None:
    value, reason = BROKEN[kind]
    values = [*GOOD[:at], value, *GOOD[at + 1 :]]
    made = data_layer(write(tmp_path / "db", ((b"k%d" % i, v) for i, v in enumerate(values))), 4, backend=backend)
    source = open_source(made, PROTOTXT, skip_bad=True)
    bad: Bad = {}
    row, first = at % 4, at // 4 * 4
    got = source.batch(at // 4 + 2, bad)  # once around
    (found,) = bad.values()
    assert list(bad) == [row]
    assert (found.layer, found.number, found.key, found.reason) == ("data", at, f"'k{at}'", reason)
    labels = list(range(first, first + 4))
    labels[row] = first + (row == 0)
    assert got["label"].tolist() == labels
    np.testing.assert_array_equal(got["data"], np.stack([noise(3, 4, 4, seed=label) for label in labels]))
    with pytest.raises(SkippableError):
        source.batch(at // 4)


def test_the_first_good_record_decides_the_shape(tmp_path: Path) -> None:
    made = data_layer(write_lmdb(tmp_path / "db", [(b"0", b"\xff\xff"), (b"1", GOOD[1]), (b"2", GOOD[2])]), 3)
    assert open_source(made, PROTOTXT, skip_bad=True).shapes["data"] == (3, 3, 4, 4)
    with pytest.raises(DataError, match="record '0' is not a Datum"):
        open_source(made, PROTOTXT)


def test_no_good_record_is_an_error(tmp_path: Path) -> None:
    made = data_layer(write_lmdb(tmp_path / "db", [(b"%d" % i, b"\xff\xff") for i in range(4)]), 2)
    with pytest.raises(DataError, match=r"the 2 records of an iteration, from number 0 on, are all bad \('0' is no"):
        open_source(made, PROTOTXT, skip_bad=True)


def test_a_bad_record_has_no_boxes(tmp_path: Path) -> None:
    records = [AnnotatedDatum(datum=raw_datum(noise(3, 4, 4, seed=i)), type=AnnotatedDatum.BBOX) for i in range(4)]
    for i, record in enumerate(records):
        record.annotation_group.add(group_label=i + 1).annotation.add().bbox.xmax = 0.5
        record.annotation_group[0].annotation[0].bbox.ymax = 0.5
    values = [record.SerializeToString() for record in records]
    values[0] = AnnotatedDatum(datum=Datum(data=b"no image", encoded=True)).SerializeToString()  # nor a type
    values[2] = b""
    made = data_layer(write_lmdb(tmp_path / "db", [(b"%d" % i, v) for i, v in enumerate(values)]), 4)
    made.type = "AnnotatedData"
    bad: Bad = {}
    source = open_source(made, PROTOTXT, skip_bad=True)
    got = source.batch(0, bad)
    assert got["label"][0, 0, :, :2].tolist() == [[1, 2], [3, 4]]
    assert sorted(bad) == [0, 2]


def listed(folder: Path, n: int) -> str:
    """An ImageData layer on n images, three an iteration."""
    for i in range(n):
        cv2.imwrite(str(folder / f"{i}.png"), noise(4, 4, 3, seed=i))
    (folder / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(n)))
    return f'top: "data" top: "label" image_data_param {{ source: "list.txt" batch_size: {n} }}'


def test_a_missing_and_a_broken_image_are_left_out(tmp_path: Path) -> None:
    made = layer(listed(tmp_path, 4), "ImageData")
    (tmp_path / "0.png").unlink()
    (tmp_path / "2.png").write_bytes(b"\x89PNGbroken")
    source = open_source(made, tmp_path / "net.prototxt", skip_bad=True)
    bad: Bad = {}
    got = source.batch(0, bad)
    assert {row: (one.key, one.reason) for row, one in bad.items()} == {
        0: ("line 1: '0.png'", "does not exist"),
        2: ("line 3: '2.png'", "is not an image that can be decoded (10 bytes)"),
    }
    np.testing.assert_array_equal(got["data"][0], noise(4, 4, 3, seed=1).transpose(2, 0, 1))
    np.testing.assert_array_equal(got["data"][3], noise(4, 4, 3, seed=3).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.EIO, "Input/output error"),
            r"image '.*0.png' cannot be read \(Input/output error\); see to the disk",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied"),
            r"0.png' cannot be read \(Permission denied\); give the right to read it",
        ),
    ],
    ids=["disk", "rights"],
)
def test_what_one_machine_cannot_read_now_is_an_error_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    """Another machine may read it."""
    source = open_source(layer(listed(tmp_path, 3), "ImageData"), tmp_path / "net.prototxt", skip_bad=True)

    def fail(path: Path) -> bytes:
        raise error

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DataError, match=said):
        source.batch(0, {})


def test_names_that_no_machine_can_open_are_left_out(tmp_path: Path) -> None:
    made = layer(listed(tmp_path, 4), "ImageData")
    lines = (tmp_path / "list.txt").read_text().splitlines()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "list.txt").write_text("\n".join([f"{'x' * 300}.png 0", "loop.png 1", *lines[2:]]) + "\n")
    bad: Bad = {}
    open_source(made, tmp_path / "net.prototxt", skip_bad=True).batch(0, bad)
    assert [bad[row].reason for row in sorted(bad)] == [
        "cannot be read (File name too long)",
        "cannot be read (Too many levels of symbolic links)",
    ]


@pytest.mark.parametrize("kind", [MemoryError, cv2.error])
def test_a_machine_short_of_memory_leaves_no_record_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    source = open_source(layer(listed(tmp_path, 3), "ImageData"), tmp_path / "net.prototxt", skip_bad=True)

    def fail(*_: object) -> None:
        error = kind("Failed to allocate 12 bytes")
        error.code = cv2.Error.StsNoMem  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(DataError, match=r"0.png' cannot be decoded, for memory is short; give fewer actors$"):
        source.batch(0, {})


def test_the_record_that_decides_the_shape_is_named_where_no_other_has_it(tmp_path: Path) -> None:
    odd = raw_datum(noise(3, 4, 5)).SerializeToString()
    made = data_layer(write_lmdb(tmp_path / "db", ((b"k%d" % i, v) for i, v in enumerate([odd, *GOOD[1:]]))), 4)
    with pytest.raises(
        DataError, match=r"from number 4 on, are all bad .*; 'k0' decides the shape of all, is it right"
    ):
        open_source(made, PROTOTXT, skip_bad=True).batch(1, {})
