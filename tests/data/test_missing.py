"""What the driver saw of the files of a list holds on every node."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.data import Bad, Source, find_missing, open_source
from distcalib.data.image_list import why_missing
from distcalib.errors import DataError
from tests.data.databases import layer, noise
from tests.data.test_images import write_list

N, BATCH = 10, 4


class Node:
    """A machine with its own copy of the images, at the path that all have."""

    def __init__(self, folder: Path, link: Path) -> None:
        self.folder, self._link = folder, link
        folder.mkdir()
        write_list(folder, {f"{i}.png": noise(5, 6, 3, seed=i) for i in range(N)})

    def mount(self) -> None:
        """From now on this is the machine that the tests run on."""
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(self.folder)


@pytest.fixture
def nodes(tmp_path: Path) -> tuple[Node, Node]:
    """The driver's, which is there, and another."""
    driver, other = (Node(tmp_path / name, tmp_path / "data") for name in ("driver", "other"))
    driver.mount()
    return driver, other


def on_images(tmp_path: Path) -> LayerParameter:
    text = f'source: "{tmp_path}/data/list.txt" root_folder: "{tmp_path}/data/" batch_size: {BATCH}'
    return layer(f'top: "data" top: "label" image_data_param {{ {text} }}', "ImageData")


def looked_for(made: LayerParameter, source: Source, n_iterations: int) -> Mapping[int, str]:
    return find_missing([made], Path("net.prototxt"), {"data": source.index}, n_iterations, lambda *_: None)["data"]


def read(source: Source, iteration: int) -> tuple[dict[str, bytes], Bad]:
    bad: Bad = {}
    tops = source.batch(iteration, bad)
    return {top: values.tobytes() for top, values in tops.items()}, bad


def test_every_node_leaves_out_what_the_driver_does_not_have(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    """Be it there or not: batches, and what is told of them, are the same bytes."""
    driver, other = nodes
    made = on_images(tmp_path)
    for name in ("0.png", "5.png"):
        (driver.folder / name).unlink()
    (other.folder / "5.png").unlink()
    source = open_source(made, Path("net.prototxt"), skip_bad=True)
    missing = looked_for(made, source, 3)
    assert missing == dict.fromkeys((0, 5), "does not exist; correct the list or root_folder")
    found = []
    for node in nodes:
        node.mount()
        actor = open_source(made, Path("net.prototxt"), source.index, skip_bad=True, missing=missing)
        found.append([read(actor, k) for k in range(6)])
    assert found[0] == found[1]
    driver.mount()
    assert found[0] == [read(source, k) for k in range(6)], "as where nobody knows more than its own disk"
    assert [(row, one.reason) for row, one in found[0][1][1].items()] == [(1, "does not exist")]


@pytest.mark.parametrize("missing", [{}, {1: "does not exist; correct the list or root_folder"}])
def test_an_image_that_only_another_node_lacks_ends_the_run(
    nodes: tuple[Node, Node], tmp_path: Path, missing: Mapping[int, str]
) -> None:
    _, other = nodes
    made = on_images(tmp_path)
    source = open_source(made, Path("net.prototxt"), skip_bad=True)
    (other.folder / "6.png").unlink()
    other.mount()
    actor = open_source(made, Path("net.prototxt"), source.index, skip_bad=True, missing=missing)
    read(actor, 0)
    with pytest.raises(DataError) as told:
        read(actor, 1)
    assert str(told.value) == (
        f"{tmp_path}/data/list.txt: line 7: image '{tmp_path}/data/6.png' does not exist, and was there for the driver "
        "when the run began; put the images where every node sees them, or give --ship-data, and leave them as they "
        "are during a run"
    )


def test_an_image_that_goes_during_a_run_ends_it(nodes: tuple[Node, Node], tmp_path: Path) -> None:
    driver, _ = nodes
    made = on_images(tmp_path)
    source = open_source(made, Path("net.prototxt"), skip_bad=True)
    actor = open_source(made, Path("net.prototxt"), source.index, skip_bad=True, missing=looked_for(made, source, 1))
    _, bad = read(actor, 0)
    assert not bad
    (driver.folder / "2.png").unlink()
    (driver.folder / "2.png").mkdir()
    with pytest.raises(DataError, match=r"2\.png' cannot be read \(Is a directory\), and was there for the driver"):
        read(actor, 0)


@pytest.mark.parametrize(("n_iterations", "n_looked"), [(1, BATCH), (2, 2 * BATCH), (3, N), (100, N)])
def test_files_that_are_reached_are_looked_for_once(
    nodes: tuple[Node, Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_iterations: int, n_looked: int
) -> None:
    made = on_images(tmp_path)
    index = open_source(made, Path("net.prototxt")).index
    asked: list[str] = []
    told: list[tuple[int, int]] = []
    monkeypatch.setattr("distcalib.data.missing.why_missing", lambda file: asked.append(file))
    found = find_missing(
        [made, layer("", "Pooling")], Path("net.prototxt"), {"data": index}, n_iterations, lambda *n: told.append(n)
    )
    assert found == {"data": {}}
    assert asked == [f"{tmp_path}/data/{i}.png" for i in range(n_looked)]
    assert told == [(i + 1, n_looked) for i in range(n_looked)]


def test_a_look_finds_what_reading_finds(tmp_path: Path) -> None:
    """In the same words, for all that is wrong with a name."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"no image")
    names = ["gone", "loop", "folder", "file/below", "x" * 300, "null\0byte"]
    write_list(tmp_path, {"good.png": noise(5, 6, 3)})
    (tmp_path / "list.txt").write_text("".join(f"{name} 0\n" for name in [*names, "file", "good.png"]))
    text = f'source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/" batch_size: 8'
    made = layer(f'top: "data" top: "label" image_data_param {{ {text} }}', "ImageData")
    _, bad = read(open_source(made, Path("net.prototxt"), skip_bad=True), 0)
    for row, name in enumerate(names):
        wrong = why_missing(f"{tmp_path}/{name}")
        assert wrong is not None
        assert wrong.partition("; ")[0] == bad[row].reason
    assert why_missing(f"{tmp_path}/file") is None


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_look_that_fails_tells_nothing_of_the_list(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "stat", fail)
    assert why_missing("/data/0.png") is None
