"""The predecessor's flags through a whole run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distcalib.caffe import caffe_pb2, net_text, read_net
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.data import open_source
from distcalib.errors import UnsupportedError
from distcalib.session.progress import Silent
from tests.cpu import ISAS
from tests.every import every
from tests.session.evaluated import evaluate
from tests.session.tiny import ITERATIONS, QUANTIZABLE, Tiny

pytestmark = pytest.mark.usefixtures("actors")

QUICK = CalibrationOptions(iterations=ITERATIONS, sampling_iterations=2, quantize_model=True, n_actors=1)


def params_of(path: str) -> dict[str, caffe_pb2.QuantizationParameter]:
    net = read_net(path)
    return {layer.name: layer.quantization_param for layer in net.layer if layer.HasField("quantization_param")}


def scales(path: str) -> dict[str, tuple[float, float]]:
    return {name: (param.scale_in[0], param.scale_out[0]) for name, param in params_of(path).items()}


def test_performance_model_has_all_scales_1_and_runs(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(
        tiny.prototxt, tiny.weights, replace(QUICK, quantize_model=False, performance_model=True, out=tmp_path)
    )
    assert Path(report.output).name == "net_dummy.prototxt"
    found = params_of(report.output)
    assert list(found) == list(QUANTIZABLE)
    assert {s for p in found.values() for s in (*p.scale_in, *p.scale_out, *p.scale_params)} == {1.0}
    assert report.met is None
    assert evaluate(report.output, tiny.weights, 1, n_actors=1).int8_layers == QUANTIZABLE


@pytest.mark.slow
def test_sampling_single_takes_the_last_sampled_iteration_alone(tiny: Tiny, tmp_path: Path) -> None:
    both = calibrate(tiny.prototxt, tiny.weights, replace(QUICK, out=tmp_path / "both"))
    last = calibrate(tiny.prototxt, tiny.weights, replace(QUICK, sampling_single=True, out=tmp_path / "last"))
    first = calibrate(tiny.prototxt, tiny.weights, replace(QUICK, sampling_iterations=1, out=tmp_path / "first"))
    smallest = {
        name: tuple(min(a, b) for a, b in zip(scales(first.output)[name], ends, strict=True))
        for name, ends in scales(last.output).items()
    }
    assert scales(last.output) != scales(first.output)
    assert scales(both.output) == smallest  # the larger range of the two is the smaller scale


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["KL", *(pytest.param(a, marks=pytest.mark.slow) for a in ("MA", "MAXP", "MSE"))])
def test_calibration_algos_do_not_depend_on_the_number_of_actors(tiny: Tiny, tmp_path: Path, algorithm: str) -> None:
    options = replace(QUICK, calibration_algos=algorithm, sampling_iterations=ITERATIONS)
    one = calibrate(tiny.prototxt, tiny.weights, replace(options, out=tmp_path / "one"))
    two = calibrate(tiny.prototxt, tiny.weights, replace(options, out=tmp_path / "two", n_actors=2))
    assert Path(one.output).read_bytes() == Path(two.output).read_bytes()
    direct = calibrate(tiny.prototxt, tiny.weights, replace(QUICK, sampling_iterations=ITERATIONS, out=tmp_path / "d"))
    assert every(
        ours >= direct_scale * 0.999
        for name, ends in scales(one.output).items()
        for ours, direct_scale in zip(ends, scales(direct.output)[name], strict=True)
    ), "no algorithm has a threshold above the largest value"
    assert scales(one.output) != scales(direct.output)


@pytest.mark.skipif("AVX512_CORE" not in ISAS, reason="needs the FP32 kernels of a CPU with AVX-512")
def test_isa_is_part_of_the_result(tiny: Tiny) -> None:
    here = evaluate(tiny.prototxt, tiny.weights, 1, n_actors=1)
    skylake = evaluate(tiny.prototxt, tiny.weights, 1, n_actors=1, isa="skylake")
    assert (skylake.isa, skylake.way, skylake.kernels) == ("skylake", "native", "avx512_core")
    assert here.scores == skylake.scores  # FP32: the same kernels


@pytest.mark.skipif(not ISAS, reason="needs the kernels of a CPU with AVX2")
def test_isa_is_emulated_where_the_cpu_has_no_kernels_for_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = calibrate(tiny.prototxt, tiny.weights, replace(QUICK, out=tmp_path)).output
    native = evaluate(model, tiny.weights, ITERATIONS, n_actors=1, isa="cascadelake")
    said: list[str] = []
    reporter = Silent()
    monkeypatch.setattr(reporter, "note", said.append)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    emulated = evaluate(model, tiny.weights, ITERATIONS, n_actors=1, reporter=reporter)
    assert (emulated.isa, emulated.way, emulated.kernels) == ("cascadelake", "emulated", "avx2")
    assert emulated.int8_layers == native.int8_layers == QUANTIZABLE
    assert emulated.without_int8_kernel == ()
    assert emulated.scores == pytest.approx(native.scores, abs=1e-5)
    assert any("emulated in FP32 kernels" in line and "images/s do not predict" in line for line in said)


def test_data_feeds_input_layers(tiny: Tiny, tmp_path: Path) -> None:
    """The records of the database, as arrays: the same scores."""
    net = read_net(tiny.prototxt)
    source = open_source(net.layer[0], tiny.prototxt)
    batches = [source.batch(i) for i in range(ITERATIONS)]
    fed = caffe_pb2.LayerParameter(name="fed", type="Input", top=list(source.tops))
    for top in source.tops:
        fed.input_param.shape.add().dim.extend(source.shapes[top])
    net.layer[0].CopyFrom(fed)
    prototxt, data = tmp_path / "fed.prototxt", tmp_path / "data.npz"
    prototxt.write_text(net_text(net))
    arrays: dict[str, Any] = {top: np.concatenate([batch[top] for batch in batches]) for top in source.tops}
    np.savez(data, **arrays)
    here = evaluate(prototxt, tiny.weights, ITERATIONS, n_actors=1, data=data)
    assert here.scores == evaluate(tiny.prototxt, tiny.weights, ITERATIONS, n_actors=1).scores
    with pytest.raises(UnsupportedError, match=r"layer 'fed' \(Input\) has no data; give its arrays with --data"):
        evaluate(prototxt, tiny.weights, ITERATIONS)
