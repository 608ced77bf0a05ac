"""The worker that scores by `caffe test`, on the stand-in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import caffe_pb2, net_text, read_net, read_weights
from distcalib.engine.caffe_process import find_caffe
from distcalib.engine.glog import Output
from distcalib.engine.intel_caffe import CaffeSetting, CaffeSpec, CaffeWorker, Slices
from distcalib.engine.net import open_net
from distcalib.engine.spec import NetSpec, Row, Sampling
from distcalib.engine.worker import NetWorker, Setting
from distcalib.errors import EngineError
from distcalib.metrics import Partial, PartialScore
from tests.every import every
from tests.session.tiny import BATCH, ITERATIONS, Tiny, make_tiny
from tests.standin import FATAL, StandIn, make_standin

N_ITERATIONS = ITERATIONS + 2  # the data wraps around


@dataclass(frozen=True)
class Bench:
    """A worker, its stand-in and the net."""

    standin: StandIn
    setting: CaffeSetting
    worker: CaffeWorker
    spec: NetSpec

    def run(self, key: str, spec: object, units: range) -> list[object]:
        self.worker.load(key, self.worker.compile(spec))
        return list(self.worker.run(key, units))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    tiny: Tiny = make_tiny(tmp_path / "net")
    standin = make_standin(tmp_path / "build")
    embedded = Setting(tiny.prototxt, read_weights(tiny.weights), tiny.weights.name, {})
    n_labels = {"accuracy-top1": BATCH, "accuracy-top2": BATCH}
    (tmp_path / "scratch").mkdir()
    setting = CaffeSetting(embedded, find_caffe(standin.root), tiny.weights, tmp_path / "scratch", n_labels)
    return Bench(standin, setting, CaffeWorker(setting, 2), open_net(tiny.prototxt).spec())


def embedded_rows(bench: Bench, spec: NetSpec, units: range) -> list[Row]:
    worker = NetWorker(bench.setting.embedded, 1)
    worker.load("net", worker.compile(spec))
    return worker.run("net", units)


def accuracies(rows: Sequence[Row]) -> list[Mapping[str, PartialScore]]:
    """All iterations weigh alike: a log does not tell their records, and -r leaves out none."""
    found: list[Mapping[str, PartialScore]] = []
    for row in rows:
        partials = {name: partial for name, partial in row.scores.items() if name != "loss"}
        found.append({name: replace(p, n_records=1) for name, p in partials.items() if isinstance(p, Partial)})
    return found


@pytest.mark.parametrize(("n_iterations", "n_slices"), [(1, 1), (10, 1), (10, 3), (7, 7), (50_000, 56)])
def test_slices_are_all_iterations_in_order(n_iterations: int, n_slices: int) -> None:
    parts = Slices(n_iterations, n_slices).parts
    assert [i for part in parts for i in part] == list(range(n_iterations))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_slice_gives_the_rows_of_its_iterations(bench: Bench) -> None:
    found = bench.run("a", CaffeSpec(bench.spec, Slices(N_ITERATIONS, 3)), range(1, 3))
    assert [len(rows) for rows in found if isinstance(rows, tuple)] == [3, 3], "iterations 2-4 and 5-7"
    rows = [row for unit in found if isinstance(unit, tuple) for row in unit]
    wanted = embedded_rows(bench, bench.spec, range(2, N_ITERATIONS))
    assert accuracies(rows) == accuracies(wanted), "counts, and not their decimals"
    losses = [row.scores["loss"] for row in rows]
    assert [partial.denominator for partial in losses] == [1] * 6
    assert [f"{partial.value:.6g}" for partial in losses] == [f"{row.scores['loss'].value:.6g}" for row in wanted]
    assert {row.kernels for row in rows} == {None}, "it does not tell"
    first, second = bench.standin.calls
    assert first["args"][0] == "test"
    assert first["args"][4:] == [str(bench.setting.weights), "-iterations", "3", "-engine", "MKLDNN"]
    assert first["threads"] == "2"
    assert Path(first["folder"]).parent == bench.setting.scratch
    assert Path(first["args"][2]).name == "net.prototxt"
    assert second["pid"] != first["pid"]
    assert [path.name for path in bench.setting.scratch.iterdir()] == ["slices"], "prototxts and logs are gone"


def test_a_sampling_runs_on_the_embedded_engine(bench: Bench) -> None:
    tap = open_net(bench.setting.embedded.prototxt).graph.nodes[2].tops[0]
    spec = NetSpec(bench.spec.net, bench.spec.where, Sampling((tap,), False, 0, 2, 1))
    assert bench.run("a", spec, range(2)) == embedded_rows(bench, spec, range(2))
    bench.worker.drop("a")
    assert bench.standin.calls == []


def test_changed_weights_get_a_caffemodel_of_their_own(bench: Bench) -> None:
    """Written once for all candidates that have the same, and laid out as that of the FP32 net."""
    weights = bench.setting.embedded.weights
    changed = {"conv2": (weights["conv2"][0] * np.float32(-1), weights["conv2"][1])}
    net = caffe_pb2.NetParameter.FromString(bench.spec.net)
    for layer in net.layer:
        if layer.name == "conv4":
            layer.quantization_param.scale_in.append(1.0)
    spec = NetSpec(bench.spec.net, bench.spec.where, changed=changed)
    [found] = bench.run("a", CaffeSpec(spec, Slices(1, 1)), range(1))
    assert isinstance(found, tuple)
    assert accuracies(found) == accuracies(embedded_rows(bench, spec, range(1)))
    assert accuracies(found) != accuracies(embedded_rows(bench, bench.spec, range(1)))
    [file] = bench.setting.scratch.glob("*.caffemodel")
    assert bench.standin.calls[0]["args"][4] == str(file)
    bench.worker.drop("a")
    before = file.stat().st_mtime_ns
    quantized = NetSpec(net.SerializeToString(), bench.spec.where, changed=changed)
    bench.worker.compile(CaffeSpec(quantized, Slices(1, 1)))
    assert [path.stat().st_mtime_ns for path in bench.setting.scratch.glob("*.caffemodel")] == [before]
    stored = read_weights(file)
    assert stored.keys() == weights.keys()
    for name, blobs in {**weights, **changed}.items():
        assert every(np.array_equal(a, b) for a, b in zip(stored[name], blobs, strict=True))
    written = caffe_pb2.NetParameter.FromString(file.read_bytes())
    given = read_net(bench.setting.embedded.prototxt)
    assert [(layer.name, layer.bottom, layer.top) for layer in written.layer] == [
        (layer.name, layer.bottom, layer.top) for layer in given.layer
    ]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param(
            "abort", f"net.prototxt: Intel Caffe aborted: {FATAL}; mend what it names, or without -r the embedded "
            "engine measures", id="abort",
        ),
        pytest.param(
            "exit", "net.prototxt: Intel Caffe ended with exit code 127, the last line of its log: {caffe}: error "
            "while loading shared libraries: libmkldnn.so.0; see that it runs by itself, or without -r", id="exit",
        ),
        pytest.param(
            "garbage", "net.prototxt: the log of Intel Caffe is not that of a test: it has 0 of 2 batches (its last "
            "line: ]] = [[); is ROOT/tools/caffe a release of Intel Caffe?", id="garbage",
        ),
        pytest.param(
            "truncate", "net.prototxt: the log of Intel Caffe is not that of a test: it has 0 of 2 batches",
            id="truncated",
        ),
    ],
)  # fmt: skip
def test_a_failure_is_one_sentence(bench: Bench, fault: str, said: str) -> None:
    bench.standin.fail_by(fault)
    with pytest.raises(EngineError) as error:
        bench.run("a", CaffeSpec(bench.spec, Slices(2, 1)), range(1))
    assert str(error.value).startswith(said.format(caffe=bench.standin.executable))
    assert "\n" not in str(error.value)
    assert list(bench.setting.scratch.glob("test-*")) == []


def test_a_build_that_went_away_is_named(bench: Bench) -> None:
    bench.standin.executable.unlink()
    with pytest.raises(EngineError, match="No such file or directory"):
        bench.run("a", CaffeSpec(bench.spec, Slices(2, 1)), range(1))


@pytest.mark.parametrize(
    ("n_labels", "output", "partial"),
    [
        pytest.param(100, Output(0.81, 1), Partial(81, 100), id="count"),
        pytest.param(128, Output(0.820312, 1), Partial(105, 128), id="count_from_six_digits"),
        pytest.param(3, Output(0.333333, 1), Partial(1, 3), id="third"),
        pytest.param(399_999, Output(0.123457, 1), Partial(49_383, 399_999), id="as_many_as_six_digits_tell"),
        pytest.param(10, Output(0.25, 1), Partial(0.25, 1), id="no_count"),
        pytest.param(10, Output(2.5, 5), Partial(2.5, 5), id="several_numbers"),
        pytest.param(10, Output(1.5, 1), Partial(1.5, 1), id="above_1"),
        pytest.param(2_000_000, Output(0.123457, 1), Partial(0.123457, 1), id="too_many_labels"),
        pytest.param(0, Output(0.5, 1), Partial(0.5, 1), id="no_accuracy"),
    ],
)
def test_an_accuracy_is_the_count_that_it_was_made_of(
    bench: Bench, n_labels: int, output: Output, partial: Partial
) -> None:
    setting = CaffeSetting(bench.setting.embedded, Path(), Path(), Path(), {"a": n_labels})
    found = CaffeWorker(setting, 1)._partial("a", output)
    assert (found, type(found.numerator)) == (partial, type(partial.numerator))


def test_every_count_is_found_again_in_what_is_printed(bench: Bench) -> None:
    for n_labels in (1, 7, 50, 64, 97, 128, 1000):
        worker = CaffeWorker(CaffeSetting(bench.setting.embedded, Path(), Path(), Path(), {"a": n_labels}), 1)
        for count in range(n_labels + 1):
            printed = float(f"{np.float32(count) / np.float32(n_labels):.6g}")
            assert worker._partial("a", Output(printed, 1)) == Partial(count, n_labels)


def test_what_caffe_gets_is_the_net_but_for_its_data(bench: Bench) -> None:
    bench.run("a", CaffeSpec(bench.spec, Slices(ITERATIONS, 2)), range(1, 2))
    given = caffe_pb2.NetParameter.FromString(bench.spec.net)
    given.layer[0].data_param.source = str(bench.setting.scratch / "slices" / "3-6-0")
    assert bench.standin.calls[0]["model"] == net_text(given)
