"""A trained net on real images: the scores that Intel Caffe gives for the very same files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.caffe import read_net, read_weights, test_net
from distcalib.data import open_source
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.spec import NetSpec, Row, is_int8_kernel
from distcalib.engine.worker import NetWorker, Setting, data_nodes
from distcalib.metrics import merged
from scripts.bench.compare_ways import compare, recorded_files
from tests.cpu import needs_vnni

N_ITERATIONS = 100


def rows_of(
    folder: Path, prototxt: Path, n_iterations: int = N_ITERATIONS, arithmetic: Arithmetic = NATIVE
) -> list[Row]:
    """Run a prototxt of cifar10 in this process."""
    net = test_net(read_net(prototxt))
    spec = NetSpec(net.SerializeToString(), prototxt.name)
    model = folder / "resnet20.prototxt"
    indexes = {node.name: open_source(node.layer, model).index for node in data_nodes(spec.graph)}
    setting = Setting(model, read_weights(folder / "resnet20.caffemodel"), "resnet20.caffemodel", indexes)
    worker = NetWorker(setting, 1, arithmetic=arithmetic)
    worker.load("net", worker.compile(spec))
    return worker.run("net", range(n_iterations))


def score(rows: list[Row], blob: str) -> float:
    return merged([row.scores[blob] for row in rows])


@pytest.mark.golden
@pytest.mark.slow
def test_worker_fp32_scores_are_those_of_intel_caffe(golden: Path) -> None:
    rows = rows_of(golden / "cifar10", golden / "cifar10" / "resnet20.prototxt")
    assert score(rows, "accuracy-top1") == 0.8187
    assert score(rows, "accuracy-top5") == 0.991
    assert score(rows, "loss") == pytest.approx(0.533293, abs=1e-5)


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize(
    "arithmetic",
    [pytest.param(NATIVE, marks=needs_vnni, id="native"), pytest.param(Arithmetic(emulated=True), id="emulated")],
)
def test_worker_int8_scores_are_those_of_intel_caffe(golden: Path, arithmetic: Arithmetic) -> None:
    recorded = json.loads((golden / "cifar10" / "intel_caffe_results.json").read_text())["int8"]
    assert len(recorded) == 8
    differences = []
    for answer in recorded:
        rows = rows_of(golden / "cifar10", golden / "cifar10" / answer["prototxt"], arithmetic=arithmetic)
        differences.append(abs(score(rows, "accuracy-top1") - answer["top1"]))
        if arithmetic.emulated:
            assert rows[0].kernels is None
            continue
        n_int8 = sum(map(is_int8_kernel, (rows[0].kernels or {}).values()))
        assert n_int8 == 17, rows[0].kernels  # 20 have scales; three sums with an FP32 residual run FP32
    assert max(differences) <= 0.0005, differences
    assert sum(differences) / len(differences) <= 0.0002, differences


@needs_vnni
@pytest.mark.golden
@pytest.mark.slow
def test_emulated_integers_are_those_of_native_kernels(golden: Path) -> None:
    """Errors spread from layer to layer: a deep net shows what a single layer does not."""
    file = next(file for file in recorded_files(golden) if file.name == "resnet20_multiple_KL_quantized")
    found = compare(replace(file, n_iterations=10), halved=False)
    assert found.n_values > 10**7
    assert found.n_same >= 0.9999 * found.n_values


@pytest.mark.golden
def test_worker_rows_do_not_depend_on_the_shard(golden: Path) -> None:
    folder = golden / "cifar10"
    net = test_net(read_net(folder / "resnet20.prototxt"))
    spec = NetSpec(net.SerializeToString(), "resnet20.prototxt")
    setting = Setting(folder / "resnet20.prototxt", read_weights(folder / "resnet20.caffemodel"), "weights", {})
    worker = NetWorker(setting, 1)
    worker.load("a", worker.compile(spec))
    whole = worker.run("a", range(6))
    late = worker.run("a", range(4, 6))
    early = worker.run("a", range(4))
    assert [row.scores for row in whole] == [row.scores for row in early + late]
