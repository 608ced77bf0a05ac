"""Where Intel Caffe itself computes something else than the graph says, in FP32 as well: told, not imitated.

Source: intel-caffe.md, "Graph rewrites before running" and "INT8 arithmetic".
"""

from collections.abc import Mapping

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.quantize.fusion import Fused
from distcalib.quantize.storage import Grid


def intel_faults(graph: Graph, groups: Mapping[str, Fused], stored: Mapping[Blob, Grid]) -> list[str]:
    """A sentence for each layer whose result will differ in Intel Caffe, in net order; `stored` as storage() tells."""
    found = {}
    for group in groups.values():
        if group.residual is not None and group.residual == group.input and group.eltwise is not None:
            found[group.eltwise.index] = (
                f"layer '{group.eltwise.name}' (Eltwise): adds '{group.name}' to that convolution's own input, which "
                "Intel Caffe overwrites while it is still read; its sums will differ there"
            )
    fused = {group.eltwise.index for group in groups.values() if group.eltwise is not None}
    by_output = {group.output: group for group in groups.values()}
    for node in graph:
        if node.type != "Eltwise" or node.index in fused:
            continue
        signs = [stored[blob].signed for blob in node.bottoms if blob in stored]
        if len(signs) > len(set(signs)):
            found[node.index] = (
                f"layer '{node.name}' (Eltwise): has two INT8 inputs of one type, which Intel Caffe adds at scale 1.0; "
                "its result will be wrong there"
            )
        if not _is_plain_sum(node):
            continue
        late = [by_output[blob] for blob in node.bottoms if blob in by_output]
        behind_relu = [group for group in late if group.node.type == "Convolution" and group.relu is not None]
        names = [group.name for group in behind_relu if graph.only_consumer(group.output) is node]
        if names:
            found[node.index] = (
                f"layer '{node.name}' (Eltwise): follows convolution '{names[-1]}' and its ReLU, which Intel Caffe "
                "computes as ReLU(convolution + other input); its sums will differ there"
            )
    return [found[index] for index in sorted(found)]


def _is_plain_sum(node: Node) -> bool:
    param = node.layer.eltwise_param
    two = len(node.bottoms) == 2 and all(c == 1.0 for c in param.coeff)
    return two and param.operation == caffe_pb2.EltwiseParameter.SUM
