"""A ranking in one net is of the candidates' own outputs, whoever stands in it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import openvino as ov
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob
from distcalib.engine import program
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.batch import Batch
from distcalib.engine.builder import BuiltModel, build_model
from distcalib.engine.program import LocalProgram
from distcalib.engine.ranking import RankSpec, distance
from distcalib.engine.ranking_stack import FP32, StackProgram, compile_stack
from distcalib.engine.spec import NetSpec
from distcalib.errors import WeightsError
from distcalib.layers import Blobs, FileBlobs
from tests.engine.test_architectures import FAMILIES, SHAPE, Drawn
from tests.engine.test_ranking_bits import FC, Ranked, residual

N_ROWS = 2
SHAPES = {"data": (N_ROWS, *SHAPE[1:])}
EMULATED = Arithmetic(emulated=True)


def two_heads() -> caffe_pb2.NetParameter:
    """Two branches on a trunk, which stays in FP32 as a first convolution does; one of them is added to it."""
    net = Drawn()
    trunk = net.conv("trunk", 16)
    left = net.conv("left", 16, trunk)
    net.conv("right", 16, trunk)
    net.conv("last", 16, "right", relu=False)
    net.add("sum", "Eltwise", left, trunk)
    return text_format.Parse(net.end(), caffe_pb2.NetParameter())


def last_of(ranked: Ranked, name: str) -> Blob:
    """What lies there at the end."""
    return max((blob for blob in ranked.plan.base.graph.producer if blob.name == name), key=lambda blob: blob.version)


def outputs_of(
    ranked: Ranked, spec: NetSpec, outputs: Sequence[Blob], arithmetic: Arithmetic
) -> list[NDArray[np.float32]]:
    """What a whole net makes of the first images."""
    built = build_model(spec.graph, ranked.blobs, SHAPES, "net", keep=outputs, arithmetic=arithmetic)
    return LocalProgram(built, "net", 1).results({"data": ranked.images[:N_ROWS]})


def compiled(
    ranked: Ranked, names: Sequence[str], outputs: Sequence[Blob] = (FC,), arithmetic: Arithmetic = NATIVE
) -> StackProgram:
    """The candidates `names`, and FP32's answers of the same images."""
    base = ranked.plan.base
    reference = {0: tuple(outputs_of(ranked, base, outputs, arithmetic))}
    candidates = {name: ranked.plan.candidates[name] for name in names}
    weights = (1.0,) * len(outputs)
    spec = RankSpec(candidates, tuple(outputs), reference, weights, base, (), stacked=True)
    return compile_stack(spec, lambda _: ranked.blobs, SHAPES, 1, arithmetic)


def distances(stack: StackProgram, ranked: Ranked) -> Mapping[str, float]:
    return stack.distances(0, Batch({"data": ranked.images[:N_ROWS]}, frozenset(), 0, N_ROWS, frozenset(), ()))


def expected(
    ranked: Ranked, names: Sequence[str], outputs: Sequence[Blob] = (FC,), arithmetic: Arithmetic = NATIVE
) -> dict[str, float]:
    reference = outputs_of(ranked, ranked.plan.base, outputs, arithmetic)
    return {
        name: distance(outputs_of(ranked, ranked.plan.candidates[name], outputs, arithmetic), reference)
        for name in names
    }


def late_reads() -> caffe_pb2.NetParameter:
    """Behind all but the last of its convolutions a branch reads the data again."""
    net = Drawn()
    net.conv("first", 16)
    net.conv("a", 16)
    net.conv("b", 16)
    top = net.conv("c", 16)
    net.add("small", "Pooling", "data", param="pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }")
    net.add("sum", "Eltwise", top, "small")
    net.conv("last", 16)
    return text_format.Parse(net.end(), caffe_pb2.NetParameter())


@pytest.fixture(scope="module")
def ranked(small_parts: None) -> Ranked:
    return Ranked(residual(3))


@pytest.mark.parametrize("arithmetic", [NATIVE, EMULATED], ids=["native", "emulated"])
@pytest.mark.parametrize("part", [slice(None), slice(0, 4), slice(3, None, 2), slice(2, 3)], ids=str)
def test_stacked_candidates_of_a_residual_net_have_their_own_distances(
    ranked: Ranked, part: slice, arithmetic: Arithmetic
) -> None:
    names = list(ranked.plan.candidates)[part]
    found = distances(compiled(ranked, names, arithmetic=arithmetic), ranked)
    assert list(found) == names
    # FP32 sums before an INT8 layer end in other bits in another net, and may then be rounded to the step beside.
    flips = 1e-3 if len(names) == 1 else 0.1
    assert found == pytest.approx(expected(ranked, names, arithmetic=arithmetic), rel=flips)
    assert min(found.values()) > 0.0


