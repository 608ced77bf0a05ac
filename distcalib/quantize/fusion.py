"""What Intel Caffe folds into a convolution before it runs it, found in the graph.

In TEST, Intel Caffe's MKLDNN engine folds BatchNorm + Scale into the convolution, fuses a ReLU that follows, and
adds the other input of an Eltwise that stands right behind it (and the ReLU after that). Scales, ranges and storage
types of a quantization_param are those of the fused operation, so calibration and engine must agree on it: both read it
here. Which layers those are is what Caffe's own rules make of the prototxt (caffe/compiling.py), right or wrong: a
maximum becomes a sum, `conv -> ReLU -> Eltwise` relu(conv + residual); faults.py tells of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Node, Run
from distcalib.caffe.steps import runs_on_caffe
from distcalib.errors import UnsupportedError

QUANTIZABLE = ("Convolution", "InnerProduct")


@dataclass(frozen=True)
class Fused:
    """A Convolution or InnerProduct with the layers that run inside it; `output` is the value that the last of them
    makes.
    """

    node: Node
    batch_norm: Node | None
    scale: Node | None
    relu: Node | None
    eltwise: Node | None
    residual: Blob | None
    sum_relu: Node | None

    @property
    def name(self) -> str:
        """Name of the convolution, which carries the quantization_param."""
        return self.node.name

    @property
    def input(self) -> Blob:
        """The value that the convolution multiplies."""
        return self.node.bottoms[0]

    @property
    def members(self) -> tuple[Node, ...]:
        """All layers of the group, in the order in which they run."""
        group = (self.node, self.batch_norm, self.scale, self.relu, self.eltwise, self.sum_relu)
        return tuple(node for node in group if node is not None)

    @property
    def last(self) -> Node:
        """The layer whose top is the group's output."""
        return self.members[-1]

    @property
    def output(self) -> Blob:
        """The group's value: after ReLU, after the sum and its ReLU."""
        return self.last.tops[0]

    @property
    def slope(self) -> float | None:
        """Negative slope of the ReLU that makes the output; None where there is none.

        There is one at most, at the end: behind a sum a ReLU that the convolution has already is moved there, and one
        that follows is plain whatever its slope (golden c14, c17).
        """
        if runs_on_caffe(self.node.layer):  # Caffe's own engine knows no fused ReLU
            return None
        if self.relu is not None:
            return float(self.relu.layer.relu_param.negative_slope)
        own = own_relu(self.node.layer)
        if own is None and self.sum_relu is not None:
            return float(self.node.layer.convolution_param.negative_slope)
        return own

    @property
    def coefficients(self) -> tuple[float, float]:
        """What INT8 multiplies the residual and the product by; FP32 ignores it (golden c12, c13)."""
        coeff = [] if self.eltwise is None else list(self.eltwise.layer.eltwise_param.coeff)
        return (coeff[0], coeff[1]) if len(coeff) == 2 else (1.0, 1.0)

    @property
    def nonnegative(self) -> bool:
        """Whether a ReLU of slope 0 makes the output."""
        return self.slope == 0.0


def own_relu(layer: caffe_pb2.LayerParameter) -> float | None:
    """Slope of the ReLU that the layer's own parameters ask for (Intel's `relu: true`), or None.

    Caffe's own engine does not do it.
    """
    if runs_on_caffe(layer):
        return None
    param = layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param
    return float(param.negative_slope) if param.relu else None


def find_fused(graph: Graph) -> dict[str, Fused]:
    """Fused groups by the name of their convolution, in net order; every layer is in one group at most.

    Raises UnsupportedError for convolutions of several bottoms, which Caffe runs one by one with the same weights.
    """
    wrong = [
        f"layer '{node.name}' ({node.type}): has {len(node.bottoms)} bottoms and {len(node.tops)} tops; "
        "one of each is converted"
        for node in graph
        if node.type in QUANTIZABLE and (len(node.bottoms), len(node.tops)) != (1, 1)
    ]
    if wrong:
        raise UnsupportedError("; ".join(wrong))
    runs = {run.step.parts["layer"]: run for run in graph.runs if "layer" in run.step.parts}
    return {node.name: _group(graph, node, runs.get(node.index)) for node in graph if node.type in QUANTIZABLE}


def in_run_order(graph: Graph, groups: Mapping[str, Fused]) -> Iterator[tuple[Node, Fused | None]]:
    """Each layer with None, in net order; of a fused group its last layer alone, with the group, which runs there."""
    last = {group.last.index: group for group in groups.values()}
    inside = {node.index for group in groups.values() for node in group.members}
    for node in graph:
        if node.index in last:
            yield node, last[node.index]
        elif node.index not in inside:
            yield node, None


def reads_of(node: Node, group: Fused | None) -> tuple[Blob, ...]:
    """What a layer, or the fused group that runs at it, reads."""
    if group is None:
        return node.bottoms
    return (group.input,) if group.residual is None else (group.input, group.residual)


