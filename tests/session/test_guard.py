"""Data that is replaced while a run measures: nothing is delivered, and no row of it stays."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from distcalib.caffe import read_weights
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.data import open_source
from distcalib.data.image_list import ImageList
from distcalib.engine.net import open_net
from distcalib.engine.worker import NetWorker, Setting
from distcalib.errors import DataError
from distcalib.session.guard import Guard
from tests.calibration.test_calibrate import Notes
from tests.data.databases import noise, raw_datum, write_datums
from tests.session.evaluated import evaluate
from tests.session.tiny import ITERATIONS, Tiny, make_tiny

OPTIONS = CalibrationOptions(iterations=ITERATIONS, recover="off", sampling_iterations=2, n_actors=1)


class Acting(Notes):
    """Does something when a note begins so."""

    def __init__(self, when: str, do: Callable[[], object]) -> None:
        super().__init__()
        self._when, self._do = when, do

    def note(self, text: str) -> None:
        super().note(text)
        if text.startswith(self._when):
            self._do()


def replace_database(tiny: Tiny) -> None:
    """Other images under the same name, as who makes a data set again would write them."""
    other = write_datums(
        tiny.database.with_name("other"), [raw_datum(noise(3, 8, 8, seed=i), i % 5) for i in range(48)]
    )
    (other / "data.mdb").rename(tiny.database / "data.mdb")


def replace_weights(tiny: Tiny) -> None:
    copy = tiny.weights.with_name("copy")
    shutil.copy2(tiny.weights, copy)
    copy.rename(tiny.weights)


@pytest.mark.slow
@pytest.mark.usefixtures("actors")
@pytest.mark.parametrize("change", [replace_database, replace_weights])
def test_calibrate_delivers_nothing_of_files_that_were_replaced(
    tmp_path: Path, change: Callable[[Tiny], object]
) -> None:
    tiny, out = make_tiny(tmp_path / "net"), tmp_path / "out"
    expected = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "expected"))
    kept = tmp_path / "kept"
    shutil.copytree(tiny.prototxt.parent, kept, copy_function=shutil.copy2)
    reporter = Acting("FP32: ", lambda: change(tiny))
    with pytest.raises(DataError, match=r"since the run began; nothing may change data or weights during a run"):
        calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=out), reporter=reporter)
    assert {path.name for path in out.iterdir()} == {"distcalib.db"}
    shutil.copytree(kept, tiny.prototxt.parent, copy_function=shutil.copy2, dirs_exist_ok=True)
    again = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=out))
    assert (again.fp32_score, again.score, again.sha256) == (expected.fp32_score, expected.score, expected.sha256)


@pytest.mark.usefixtures("actors")
def test_evaluate_tells_no_score_of_data_that_were_replaced(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    reporter = Acting("net.prototxt: 13 layers", lambda: replace_database(tiny))  # before an actor opens it
    with pytest.raises(DataError, match=r"data\.mdb .* since the run began"):
        evaluate(tiny.prototxt, tiny.weights, ITERATIONS, n_actors=1, reporter=reporter)


def test_an_actor_opens_nothing_else_than_the_driver_saw(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    net = open_net(tiny.prototxt)
    guard = Guard(net, tiny.weights, None)
    source = open_source(net.graph.nodes[0].layer, net.path)
    setting = Setting(net.path, read_weights(tiny.weights), "w", {"data": source.index})
    source.close()
    setting = replace(setting, watched=guard.opened(setting.indexes))
    NetWorker(setting, 1).compile(net.spec())
    replace_database(tiny)
    with pytest.raises(DataError, match=r"data\.mdb .* since the run began"):
        NetWorker(setting, 1).compile(net.spec())


def test_finish_compares_the_images_of_a_list(tmp_path: Path) -> None:
    images = [tmp_path / f"{i}.raw" for i in range(2)]
    for image in images:
        image.write_bytes(b"image")
    (tmp_path / "list.txt").write_text("".join(f"{image} 0\n" for image in images))
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(
        'layer { name: "data" type: "ImageData" top: "data" top: "label" '
        f'image_data_param {{ source: "{tmp_path / "list.txt"}" batch_size: 1 }} }}\n'
        'layer { name: "s" type: "Silence" bottom: "data" bottom: "label" }'
    )
    net = open_net(prototxt)
    index = ImageList(tmp_path / "list.txt", "", prototxt).index
    guard = Guard(net, tmp_path / "w", None)
    guard.opened({"data": index})
    guard.identity()
    guard.finish(None)
    images[1].write_bytes(b"other image")
    guard.glance()
    with pytest.raises(DataError, match=r"1\.raw: was changed since the run began"):
        guard.finish(None)


@pytest.mark.usefixtures("actors")
def test_evaluate_tells_no_score_where_an_image_of_the_list_was_replaced(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    for number in range(8):
        cv2.imwrite(str(tmp_path / f"{number}.png"), noise(8, 8, 3, seed=number))
    (tmp_path / "list.txt").write_text("".join(f"{number}.png {number % 5}\n" for number in range(8)))
    text = tiny.prototxt.read_text()
    begin, end = text.index("data_param"), text.index("}", text.index("data_param")) + 1
    listed = text[:begin] + 'image_data_param { source: "list.txt" batch_size: 8 }' + text[end:]
    tiny.prototxt.write_text(listed.replace('type: "Data"', 'type: "ImageData"'))
    reporter = Acting("net.prototxt: ", lambda: cv2.imwrite(str(tmp_path / "7.png"), noise(8, 8, 3, seed=99)))
    with pytest.raises(DataError, match=r"7\.png: was changed since the run began"):
        evaluate(tiny.prototxt, tiny.weights, 1, n_actors=1, reporter=reporter)


def test_rest_asks_for_the_files_that_were_sent(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    net = open_net(tiny.prototxt)
    guard = Guard(net, tiny.weights, None)
    guard.opened({"data": None})
    replace_database(tiny)
    with pytest.raises(DataError, match=r"data\.mdb .* since the run began"):
        guard.rest()
