"""--ship-data: the same bytes from actors that could not open the data."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from distcalib.actors.nodes import NodeInfo
from distcalib.caffe.caffe_pb2 import BlobProto
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.data import Shipment, open_source
from distcalib.engine.net import open_net
from distcalib.engine.worker import data_nodes
from distcalib.errors import DataError, OptionError, UnsupportedError
from distcalib.session.backend import Embedded
from distcalib.session.progress import Silent
from distcalib.session.session import agreed
from distcalib.session.shipping import megabytes, refuse_too_large
from tests.actors.test_compatibility import node
from tests.calibration.reports import lasting
from tests.data.test_images import write_list
from tests.session.evaluated import evaluate
from tests.session.tiny import ITERATIONS, Tiny, make_tiny
from tests.session.tiny_ssd import TinySsd, make_tiny_ssd

pytestmark = pytest.mark.usefixtures("one_ray")

OPTIONS = CalibrationOptions(iterations=ITERATIONS, recover="off", sampling_iterations=2, strategy="greedy")


class Removing(Silent):
    """A reporter that removes what is given as soon as all was sent; it remembers what was told."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self.phases: list[str] = []

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        self.phases.append(f"{name}: {n_iterations} of {batch}")

    def advance(self, n_done: int, n_total: int) -> None:
        if self.phases[-1].startswith("sending") and n_done == n_total:
            for path in self.paths:
                path.rename(path.with_suffix(".away"))


def tiny_with_mean(folder: Path) -> tuple[Tiny | TinySsd, Sequence[Path]]:
    mean = BlobProto(num=1, channels=3, height=8, width=8, data=[float(i % 100) for i in range(192)])
    file = folder / "mean.binaryproto"
    made = make_tiny(folder, edit=lambda text: text.replace("mean_value: 127", f'mean_file: "{file}"'))
    file.write_bytes(mean.SerializeToString())
    return made, (made.database, file)


def tiny_on_images(folder: Path) -> tuple[Tiny | TinySsd, Sequence[Path]]:
    made = make_tiny(folder)
    pictures = folder / "pictures"
    pictures.mkdir()
    batches = open_source(data_nodes(open_net(made.prototxt).graph)[0].layer, made.prototxt)
    values = [image for k in range(ITERATIONS) for image in batches.batch(k)["data"]]
    images = [(image.transpose(1, 2, 0) * 100 + 127).round().astype("u1") for image in values]
    write_list(pictures, {f"{i}.png": image for i, image in enumerate(images)})
    lines = (pictures / "list.txt").read_text().split("\n")
    (pictures / "list.txt").write_text("".join(f"{line.split()[0]} {i % 5}\n" for i, line in enumerate(lines[:-1])))
    text = made.prototxt.read_text().replace('type: "Data"', 'type: "ImageData"')
    text = text.replace("data_param", "image_data_param")
    text = text.replace(f'source: "{made.database}"', 'source: "pictures/list.txt" root_folder: "pictures/"')
    made.prototxt.write_text(text.replace(" backend: LMDB", ""))
    return made, (pictures,)


def tiny_ssd_with_sizes(folder: Path) -> tuple[Tiny | TinySsd, Sequence[Path]]:
    made = make_tiny_ssd(folder)
    head, tail = made.prototxt.read_text().rsplit("num_classes: 3", 1)
    file = folder / "sizes.txt"
    made.prototxt.write_text(f'{head}num_classes: 3 overlap_threshold: 0.5 name_size_file: "{file}"{tail}')
    file.write_text("".join(f"image{i} {16 + i} 16\n" for i in range(24)))
    return made, (made.database, file)


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_with_mean, tiny_on_images, tiny_ssd_with_sizes])
def test_actors_open_nothing_and_score_the_same(
    tmp_path: Path, make: Callable[[Path], tuple[Tiny | TinySsd, Sequence[Path]]]
) -> None:
    net, paths = make(tmp_path / "net")
    n_iterations = 2 * ITERATIONS + 1
    whole = evaluate(net.prototxt, net.weights, n_iterations, n_actors=1)
    reporter = Removing(*paths)
    sent = evaluate(net.prototxt, net.weights, n_iterations, n_actors=2, ship_data=True, reporter=reporter)
    assert (sent.scores, sent.average_precisions) == (whole.scores, whole.average_precisions)
    assert reporter.phases[0].startswith("sending 0.1 MB of records to 1 node: 6 of "), "each record once"
    assert not any(path.exists() for path in paths), "they were taken away before the actors began"
    with pytest.raises((DataError, UnsupportedError)):
        evaluate(net.prototxt, net.weights, 1, n_actors=1, ship_data=True)


@pytest.mark.parametrize(
    "n_sampled", [2, pytest.param(ITERATIONS + 2, marks=pytest.mark.slow)], ids=["fewer", "more than tested"]
)
def test_calibrate_gives_the_same_bytes_and_resumes_a_run_that_sent_nothing(
    tiny: Tiny, tmp_path: Path, n_sampled: int
) -> None:
    files: list[bytes] = []
    reports: list[dict[str, object]] = []
    for name, n_actors, ship_data in [("opened", 1, False), ("one", 1, True), ("two", 2, True), ("opened", 2, True)]:
        options = replace(
            OPTIONS, sampling_iterations=n_sampled, out=tmp_path / name, n_actors=n_actors, ship_data=ship_data
        )
        found = calibrate(tiny.prototxt, tiny.weights, options)
        resumed = len(reports) == 3
        assert (found.n_rows_from_journal > 0) == resumed, "keys do not know how the data travelled"
        files.append(Path(found.output).read_bytes())
        reports.append(lasting(found))
    assert len(set(files)) == 1
    assert reports[0] == reports[1] == reports[2] == reports[3]


