"""Where Intel Caffe itself computes something else than the graph or the file says: reported here, and predicted so.

Source: docs/intel-caffe-files.md, and the nets recorded from a real Intel Caffe; that a
BatchNorm is folded into weights that others share is read in remove_batch_norm.cpp and was not measured.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from distcalib.caffe import Weights, caffe_pb2, shared_params
from distcalib.caffe.graph import Graph
from distcalib.quantize.fusion import Fused, fold, in_run_order, reads_of
from distcalib.quantize.mending import troubles
from distcalib.quantize.signs import nonnegative_blobs
from distcalib.quantize.storage import INT8, Params, Storage, input_grid, runs_int8

_SHAPE_ONLY = frozenset({"PriorBox", "Silence"})
Fault = tuple[int, str]
"""A layer's index in the net, and the sentence."""


def intel_faults(
    graph: Graph,
    groups: Mapping[str, Fused],
    stored: Storage,
    params: Params,
    weights: Weights | None = None,
) -> list[str]:
    """A sentence for each layer whose result will differ in Intel Caffe from what the prototxt says, or that it cannot
    run, in net order; `stored` as storage() tells.

    `weights` must fit the net; without them, what depends on their values is not reported.
    """
    faults = [(one.index, str(one)) for one in troubles(graph, groups, params)]
    faults += [*_rounded(graph, groups, stored, params), *_concats(graph, stored)]
    faults += _shared(graph, groups)
    nonnegative = nonnegative_blobs(graph, weights)
    for group in groups.values():
        int8 = runs_int8(group, params, stored)
        faults += _fused(group)
        if int8:
            negative = group.input not in nonnegative
            faults += _file(group, params[group.name], stored, negative, weights)
    return list(dict.fromkeys(said for _, said in sorted(faults, key=lambda fault: fault[0])))


def _fused(group: Fused) -> Iterator[Fault]:
    """ReLUs that are lost in what is fused."""
    at, where = group.node.index, f"layer '{group.name}' ({group.node.type})"
    if group.batch_norm is not None and group.batch_norm.layer.batch_norm_param.relu:
        yield (
            group.batch_norm.index,
            f"layer '{group.batch_norm.name}' (BatchNorm): its relu: true is lost, for '{group.name}' takes it",
        )
    if group.batch_norm is not None and group.node.layer.convolution_param.relu:
        yield at, f"{where}: its relu: true comes behind BatchNorm '{group.batch_norm.name}', which is folded into it"


def _rounded(graph: Graph, groups: Mapping[str, Fused], stored: Storage, params: Params) -> Iterator[Fault]:
    """Layers that find integers where an INT8 layer in front has read FP32."""
    for node, group in in_run_order(graph, groups):
        if node.type in _SHAPE_ONLY:
            continue
        own = None
        at = node if group is None else group.node
        if group is not None and runs_int8(group, params, stored):
            own = input_grid(params[group.name])
        for i, reading in enumerate(stored.run.reads.get(at.index, ())[: len(reads_of(node, group))]):
            grid = reading.rounded[-1] if reading.rounded else None
            if grid is None or (i == 0 and own is not None and (grid == own or params[at.name].force_u8_input)):
                continue
            yield (
                at.index,
                f"layer '{at.name}' ({at.type}): finds '{reading.blob.name}' rounded to {grid}, for an INT8 layer in "
                "front of it reads it first; let it stand in front of that",
            )


def _concats(graph: Graph, stored: Storage) -> Iterator[Fault]:
    for index, scale in stored.run.concat_scales.items():
        yield (
            index,
            f"layer '{graph.layer(index).name}' (Concat): takes inputs of scale 1 for ones of the common scale "
            f"{scale:g}; choose another scale_out than 1",
        )


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
    stored: Storage,
    negative: bool,
    weights: Weights | None,
) -> Iterator[Fault]:
    """What Intel Caffe makes of a quantization_param other than its writer meant; `negative`: its input can be."""
    where = f"layer '{group.name}' ({group.node.type})"
    summed_int8 = group.residual is not None and group.output in stored
    if summed_int8 and param.bw_layer_out != INT8:
        yield (
            group.node.index,
            f"{where}: bw_layer_out {param.bw_layer_out} is ignored on a sum with an INT8 residual; its sums are "
            f"stored as integers at scale_out {param.scale_out[0]:g}",
        )
    kept = stored.get(group.output)
    if kept is not None and not kept.signed and not group.nonnegative:
        as_what = f"as its residual '{group.residual.name}' is" if group.residual is not None else "for it has a ReLU"
        what = "sum" if group.residual is not None else "output"
        yield (
            group.node.index,
            f"{where}: its {what} can be negative but is stored u8, {as_what}; negative values become 0",
        )
    if group.name in stored.run.gains:
        yield (
            group.node.index,
            f"{where}: has FP32 output and scale_out {param.scale_out[0]:g}, by which Intel Caffe multiplies it; "
            "write 1",
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