def _group(graph: Graph, node: Node, run: Run | None) -> Fused:
    """The group of the convolution `node`; without what cannot be computed: there Intel Caffe does not load the net."""
    if run is None:
        return Fused(node, None, None, None, None, None, None)
    parts = {role: graph.layer(index) for role, index in run.step.parts.items()}
    scale = parts.get("scale")
    if scale is not None and not _per_channel(scale):
        return Fused(node, parts["batch_norm"], None, None, None, None, None)
    residual = run.reads[1] if run.step.summed else None
    summed = residual is not None
    return Fused(
        node,
        parts.get("batch_norm"),
        scale,
        parts.get("relu"),
        parts["eltwise"] if summed else None,
        residual,
        parts.get("sum_relu") if summed else None,
    )


def _per_channel(node: Node) -> bool:
    param = node.layer.scale_param
    limited = param.HasField("min_value") or param.HasField("max_value")
    return len(node.bottoms) == 1 and param.axis in (1, -3) and param.num_axes == 1 and not limited


def uses_global_stats(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether a BatchNorm normalizes by its stored statistics: the default in TEST."""
    param = layer.batch_norm_param
    return bool(param.use_global_stats) if param.HasField("use_global_stats") else True


Array = NDArray[np.float32]


def batch_norm_affine(
    layer: caffe_pb2.LayerParameter, blobs: tuple[Array, ...], unset: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A BatchNorm by stored statistics as y = a·x + c, both (C,) f64.

    a = gamma/sqrt(var + eps), c = beta - a·mean, with mean and var divided by the moving-average factor of blob 2, or
    multiplied by `unset` if it is 0 (left alone if there is none); with `add_eps_before_sqrt: false` eps is added to
    the root (synopsys-caffe, batch_norm_layer.cpp).  gamma and beta are blobs 3 and 4 where Intel Caffe
    merged a Scale into the layer.
    """
    mean, variance = (np.asarray(b, np.float64).reshape(-1) for b in blobs[:2])
    factor = float(np.asarray(blobs[2]).reshape(-1)[0]) if len(blobs) > 2 else 1.0
    by = unset if factor == 0.0 else 1.0 / factor
    eps, variance = np.float64(layer.batch_norm_param.eps), variance * by
    with np.errstate(invalid="ignore", divide="ignore"):  # refused by who reads the weights
        before = layer.batch_norm_param.add_eps_before_sqrt
        a = 1.0 / (np.sqrt(variance + eps) if before else np.sqrt(variance) + eps)
    if len(blobs) > 3:
        a = a * np.asarray(blobs[3], np.float64).reshape(-1)
    c = -a * mean * by
    if len(blobs) > 4:
        c = c + np.asarray(blobs[4], np.float64).reshape(-1)
    return a, c


def rows_first(layer: caffe_pb2.LayerParameter, weight: Array) -> Array:
    """W with its M output channels first, from any stored form: legacy (1, 1, M, K) and transposed (K, M)
    InnerProducts too.
    """
    if layer.type == "Convolution":
        n_out = layer.convolution_param.num_output
        # another layer's shape comes with blobs that are shared PERMISSIVE
        return weight if len(weight) == n_out else weight.reshape(n_out, -1)
    n_out = layer.inner_product_param.num_output
    if layer.inner_product_param.transpose:
        return np.ascontiguousarray(weight.reshape(-1, n_out).T)
    return weight.reshape(n_out, -1)


def fold(fused: Fused, blobs: Mapping[str, tuple[Array, ...]]) -> tuple[Array, Array]:
    """Weights and bias of the group with BatchNorm and Scale folded in.

    `blobs` holds the caffemodel's blobs of the group's layers.  Returns W f32 as stored, output channels first
    (M, C/group, KH, KW) or (M, K), and b (M,) f32, zeros where the layer has none.
    """
    own = blobs[fused.name]
    weight = rows_first(fused.node.layer, np.asarray(own[0], np.float32))
    n_out = weight.shape[0]
    bias = np.asarray(own[1], np.float32).reshape(-1) if len(own) > 1 else np.zeros(n_out, np.float32)
    if fused.batch_norm is None:
        return weight, bias
    a, c = affine(fused, blobs)
    folded = weight.astype(np.float64) * a.reshape(-1, *[1] * (weight.ndim - 1))
    return folded.astype(np.float32), (bias * a + c).astype(np.float32)


def affine(fused: Fused, blobs: Mapping[str, tuple[Array, ...]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What BatchNorm and Scale do to the convolution's output, as y = a·x + c, both (M,) f64; 1 and 0 without them."""
    if fused.batch_norm is None:
        n_out = fused.node.layer.convolution_param.num_output
        return np.ones(n_out), np.zeros(n_out)
    # A factor of 0 counts as 1 where the layer is folded (golden e19), and as 0 where it is not (e44).
    a, c = batch_norm_affine(fused.batch_norm.layer, blobs[fused.batch_norm.name], unset=1.0)
    if fused.scale is not None:
        scale_blobs = blobs[fused.scale.name]
        gamma = np.asarray(scale_blobs[0], np.float64).reshape(-1)
        a, c = a * gamma, c * gamma
        if len(scale_blobs) > 1:
            c = c + np.asarray(scale_blobs[1], np.float64).reshape(-1)
    return a, c
