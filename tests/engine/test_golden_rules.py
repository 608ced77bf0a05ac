"""Against a real Intel Caffe: 144 more recorded nets, each of which asks one question (golden_rules/README.md)."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from distcalib.caffe import read_net, read_weights, test_net
from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.builder import build_model
from distcalib.engine.program import Program, compile_program
from distcalib.engine.spec import NetSpec
from distcalib.errors import UnsupportedError
from distcalib.layers import FileBlobs
from distcalib.quantize.faults import intel_faults
from distcalib.quantize.fusion import find_fused
from distcalib.quantize.mending import mending_engines
from distcalib.quantize.storage import Grid, Reading, params_of, storage
from tests.cpu import needs_vnni

Array = NDArray[np.float32]
LEAST_EXACT = 0.999
# The sum that two 1x1 convolutions read is computed at every second position only; the shapes here are the prototxt's.
THINNED = {"c26_sparse_two_1x1_s2": "s"}
# A PReLU of integers by a slope of 1/4 makes ties, which float decides; emulation, in integers, meets them all.
TIES = {"e13_prelu_int8": 0.01}
#: Net -> the layer that inspect names and how its sentence goes on.
ABORTED = {
    "c27_ip_eltwise_int8": "layer 's' (Eltwise): reads 'a', the INT8 output of an InnerProduct",
    "c28_stale_conv_inner_identity_fp32": "layer 'c' (Convolution): finds no blob 'p'",
    "c28_stale_conv_inner_identity_int8": "layer 'c' (Convolution): finds no blob 'p'",
    "c29_fp32_prod_not_after_conv_fp32": "layer 's' (Eltwise): operation PROD is not implemented on MKLDNN",
    "c29_fp32_prod_not_after_conv_int8": "layer 's' (Eltwise): operation PROD is not implemented on MKLDNN",
    "c30_prod_after_sigmoid_int8": "layer 'c' (Convolution): has bw_layer_out 32 on a sum whose residual 'g2'",
    "c40_fp32_conv_int8_residual_u8_int8": "layer 'c' (Convolution): is FP32, and its residual 'r' is INT8",
    "c41_fp32_conv_int8_residual_s8_int8": "layer 'c' (Convolution): is FP32, and its residual 'p' is INT8",
    "e17_conv_bn_scale_nobias_fp32": "layer 'sc' (Scale): is folded into 'a' (Convolution), and has no bias",
    "e17_conv_bn_scale_nobias_int8": "layer 'sc' (Scale): is folded into 'a' (Convolution), and has no bias",
    "e47_ip_bwin32_int8": "layer 'i' (InnerProduct): has bw_layer_in 32",
}
#: Net -> a part of a sentence for what Intel Caffe computes otherwise than the prototxt says.
WARNED = {
    "c04_residual_three_readers_first_int8": "",
    "c06_residual_two_readers_conv_first_fp32": "layer 'a' (Convolution): adds to 'r', its own input",
    "c09_three_bottoms_fp32": "does not add 'p'",
    "c10_prod_int8": "computes a sum, not PROD",
    "c11_max_fp32": "computes a sum, not MAX",
    "c13_coeff_swapped_fp32": "ignores its coeff",
    "c13_coeff_swapped_int8": "gives its coeff to the inputs in the other order",
    "c14_leaky_after_sum_int8": "takes its negative_slope for 0",
    "c17_conv_relu_eltwise_fp32": "computes as ReLU(convolution + other input)",
    "c20_unfused_u8_u8_int8": "layer 's' (Eltwise): has INT8 inputs of one type",
    "c22_residual_concat_fp32": "layer 'c' (Convolution): does not add 'k'",
    "c30_prod_after_sigmoid_fp32": "layer 'c' (Convolution): does not add 'g2'",
    "c35_residual_from_cpu_layer_int8": "layer 'c' (Convolution): does not add 'z'",
    "c43_conv_bw32_int8_residual_int8": "bw_layer_out 32 is ignored",
    "e03_concat_scale_one_int8": "takes inputs of scale 1",
    "e32_int8_then_fp32_reader_int8": "layer 'b' (Convolution): finds 'x' rounded to s8/10",
    "e37_lrn_two_readers_int8": "layer 'b' (Convolution): finds 'l' rounded to s8/20",
    "e38_fp32_residual_read_by_int8_int8": "",
}


def nets(golden: Path) -> list[Path]:
    """The nets with an input `x`; those on average pooling are asked elsewhere."""
    return sorted([*(golden / "golden_rules").glob("c*.prototxt"), *(golden / "golden_rules").glob("e*.prototxt")])


def layers_of(path: Path) -> Sequence[LayerParameter]:
    return test_net(read_net(path)).layer


def faults(path: Path) -> list[str]:
    """What inspect warns of."""
    graph = build_graph(layers_of(path), path.name)
    groups, params = find_fused(graph), params_of(graph)
    return intel_faults(graph, groups, storage(graph, groups, params), params)


class Recorded:
    """A recorded net, run here: by blob what Intel Caffe recorded, and what is there after a pass, with its grid."""

    def __init__(self, path: Path, arithmetic: Arithmetic = NATIVE) -> None:
        self.graph: Graph = build_graph(layers_of(path), path.name)
        groups, params = find_fused(self.graph), params_of(self.graph)
        self.stored = storage(self.graph, groups, params)
        arrays = np.load(path.with_suffix(".npz"))
        self.x: Array = arrays["x"]
        last = {top.name: top for node in self.graph for top in node.tops}
        self.answers = {last[key[2:]]: arrays[key] for key in arrays.files if key[2:] in last}
        readings = [self.stored.run.final[blob] for blob in self.answers]
        keep = list(dict.fromkeys(one.blob for one in readings if self.graph.producer[one.blob].type != "Input"))
        blobs = FileBlobs(read_weights(path.with_suffix(".caffemodel")), path.name)
        shapes = {"x": self.x.shape}
        built = build_model(self.graph, blobs, shapes, path.name, keep=keep, arithmetic=arithmetic)
        outputs, _ = Program(compile_program(built, NetSpec(b"", path.name), 1), 1).run({"x": self.x})
        self.made: dict[Blob, Array] = {Blob("x", 0): self.x, **outputs}

    def final(self, reading: Reading) -> tuple[Array, Grid | None]:
        """What lies in memory after a pass."""
        values, grid = self.made[reading.blob], self.stored.get(reading.blob)
        for grid in reading.rounded:
            scale = np.float32(grid.scale)
            values = np.clip(np.rint(values * scale), grid.low, grid.high) / scale
        return values, grid


def wrong_blobs(recorded: Recorded, skipped: str, tolerance: float) -> list[str]:
    """The blobs that differ from what Intel Caffe recorded."""
    wrong = []
    for blob, answer in recorded.answers.items():
        if blob.name == skipped:
            continue
        values, grid = recorded.final(recorded.stored.run.final[blob])
        assert values.shape == answer.shape
        if grid is None:
            ok = float(np.abs(values - answer).max()) <= tolerance * float(np.abs(answer).max())
        else:
            same = np.rint(values * grid.scale) == np.rint(answer * grid.scale)
            ok = bool(np.mean(same) >= LEAST_EXACT)
        if not ok:
            wrong.append(str(blob))
    return wrong


@cache
def count(folder: Path) -> tuple[int, int]:
    """How many nets ran, and how many died."""
    paths = nets(folder)
    ran = sum(path.with_suffix(".npz").exists() for path in paths)
    return ran, len(paths) - ran


@pytest.mark.golden
@pytest.mark.parametrize(
    "emulated", [pytest.param(False, marks=needs_vnni, id="native"), pytest.param(True, id="emulated")]
)
def test_build_model_answers_each_question_like_intel_caffe(golden: Path, emulated: bool) -> None:
    wrong, n = {}, 0
    for path in nets(golden):
        if not path.with_suffix(".npz").exists():
            continue
        skipped = THINNED.get(path.stem.removesuffix("_int8").removesuffix("_fp32"), "")
        tolerance = 1e-5 if emulated else TIES.get(path.stem, 1e-5)
        found = wrong_blobs(Recorded(path, Arithmetic(emulated=emulated)), skipped, tolerance)
        n += 1
        if found:
            wrong[path.stem] = found
    assert wrong == {}
    assert n == count(golden)[0] > 100


@pytest.mark.golden
def test_a_recorded_net_is_told_from_others(golden: Path) -> None:
    """The comparison above can fail: with the answers of another net every blob is wrong."""
    folder = golden / "golden_rules"
    recorded = Recorded(folder / "c01_sum_two_convs_relu_int8.prototxt")
    other = np.load(folder / "c10_prod_int8.npz")
    recorded.answers = {blob: other[f"y_{blob.name}"] for blob in recorded.answers if blob.name == "s"}
    assert wrong_blobs(recorded, "", 1e-5) == ["s#1"]


@pytest.mark.golden
def test_intel_faults_name_the_layer_where_intel_caffe_aborted(golden: Path) -> None:
    for path in nets(golden):
        said = [one for one in faults(path) if "cannot run the net" in one]
        if path.with_suffix(".npz").exists():
            assert said == [], path.stem
        else:
            assert any(one.startswith(ABORTED[path.stem]) for one in said), path.stem
    assert count(golden)[1] == len(ABORTED)


@pytest.mark.golden
@pytest.mark.parametrize("name", WARNED)
def test_intel_faults_tell_what_is_computed_otherwise(golden: Path, name: str) -> None:
    said = faults(golden / "golden_rules" / f"{name}.prototxt")
    if WARNED[name]:
        assert any(WARNED[name] in one for one in said), said
    else:
        assert said == []


@pytest.mark.golden
def test_what_is_mended_is_no_fault_any_more(golden: Path) -> None:
    """Every net is written so that nothing is left to abort at or to add wrongly, or it is refused."""
    refused = []
    for path in nets(golden):
        layers = layers_of(path)
        try:
            engines = mending_engines(layers, path.name)
        except UnsupportedError:
            refused.append(path.stem)
            continue
        for layer in layers:
            layer.engine = engines.get(layer.name, layer.engine)
        assert mending_engines(layers, path.name) == {}, path.stem
    assert refused == ["e17_conv_bn_scale_nobias_fp32", "e17_conv_bn_scale_nobias_int8", "e47_ip_bwin32_int8"]
