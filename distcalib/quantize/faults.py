"""Where Intel Caffe itself computes something else than the graph or the file says: told, not imitated.

Source: intel-caffe.md, "Graph rewrites before running" and "INT8 arithmetic"; that it sums whatever Eltwise stands
behind a convolution, and folds a BatchNorm into weights that others share, is read in net.cpp and remove_batch_norm.cpp
and was not measured.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from distcalib.caffe import Weights, caffe_pb2, shared_params
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.quantize.fusion import Fused, fold
from distcalib.quantize.signs import nonnegative_blobs
from distcalib.quantize.storage import INT8, Grid, Params, runs_int8

_SUM = caffe_pb2.EltwiseParameter.SUM
Fault = tuple[int, str]
"""A layer's index in the net, and the sentence."""


def intel_faults(
    graph: Graph,
    groups: Mapping[str, Fused],
    stored: Mapping[Blob, Grid],
    params: Params,
    weights: Weights | None = None,
) -> list[str]:
    """A sentence for each layer whose result will differ in Intel Caffe, in net order; `stored` as storage() tells.

    `weights` must fit the net; without them, what depends on their values is not told.
    """
    found = [*_sums(graph, groups), *_eltwises(graph, groups, stored), *_shared(graph, groups)]
    nonnegative = nonnegative_blobs(graph, weights)
    for group in groups.values():
        if runs_int8(group, params, stored):
            negative = group.input not in nonnegative
            found += _file(group, params[group.name], stored, negative, weights)
    return [said for _, said in sorted(found, key=lambda fault: fault[0])]


def _sums(graph: Graph, groups: Mapping[str, Fused]) -> Iterator[Fault]:
    for group in groups.values():
        if group.residual is not None and group.residual == group.input and group.eltwise is not None:
            yield (
                group.eltwise.index,
                f"layer '{group.eltwise.name}' (Eltwise): adds '{group.name}' to that convolution's own input, which "
                "Intel Caffe overwrites while it is still read; its sums will differ there",
            )


def _eltwises(graph: Graph, groups: Mapping[str, Fused], stored: Mapping[Blob, Grid]) -> Iterator[Fault]:
    fused = {group.eltwise.index for group in groups.values() if group.eltwise is not None}
    by_output = {group.output: group for group in groups.values() if group.node.type == "Convolution"}
    for node in graph:
        if node.type != "Eltwise" or node.index in fused:
            continue
        late = [by_output[blob] for blob in node.bottoms if blob in by_output]
        alone = [group for group in late if graph.only_consumer(group.output) is node]
        behind_relu = [group.name for group in alone if group.relu is not None]
        next_to_it = [group.name for group in alone if group.last.index == node.index - 1]
        signs = [stored[blob].signed for blob in node.bottoms if blob in stored]
        if _is_plain_sum(node):
            if behind_relu:
                yield (
                    node.index,
                    f"layer '{node.name}' (Eltwise): follows convolution '{behind_relu[-1]}' and its ReLU, which Intel "
                    "Caffe computes as ReLU(convolution + other input); its sums will differ there",
                )
                continue
        elif next_to_it and (node.layer.eltwise_param.operation != _SUM or len(node.bottoms) != 2):
            yield (
                node.index,
                f"layer '{node.name}' (Eltwise): stands right behind convolution '{next_to_it[-1]}', and Intel Caffe "
                "takes that for a plain sum of two whatever it says; its result will be wrong there",
            )
            continue
        if len(signs) > len(set(signs)):
            yield (
                node.index,
                f"layer '{node.name}' (Eltwise): has two INT8 inputs of one type, which Intel Caffe adds at scale 1.0; "
                "its result will be wrong there",
            )


def _is_plain_sum(node: Node) -> bool:
    param = node.layer.eltwise_param
    two = len(node.bottoms) == 2 and all(c == 1.0 for c in param.coeff)
    return two and param.operation == _SUM


def _shared(graph: Graph, groups: Mapping[str, Fused]) -> Iterator[Fault]:
    """Layers that share weights, of which one has a BatchNorm: it is folded into the blob of all of them."""
    shared = shared_params([node.layer for node in graph])
    sharing: dict[str, list[Fused]] = {}
    for group in groups.values():
        place = group.name, 0
        if place in shared:
            sharing.setdefault(shared[place].param, []).append(group)
    for param, users in sharing.items():
        folding = [group for group in users if group.batch_norm is not None]
        if folding and len(users) > 1:
            others = ", ".join(f"'{group.name}'" for group in users if group is not folding[-1])
            yield (
                folding[-1].node.index,
                f"layer '{folding[-1].name}' (Convolution): Intel Caffe folds the BatchNorm behind it into its "
                f"weights, which {others} shares (param '{param}'); give each layer weights of its own",
            )


def _file(
    group: Fused,
    param: caffe_pb2.QuantizationParameter,
    stored: Mapping[Blob, Grid],
    negative: bool,
    weights: Weights | None,
) -> Iterator[Fault]:
    """What Intel Caffe makes of a quantization_param other than its writer meant; `negative`: its input can be."""
    where = f"layer '{group.name}' ({group.node.type})"
    if group.residual is not None and param.bw_layer_out != INT8:
        yield (
            group.node.index,
            f"{where}: bw_layer_out {param.bw_layer_out} is ignored on a sum with an INT8 residual; its sums are "
            f"stored as integers at scale_out {param.scale_out[0]:g}",
        )
    if group.residual is not None and not stored[group.residual].signed and not group.nonnegative:
        yield (
            group.node.index,
            f"{where}: its sum can be negative but is stored u8, as its residual '{group.residual.name}' is; "
            "negative sums become 0",
        )
    source = stored.get(group.input)
    if negative and source is not None and source.signed and not param.is_negative_input and not param.force_u8_input:
        yield (
            group.node.index,
            f"{where}: reads '{group.input.name}', stored s8, without is_negative_input; negative values become 0",
        )
    if weights is not None and 0.0 in param.scale_params:
        _, bias = fold(group, weights)
        zero = np.broadcast_to(np.asarray(param.scale_params) == 0.0, bias.shape) & (bias != 0.0)
        if zero.any():
            n_zero = int(zero.sum())
            yield (
                group.node.index,
                f"{where}: scale_params is 0 in {n_zero} channel{'s' if n_zero > 1 else ''} with a bias, which Intel "
                "Caffe rounds to a whole number there",
            )
