"""An image has the same answer whatever stands beside it in the batch, to the bit, on every kind of kernel.

Searches that take the images in another order rest on it (distcalib/calibration/image_order.py).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2, read_net, read_weights, test_net
from distcalib.caffe.graph import Blob, build_graph
from distcalib.data import open_source
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.builder import build_model
from distcalib.engine.spec import NetSpec, Row
from distcalib.engine.worker import NetWorker, Setting, data_nodes
from distcalib.errors import DataError
from distcalib.layers import FileBlobs
from distcalib.metrics import ByImage, Partial
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import merge_ranges, observe_ends
from distcalib.quantize.scales import Calibration
from tests.cpu import needs_vnni
from tests.engine.test_architectures import FAMILIES, SHAPE, program, weights_of
from tests.engine.test_architectures import family as family
from tests.session.tiny import BATCH, ITERATIONS, Tiny

EMULATED = Arithmetic(emulated=True)
N_BATCHES = 5


def answers(net: caffe_pb2.NetParameter, arithmetic: Arithmetic, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The output of each of `images`, which are run in batches in their order."""
    built = build_model(
        build_graph(net.layer, "net"), FileBlobs(weights_of(net), "w"), {"data": SHAPE}, "net", arithmetic=arithmetic
    )
    compiled = program(built)
    found = [compiled.run({"data": batch})[0][Blob("fc", 0)] for batch in images.reshape(-1, *SHAPE)]
    return np.concatenate(found)


def quantized(net: caffe_pb2.NetParameter, images: NDArray[np.float32]) -> caffe_pb2.NetParameter:
    """All of it in INT8 that can be."""
    graph, weights = build_graph(net.layer, "net"), weights_of(net)
    quantizer = Quantizer(graph, Options("multiple"))
    built = build_model(graph, FileBlobs(weights, "w"), {"data": SHAPE}, "net", taps=quantizer.observed)
    _, ranges = program(built).run({"data": images[: SHAPE[0]]})
    assert ranges is not None
    ends = merge_ranges(quantizer.observed, [[observe_ends(*ends) for ends in ranges.tolist()]])
    params = Calibration(quantizer, ends, weights).params(quantizer.space.all_int8)
    made = caffe_pb2.NetParameter()
    made.CopyFrom(net)
    for layer in made.layer:
        if layer.name in params:
            layer.quantization_param.CopyFrom(params[layer.name])
    return made


@pytest.mark.parametrize(
    ("is_int8", "arithmetic"),
    [
        pytest.param(False, NATIVE, id="fp32"),
        pytest.param(True, NATIVE, id="int8", marks=needs_vnni),
        pytest.param(True, EMULATED, id="emulated"),
    ],
)
def test_an_image_has_the_same_bits_in_any_batch(
    family: tuple[str, caffe_pb2.NetParameter], is_int8: bool, arithmetic: Arithmetic
) -> None:
    assert family[0] in [make.__name__ for make in FAMILIES]
    random = np.random.default_rng(3)
    images = np.abs(random.normal(size=(N_BATCHES * SHAPE[0], *SHAPE[1:]))).astype(np.float32)
    images *= np.exp(random.normal(size=len(images)))[:, None, None, None].astype(np.float32)  # some are far larger
    net = quantized(family[1], images) if is_int8 else family[1]
    expected = answers(net, arithmetic, images)
    assert len({answer.tobytes() for answer in expected}) == len(images)
    for _ in range(3):
        order = random.permutation(len(images))
        np.testing.assert_array_equal(answers(net, arithmetic, images[order]), expected[order])


def worker_of(tiny: Tiny, kept_bytes: int = 0) -> tuple[NetWorker, NetSpec]:
    net = test_net(read_net(tiny.prototxt))
    spec = NetSpec(net.SerializeToString(), tiny.prototxt.name, by_image="accuracy-top1")
    indexes = {node.name: open_source(node.layer, tiny.prototxt).index for node in data_nodes(spec.graph)}
    setting = Setting(tiny.prototxt, read_weights(tiny.weights), "weights", indexes)
    return NetWorker(setting, 1, kept_bytes), spec


def rows_of(worker: NetWorker, spec: NetSpec, n: int) -> list[Row]:
    worker.load("net", worker.compile(spec))
    rows = worker.run("net", range(n))
    worker.drop("net")
    return rows


def told(rows: list[Row]) -> list[ByImage]:
    return [row.by_image for row in rows if row.by_image is not None]


@pytest.mark.parametrize("kept_bytes", [0, 1000, 1 << 20], ids=["no_room", "some_room", "room"])
def test_worker_scores_images_in_any_order(tiny: Tiny, kept_bytes: int) -> None:
    """Whether an actor has kept the images, some of them or none."""
    worker, spec = worker_of(tiny, kept_bytes)
    natural = rows_of(worker, spec, ITERATIONS)
    hits = np.concatenate([found.hits for found in told(natural)])
    margins = np.concatenate([found.margins for found in told(natural)])
    assert 0 < hits.sum() < len(hits) == BATCH * ITERATIONS
    order = np.random.default_rng(1).permutation(len(hits)).astype(np.int32).reshape(ITERATIONS, BATCH)
    for _ in range(2):
        found = rows_of(worker, replace(spec, images=order), ITERATIONS)
        np.testing.assert_array_equal(np.concatenate([one.hits for one in told(found)]), hits[order.ravel()])
        np.testing.assert_array_equal(np.concatenate([one.margins for one in told(found)]), margins[order.ravel()])
        expected = [Partial(int(hits[batch].sum()), BATCH, BATCH) for batch in order]
        assert [row.scores["accuracy-top1"] for row in found] == expected


def test_worker_leaves_out_the_places_of_a_batch_that_no_image_is_for(tiny: Tiny) -> None:
    worker, spec = worker_of(tiny)
    [all_hits] = [found.hits for found in told(rows_of(worker, spec, 1))]
    order = np.array([[3, 1, 2, -1, -1, -1, -1, -1]], np.int32)
    [row] = rows_of(worker, replace(spec, images=order), 1)
    assert row.scores["accuracy-top1"] == Partial(int(all_hits[[3, 1, 2]].sum()), 3, 3)
    assert row.by_image is not None
    assert row.by_image.rows.tolist() == [0, 1, 2]


def test_worker_names_the_record_of_a_label_that_is_no_class(tiny: Tiny, tmp_path: Path) -> None:
    net = read_net(tiny.prototxt)
    fc = next(layer for layer in net.layer if layer.name == "fc")
    fc.inner_product_param.num_output = 1
    weights = dict(read_weights(tiny.weights))
    weights["fc"] = tuple(blob[:1] for blob in weights["fc"])
    spec = NetSpec(test_net(net).SerializeToString(), "net")
    worker = NetWorker(Setting(tiny.prototxt, weights, "weights", {}), 1)
    images = np.arange(BATCH * ITERATIONS, dtype=np.int32)[::-1].reshape(ITERATIONS, BATCH).copy()
    with pytest.raises(DataError, match=r"record '0000004\d'"):
        rows_of(worker, replace(spec, images=images), 1)
