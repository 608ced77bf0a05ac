"""Files that Intel Caffe aborts at or computes anew each time, and the `engine` of a layer that keeps it from that.

A sum that goes wrong is written with `engine: "MKLDNN:CPU"` on its convolution: that is the engine it runs on anyway,
but where it is spelled out no sum is fused into it. The other way would be to run what makes its residual in FP32 too,
with all sums behind: on examples/digits a net with one FP32 convolution runs 1.2 times as fast so (docs/intel-caffe-files.md).
"""

from collections.abc import Mapping, Sequence

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Graph, build_graph
from distcalib.caffe.steps import Trouble
from distcalib.errors import UnsupportedError
from distcalib.quantize.fusion import Fused, find_fused
from distcalib.quantize.grids import Params
from distcalib.quantize.memory import BLOCKS, run_pass
from distcalib.quantize.storage import params_of

_ISA = {8: "without AVX-512", 16: "with AVX-512"}


def troubles(graph: Graph, groups: Mapping[str, Fused], params: Params) -> list[Trouble]:
    """All that Intel Caffe aborts at or computes wrongly for the sake of memory, in net order, on whatever CPU."""
    by_block = {
        block: run_pass(graph, groups, lambda group, source, residual: params.get(group.name), block).troubles
        for block in BLOCKS
    }
    everywhere = set.intersection(*map(set, by_block.values()))
    found = {*graph.troubles, *everywhere}
    for block, some in by_block.items():
        found.update(
            Trouble(one.index, f"{one.said} (on CPUs {_ISA[block]})", one.fatal, one.layer, one.engine)
            for one in set(some) - everywhere
        )
    return sorted(found)


def mending_engines(layers: Sequence[caffe_pb2.LayerParameter], where: str) -> dict[str, str]:
    """The `engine` of each layer of the TEST net `layers` that keeps Intel Caffe from aborting and from nonsense.

    Each mends the first trouble that is left, since it changes what is fused behind it.  Raises UnsupportedError where
    no engine helps.
    """
    mended = [caffe_pb2.LayerParameter.FromString(layer.SerializeToString()) for layer in layers]
    engines: dict[str, str] = {}
    while True:
        graph = build_graph(mended, where)
        found = troubles(graph, find_fused(graph), params_of(graph))
        first = next((one for one in found if one.layer and one.layer not in engines), None)
        if first is None:
            break
        engines[first.layer] = first.engine
        for layer in mended:
            if layer.name == first.layer:
                layer.engine = first.engine
    hopeless = [str(one) for one in found if one.fatal]
    if hopeless:
        raise UnsupportedError(f"{where}: " + "; ".join(hopeless))
    return engines