@pytest.mark.parametrize("outputs", [("sum", "last"), ("last", "sum"), ("last",)], ids=str)
@pytest.mark.parametrize("names", [("left", "right", "last"), ("left",), ("last",), ("right", "last")], ids=str)
def test_stacked_candidates_that_differ_in_one_output_only(
    names: Sequence[str], outputs: Sequence[str], small_parts: None
) -> None:
    ranked = Ranked(two_heads())
    blobs = [last_of(ranked, name) for name in outputs]
    stack = compiled(ranked, names, blobs)
    found = distances(stack, ranked)
    assert found == pytest.approx(expected(ranked, names, blobs), rel=1e-3, abs=1e-9)
    assert (found.get("left") == 0.0) is ("left" in names and "sum" not in outputs)


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("c",), ("a", "b", "c", "last"), ("last",)], ids=str)
def test_stacked_candidates_of_a_net_that_reads_its_data_again(names: Sequence[str], small_parts: None) -> None:
    ranked = Ranked(late_reads())
    found = distances(compiled(ranked, names), ranked)
    assert found == pytest.approx(expected(ranked, names), rel=0.1)


@pytest.mark.parametrize("family", FAMILIES, ids=[family.__name__ for family in FAMILIES])
def test_stacked_candidates_of_the_families_of_nets(family: Callable[[], str], small_parts: None) -> None:
    ranked = Ranked(text_format.Parse(family(), caffe_pb2.NetParameter()))
    names = list(ranked.plan.candidates)
    assert distances(compiled(ranked, names), ranked) == pytest.approx(expected(ranked, names), rel=0.1)


def test_fp32_is_computed_no_further_than_it_is_needed(ranked: Ranked) -> None:
    names = list(ranked.plan.candidates)
    assert compiled(ranked, names[:3]).members == [tuple(names[:3])]
    heads = Ranked(two_heads())
    sums = compiled(heads, ["left", "right"], [last_of(heads, "sum"), last_of(heads, "last")]).members
    assert sums == [(FP32, "left"), (FP32, "right")]


def test_a_net_that_does_not_differ_has_no_distance(ranked: Ranked) -> None:
    first = next(iter(ranked.plan.candidates))
    reference = {0: tuple(outputs_of(ranked, ranked.plan.base, (FC,), NATIVE))}
    candidates = {"same": ranked.plan.base, first: ranked.plan.candidates[first]}
    spec = RankSpec(candidates, (FC,), reference, (1.0,), ranked.plan.base, (), stacked=True)
    found = distances(compile_stack(spec, lambda _: ranked.blobs, SHAPES, 1), ranked)
    assert found["same"] == pytest.approx(0.0, abs=1e-9)
    assert found[first] > 1e-6


def n_products(monkeypatch: pytest.MonkeyPatch, ranked: Ranked, names: Sequence[str]) -> int:
    """How many convolutions are compiled for these."""
    seen: list[int] = []
    compile_model = program.compile_model

    def counted(built: BuiltModel, where: str, n_threads: int) -> ov.CompiledModel:
        seen.append(sum(op.get_type_name() in ("Convolution", "GroupConvolution") for op in built.model.get_ops()))
        return compile_model(built, where, n_threads)

    with monkeypatch.context() as patch:
        patch.setattr(program, "compile_model", counted)
        compiled(ranked, names)
    return seen[-1]


def test_what_candidates_have_in_common_is_compiled_once(monkeypatch: pytest.MonkeyPatch, ranked: Ranked) -> None:
    """A sum needs the residual before it in INT8, so that each of these candidates has all of the one before."""
    names = list(ranked.plan.candidates)
    n_base = sum(layer.type == "Convolution" for layer in ranked.plan.base.layers)
    alone = sum(n_products(monkeypatch, ranked, [name]) - n_base for name in names)
    together = n_products(monkeypatch, ranked, names) - n_base
    assert together < 0.7 * alone
    assert together <= 2 * len(names)


def test_a_stack_says_which_candidate_cannot_be_built(ranked: Ranked) -> None:
    """And nothing of the layers behind it, which are not to blame."""
    names = list(ranked.plan.candidates)
    candidates = {name: ranked.plan.candidates[name] for name in names}
    spec = RankSpec(candidates, (FC,), {}, (1.0,), ranked.plan.base, (), stacked=True)
    broken, lacking = candidates["1/2"], FileBlobs({}, "net.caffemodel")
    with pytest.raises(WeightsError) as raised:
        compile_stack(spec, lambda one: lacking if one is broken else ranked.blobs, SHAPES, 1)
    assert "net.caffemodel" in str(raised.value)
    assert "KeyError" not in str(raised.value)


def test_a_stack_says_which_layer_lacks_its_weights(ranked: Ranked) -> None:
    names = list(ranked.plan.candidates)
    lacking = FileBlobs({}, "net.caffemodel")
    spec = RankSpec(
        {name: ranked.plan.candidates[name] for name in names}, (FC,), {}, (1.0,), ranked.plan.base, (), stacked=True
    )

    def blobs_of(_: NetSpec) -> Blobs:
        return lacking

    with pytest.raises(WeightsError, match="'first'"):
        compile_stack(spec, blobs_of, SHAPES, 1)
