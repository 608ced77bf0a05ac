from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from distcalib.data.datum import BadRecord
from distcalib.data.image_list import ImageList, Line, why_missing
from distcalib.data.records import Records
from distcalib.data.source import KeyIndex, LineIndex
from distcalib.errors import DataError
from tests.data.databases import PROTOTXT


def listed(folder: Path, text: str | bytes, root: str = "/", index: LineIndex | None = None) -> ImageList:
    path = folder / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ImageList(path, root, PROTOTXT, index)


@pytest.mark.parametrize(
    ("line", "file", "label"),
    [
        ("cat.jpg 3", "/cat.jpg", 3),
        ("a cat  on a mat.jpg 3", "/a cat  on a mat.jpg", 3),
        ("1 2 3", "/1 2", 3),
        ("cat.jpg  3", "/cat.jpg ", 3),
        ("é.jpg -1", "/é.jpg", -1),
        ("cat.jpg +7", "/cat.jpg", 7),
        ("cat.jpg 3\r", "/cat.jpg", 3),
        ("cat\t1.jpg 0012", "/cat\t1.jpg", 12),
    ],
)
@pytest.mark.parametrize("end", ["", "\n"])
def test_line_is_split_at_its_last_space(tmp_path: Path, line: str, file: str, label: int, end: str) -> None:
    assert listed(tmp_path, line + end).read(0, 1) == [Line(1, file, label)]


@pytest.mark.parametrize("n", [1, 2, 7, 50])
@pytest.mark.parametrize("end", ["", "\n"])
def test_read_gives_lines_by_number_and_wraps_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, end: str
) -> None:
    monkeypatch.setattr(Records, "MAX_KEYS", 8)
    text = "\n".join(f"{'x' * i}.png {i}" for i in range(n)) + end
    lines = listed(tmp_path, text)
    index = pickle.loads(pickle.dumps(lines.index))
    assert index.n_records == n
    assert len(index.offsets) <= 8
    again = listed(tmp_path, text, index=index)
    for source in (lines, again):
        for first in (0, 1, n - 1, n, 3 * n + 2, 0):
            for count in (1, 3, 2 * n + 1):
                got = source.read(first, count)
                assert [line.label for line in got] == [(first + i) % n for i in range(count)]
                assert [line.number for line in got] == [(first + i) % n + 1 for i in range(count)]


def test_index_of_a_million_lines_is_small() -> None:
    index = LineIndex(1_200_000, 293, tuple(range(0, 1_200_000 * 40, 293 * 40)), 48_000_000, "/data", "")
    assert len(pickle.dumps(index)) < 30_000


@pytest.mark.parametrize("root", ["", "images/", "images/prefix_"])
def test_names_start_where_the_first_image_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str) -> None:
    here, beside = tmp_path / "here", tmp_path / "beside"
    for folder in (here, beside):
        folder.mkdir()
    name = root + "a.png"
    (beside / name).parent.mkdir(exist_ok=True)
    (beside / name).touch()
    (beside / "list.txt").write_text("a.png 1\n../b.png 2\n")
    monkeypatch.chdir(here)

    def files() -> tuple[list[str], LineIndex]:
        made = ImageList(beside / "list.txt", root, beside / "net.prototxt")
        return [line.file for line in made.read(0, 2)], made.index

    found, index = files()
    assert found == [f"{beside}/{name}", f"{beside}/{root}../b.png"]
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).touch()
    assert files()[0][0] == f"{here}/{name}"
    monkeypatch.chdir("/")  # an actor has a working directory of its own
    actors = ImageList(beside / "list.txt", "/made/absolute", beside / "net.prototxt", index)
    assert [line.file for line in actors.read(0, 2)] == found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the list is empty; give a line 'path label' for each image"),
        ("a.png 1\nb.png\n", "line 2 is no path, a space and a whole number; correct the list"),
        ("a.png,1\n b.png 2\nc.png 1.5\n", "lines 1, 3 are no path, a space and"),
        ("a.png\t1\n", "line 1 is no path"),
        ("a.png 1 \n", "line 1 is no path"),
        ("a.png 1\n\n", "line 2 is no path"),
        (" 1\n", "line 1 is no path"),
        ("a.png 1_0\n", "line 1 is no path"),
        ("x\n" * 9, "lines 1, 2, 3, 4, 5 and 4 more are no path"),
        (b"\xff\x00\xfe", "line 1 is no path"),
        ("a.png 1\rb.png 2\r", "its lines end with a carriage return alone; write a newline behind each"),
        ("a.png 99999999999\n", "line 1 is no path"),
        ("a.png 1\n".encode("utf-16"), "is text in UTF-16; save the list as UTF-8"),
        ("a.png 1\n".encode("utf-16-be"), "is text in UTF-16; save the list as UTF-8"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(DataError) as error:
        listed(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path}/list.txt: {sentence}")
    assert "\n" not in str(error.value)


def test_missing_list_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.txt: does not exist; a relative source is looked up from the working"):
        ImageList(tmp_path / "none.txt", "", PROTOTXT)
    with pytest.raises(DataError, match="cannot be read: Is a directory; give a text file of paths and labels"):
        ImageList(tmp_path, "", PROTOTXT)


def test_index_of_another_list_is_refused(tmp_path: Path) -> None:
    index = listed(tmp_path, "a 1\nb 2\n").index
    assert isinstance(index, LineIndex)
    with pytest.raises(DataError, match="has 10 bytes where it had 8 before; every machine must see the same data"):
        listed(tmp_path, "aa 1\nbb 2\n", index=index)
    with pytest.raises(DataError, match="line 2 is not what it was when the list was indexed; every machine"):
        listed(tmp_path, "a 1\nb2 \n", index=index).read(1, 1)
    with pytest.raises(TypeError, match="an index of lines is wanted, not KeyIndex"):
        ImageList(tmp_path / "list.txt", "", PROTOTXT, KeyIndex(2, 1, (b"a", b"b")))


@pytest.mark.parametrize("n", [1, 3, 9])
def test_list_is_read_without_its_byte_order_mark(tmp_path: Path, n: int) -> None:
    lines = [f"{number}.jpg {number}\n" for number in range(n)]
    found = listed(tmp_path, b"\xef\xbb\xbf" + "".join(lines).encode())
    assert found.index.n_records == n
    expected = [Line(number + 1, f"/{number}.jpg", number) for number in range(n)]
    assert found.read(0, 2 * n) == expected * 2
    assert ImageList(found.path, "/", PROTOTXT, found.index).read(n - 1, 2) == [expected[-1], expected[0]]


@pytest.mark.parametrize("line", ["a.jpg 3 ", "a.jpg 3\t", "a.jpg 3  \r"])
def test_list_says_that_a_line_ends_in_blanks(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"line 2 is no path, .*whole number \(what ends in blanks has no label"):
        listed(tmp_path, f"b.jpg 1\n{line}\n")


def test_list_says_that_a_line_may_have_two_labels(tmp_path: Path) -> None:
    found = listed(tmp_path, "a.jpg 3 4\n")
    with pytest.raises(BadRecord, match="does not exist; has the line two labels\\? ImageData reads one"):
        found.contents(found.read(0, 1)[0])


def test_contents_are_not_sought_in_a_pipe(tmp_path: Path) -> None:
    """To open it would last until somebody writes to it."""
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    assert why_missing(str(pipe)) == "is a pipe, not a file; correct the list"
    images = listed(tmp_path, f"{pipe.name} 0\n", f"{tmp_path}/")
    with pytest.raises(BadRecord, match="is a pipe, not a file; correct the list"):
        images.contents(images.read(0, 1)[0])