@pytest.mark.slow
def test_what_was_sent_is_freed_with_the_run(tmp_path: Path) -> None:
    net = make_tiny(tmp_path)
    evaluate(net.prototxt, net.weights, 1, n_actors=1, ship_data=True)
    before = _held()
    during = Counting()
    evaluate(net.prototxt, net.weights, ITERATIONS, n_actors=1, ship_data=True, reporter=during)
    assert during.held > before
    gc.collect()
    assert _held() <= before


def test_a_report_does_not_know_how_the_data_travelled() -> None:
    assert CalibrationOptions(ship_data=True).flags == ()


def test_ship_data_is_refused_with_a_build_of_caffe(tiny: Tiny, tmp_path: Path) -> None:
    said = "--ship-data: `caffe test` opens its data itself, so -r cannot go with it; leave out one"
    with pytest.raises(OptionError, match=said):
        CalibrationOptions(ship_data=True, root=tmp_path)
    with pytest.raises(OptionError, match=said):
        evaluate(tiny.prototxt, tiny.weights, 1, ship_data=True, root=tmp_path)


def test_ship_data_is_refused_for_hdf5_by_name(tmp_path: Path) -> None:
    net = make_tiny(tmp_path)
    text = net.prototxt.read_text().replace('type: "Data"', 'type: "HDF5Data" hdf5_data_param { source: "l" }')
    net.prototxt.write_text(text.replace("scale: 0.01 mean_value: 127", ""))
    said = r"net\.prototxt: --ship-data: layer 'data' \(HDF5Data\) reads HDF5 files, which are not sent; put "
    with pytest.raises(UnsupportedError, match=said):
        evaluate(net.prototxt, net.weights, 1, ship_data=True)


def shipment_of(tiny: Tiny) -> Shipment:
    net = open_net(tiny.prototxt)
    layers = [one.layer for one in data_nodes(net.graph)]
    return Shipment(layers, net.path, {"data": open_source(layers[0], net.path).index}, ITERATIONS)


def with_store(host: str, n_bytes: int) -> NodeInfo:
    return replace(node(host), store_bytes=n_bytes)


def test_records_must_fit_into_the_store_of_every_node(tiny: Tiny) -> None:
    shipment = shipment_of(tiny)
    fits = -(-shipment.n_bytes * 5 // 4)
    large, exact = with_store("host1", 2 * fits), with_store("host2", fits)
    refuse_too_large(shipment, [large, exact])
    embedded = Embedded("native")
    assert agreed(embedded, [large, exact], shipment) == agreed(embedded, [large, exact])
    small = [with_store("host3", fits - 1), with_store("host4", 0)]
    with pytest.raises(OptionError) as refused:
        agreed(embedded, [large, *small], shipment)
    assert str(refused.value) == (
        "--ship-data: 0.1 MB of records do not fit into 80% of Ray's object store, which has 0.1 MB on host3 "
        "(10.0.0.3), 0.1 MB on host4 (10.0.0.4); start Ray there with --object-store-memory=1000000 and give its "
        "--address, measure fewer iterations, or put the data where every node opens them"
    )


def test_the_net_must_fit_beside_the_records(tiny: Tiny) -> None:
    shipment, weights = shipment_of(tiny), 10**6
    fits = -(-(shipment.n_bytes + 3 * weights) * 5 // 4)
    refuse_too_large(shipment, [with_store("host1", fits)], weights)
    with pytest.raises(OptionError, match=r"beside 3\.0 MB of weights and compiled nets, do not fit into 80%"):
        refuse_too_large(shipment, [with_store("host1", fits - 1)], weights)


def test_megabytes_are_what_a_person_says() -> None:
    assert [megabytes(n) for n in (0, 149_999, 12_345_678, 98_765_432_100)] == [
        "0.1 MB", "0.1 MB", "12.3 MB", "98,765.4 MB"
    ]  # fmt: skip


def test_a_store_that_is_too_small_is_told_before_anything_is_sent(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distcalib.actors.ray_cluster.RayCluster.store_bytes", lambda cluster: {cluster.home: 10_000})
    reporter = Removing()
    with pytest.raises(OptionError, match=r"^--ship-data: 0\.1 MB of records, beside 0\.1 MB of weights and compiled "):
        evaluate(tiny.prototxt, tiny.weights, ITERATIONS, n_actors=1, ship_data=True, reporter=reporter)
    assert reporter.phases == []


def _held() -> int:
    """How many of Ray's objects this process refers to."""
    worker: Any = ray._private.worker.global_worker
    return len(worker.core_worker.get_all_reference_counts())


class Counting(Silent):
    """A reporter that counts Ray's objects when a pass begins."""

    held = 0

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        if name == "evaluate":
            self.held = _held()
