"""Which values can be negative, by what can reach them: that decides u8 or s8, not what a sample happened to show."""

from collections.abc import Mapping

from distcalib.caffe import Weights, caffe_pb2
from distcalib.caffe.aliases import SHARED
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.quantize.fusion import QUANTIZABLE, find_fused, own_relu

_KEEP = frozenset(
    {"Pooling", "Dropout", "Split", "Flatten", "Permute", "Reshape", "Reorg", "Concat", "Slice", "LRN", "Silence"}
)
# Of these the first bottom alone is copied or averaged; the others say where.
_KEEP_FIRST = frozenset({"Crop", "ROIPooling", "PSROIPooling"})
_NEVER_NEGATIVE = frozenset({"Sigmoid", "Softmax", "AbsVal", "Exp"})


def nonnegative_blobs(graph: Graph, weights: Weights | None = None) -> frozenset[Blob]:
    """The values that no input whatsoever can make negative; more of them are known with the `weights`."""
    known: dict[Blob, bool] = {}
    multiply = all(len(node.bottoms) == len(node.tops) == 1 for node in graph if node.type in QUANTIZABLE)
    groups = {group.output: group for group in find_fused(graph).values()} if multiply else {}
    for node in graph:
        onto = graph.onto.get(node.index, ())  # of a largest, those that are cleared before they are read do not count
        cleared = onto if node.layer.eltwise_param.operation == caffe_pb2.EltwiseParameter.MAX else ()
        read = [b for i, b in enumerate(node.bottoms) if not (cleared and cleared[i])]
        inputs = [known.get(blob, False) for blob in read]
        for top in node.tops:
            # What is fused is what Intel Caffe makes of it: a maximum is a sum, and a ReLU may be lost.
            fused = groups.get(top)
            is_so = _nonnegative(node, inputs, known, weights or {})
            known[top] = is_so if fused is None else fused.nonnegative
    return frozenset(blob for blob, is_so in known.items() if is_so)


def _nonnegative(node: Node, inputs: list[bool], known: Mapping[Blob, bool], weights: Weights) -> bool:
    layer = node.layer
    if node.type in _NEVER_NEGATIVE:
        return True
    if node.type == "ReLU":
        return layer.relu_param.negative_slope == 0.0 or inputs[0]
    if node.type in ("Convolution", "InnerProduct"):
        return own_relu(layer) == 0.0
    if node.type in _KEEP_FIRST or node.type == SHARED:
        return inputs[0]
    if node.type in _KEEP:
        return all(inputs)
    if node.type == "Normalize":  # SSD's, of conv4_3: its factors begin at 20 and stay far above zero
        blobs = weights.get(node.name)
        return inputs[0] and blobs is not None and all(bool((blob >= 0.0).all()) for blob in blobs)
    if node.type == "Eltwise":
        param = layer.eltwise_param
        if param.operation == caffe_pb2.EltwiseParameter.MAX:
            return any(inputs)
        return all(inputs) and all(c >= 0.0 for c in param.coeff)
    return False
