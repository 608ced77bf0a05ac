"""Files that Intel Caffe aborts at or computes nonsense from, and the `engine` of a layer that keeps it from that.

A sum that goes wrong is written with `engine: "MKLDNN:CPU"` on its convolution: that is the engine it runs on anyway,
but where it is spelled out no sum is fused into it. The other way would be to run what makes its residual in FP32 too,
and with that all sums of the stage: resnet20 with res3c_branch2b in FP32 keeps 20 INT8 layers this way and 17 the
other, and ran at 3,352 images/s against 2,832 (embedded engine, one actor, median of three on a busy machine).
"""

from collections.abc import Iterator, Mapping, Sequence

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Graph, Node, build_graph
from distcalib.caffe.steps import CAFFE, UNFUSED, Trouble, runs_on_caffe
from distcalib.errors import UnsupportedError
from distcalib.quantize.fusion import Fused, find_fused
from distcalib.quantize.grids import Params
from distcalib.quantize.layouts import BLOCKS
from distcalib.quantize.memory import run_pass
from distcalib.quantize.storage import params_of

_ISA = {8: "without AVX-512", 16: "with AVX-512"}


def troubles(graph: Graph, groups: Mapping[str, Fused], params: Params) -> list[Trouble]:
    """All that Intel Caffe aborts at or computes otherwise than the prototxt says, in net order, on whatever CPU."""
    passes = {
        block: run_pass(graph, groups, lambda group, source, residual: params.get(group.name), block)
        for block in BLOCKS
    }
    by_block = {block: one.troubles for block, one in passes.items()}
    everywhere = set.intersection(*map(set, by_block.values()))
    collected = {*graph.troubles, *everywhere}
    for group in groups.values():
        collected.update(_fused_wrongly(group, group.name in passes[8].int8))
    for block, some in by_block.items():
        collected.update(
            Trouble(one.index, f"{one.said} (on CPUs {_ISA[block]})", one.fatal, one.layer, one.engine)
            for one in set(some) - everywhere
        )
    return sorted(collected)


_KINDS = caffe_pb2.EltwiseParameter


def _fused_wrongly(group: Fused, int8: bool) -> Iterator[Trouble]:
    """What a fused Eltwise or ReLU says and Intel Caffe does not do."""
    relu = group.relu
    if relu is not None and runs_on_caffe(group.node.layer):
        difference = (
            f"is left out, for it is fused into '{group.name}', which runs in an engine that knows no fused ReLU"
        )
        yield Trouble(relu.index, f"layer '{relu.name}' (ReLU): {difference}", False, relu.name, CAFFE)
    node = group.eltwise
    if node is None:
        return
    where = f"layer '{node.name}' (Eltwise)"
    for difference in _misread(group, node, int8):
        yield Trouble(node.index, f"{where}: {difference}", False, group.name, UNFUSED)
    last = group.sum_relu
    if last is not None and relu is None and last.layer.relu_param.negative_slope != group.slope:
        difference = f"follows a fused sum, where Intel Caffe takes its negative_slope for {group.slope or 0.0:g}"
        yield Trouble(last.index, f"layer '{last.name}' (ReLU): {difference}", False, group.name, UNFUSED)


def _misread(group: Fused, node: Node, int8: bool) -> Iterator[str]:
    param, at = node.layer.eltwise_param, f"stands right behind convolution '{group.name}'"
    if param.operation != _KINDS.SUM:
        yield f"{at}, and Intel Caffe computes a sum, not {_KINDS.EltwiseOp.Name(param.operation)}"
    if len(node.bottoms) > 2:
        read = {group.residual, *(member.tops[0] for member in group.members)}
        lost = ", ".join(f"'{blob.name}'" for blob in node.bottoms if blob not in read)
        yield f"{at}, and Intel Caffe does not add {lost}"
    if group.relu is not None:
        yield (
            f"follows convolution '{group.name}' and its ReLU, which Intel Caffe computes as "
            "ReLU(convolution + other input)"
        )
    if any(c != 1.0 for c in param.coeff) and (not int8 or node.bottoms[0] != group.residual):
        does = "gives its coeff to the inputs in the other order" if int8 else "ignores its coeff"
        yield f"{at}, and Intel Caffe {does}"


def mending_engines(layers: Sequence[caffe_pb2.LayerParameter], where: str) -> dict[str, str]:
    """The `engine` of each layer of the TEST net `layers` that keeps Intel Caffe from aborting and from nonsense.

    Each mends the first trouble that is left, since it changes what is fused behind it.  Raises UnsupportedError where
    no engine helps.
    """
    mended = [caffe_pb2.LayerParameter.FromString(layer.SerializeToString()) for layer in layers]
    engines: dict[str, str] = {}
    while True:
        graph = build_graph(mended, where)
        remaining = troubles(graph, find_fused(graph), params_of(graph))
        # What is fused with what comes first: other troubles may only follow from it.
        ordered = sorted(remaining, key=lambda one: one not in graph.troubles)
        first = next((one for one in ordered if one.layer and one.layer not in engines), None)
        if first is None:
            break
        engines[first.layer] = first.engine
        for layer in mended:
            if layer.name == first.layer:
                layer.engine = first.engine
    hopeless = [str(one) for one in remaining if one.fatal]
    if hopeless:
        raise UnsupportedError(f"{where}: " + "; ".join(hopeless))
    return engines
