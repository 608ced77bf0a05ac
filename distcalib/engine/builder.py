"""A Caffe net, quantized or not, as an OpenVINO model that computes what Intel Caffe computes.

Nodes come out in net order; a fused group (convolution, BatchNorm, Scale, ReLU, Eltwise SUM, ReLU) is emitted whole
where its last layer stands. Where a value is stored as integers, a FakeQuantize rounds it: on the way into a
convolution, out of it, after an average pooling, and into a Concat whose inputs' scales differ. Everything between is
left to OpenVINO's fusion.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.data import DATA_TYPES, VARIES, makes_data
from distcalib.engine.arithmetic import NATIVE, Arithmetic, Integers
from distcalib.engine.finding import MAKES_REAL, Finding
from distcalib.engine.in_place import can_follow, sum_in_place
from distcalib.engine.shared_memory import is_lendable, lent
from distcalib.engine.unconverted import device_outputs, refuse_unconverted
from distcalib.errors import DistcalibError, UnsupportedError, WeightsError
from distcalib.layers import Blobs, Layer, convert, convolution, inner_product, quantized
from distcalib.layers.batch_norm import stored_blobs
from distcalib.layers.eltwise import eltwise_onto
from distcalib.layers.products import along_channels, product
from distcalib.layers.shapes import too_large, why_not
from distcalib.metrics import HOST_TYPES, SCORE_TYPES, check_shapes
from distcalib.quantize.fusion import Fused, find_fused, fold, in_run_order, reads_of
from distcalib.quantize.storage import Grid, Params, Reading, input_grid, params_of, runs_int8, storage

Array = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]
DETECTED = (1, 1, VARIES, 7)
"""The shape of what DetectionOutput makes."""


@dataclass(frozen=True)
class BuiltModel:
    """An ov.Model, the blob names of its parameters and results in order, and the values whose ranges it reports last.

    `multipliers` are the layers whose kernels are worth naming: the convolutions and inner products; `emulated`: no
    INT8 kernel is to run any of them; `values`: the node of each blob, and `stored` its grid, as far as build_model
    makes them. `tap_sizes`: how many pairs of ends each tap has. `watched`: the values of which the last result has the
    sum of |x|, (n_watched,) f32.
    """

    model: ov.Model
    inputs: tuple[str, ...]
    outputs: tuple[Blob, ...]
    taps: tuple[Blob, ...]
    multipliers: frozenset[str]
    emulated: bool
    values: Mapping[Blob, Output] = field(default_factory=dict)
    stored: Mapping[Blob, Grid] = field(default_factory=dict)
    watched: tuple[Blob, ...] = ()
    tap_sizes: tuple[int, ...] = ()


def build_model(
    graph: Graph,
    blobs: Blobs,
    shapes: Shapes,
    where: str,
    *,
    taps: Sequence[Blob] = (),
    by_channel: Collection[Blob] = (),
    watched: Sequence[Blob] = (),
    keep: Iterable[Blob] | None = None,
    given: Mapping[Blob, tuple[int, ...]] | None = None,
    arithmetic: Arithmetic = NATIVE,
) -> BuiltModel:
    """Convert `graph`; quantization_params in its layers decide what runs INT8, `arithmetic` how.

    `shapes` are those of the data layers' tops.  The results are `keep` (default: `device_outputs`), then, if there are
    `taps`, one f32 tensor (n_ends, 2) of the least and largest element of each, of those that are in `by_channel` one
    of each channel; then the sums of |x| of `watched`.
    With `given`, values with their shapes, a part of the net is made: what leads from these to the results; they go in,
    f32, under `str(blob)`.
    Raises UnsupportedError and WeightsError.
    """
    refuse_unconverted(graph, where)
    outputs = tuple(keep) if keep is not None else device_outputs(graph)
    builder = Builder(graph, blobs, shapes, where, arithmetic)
    if given is not None:
        builder.begin_at({blob: builder.parameter(str(blob), shape) for blob, shape in given.items()}, outputs)
    builder.run()
    results = [builder.found.made(blob) for blob in outputs]
    ends = [_ends(builder.found.made(blob), blob in by_channel) for blob in taps]
    if ends:
        results.append(ops.concat(ends, 0).output(0))
    if watched:
        sums = [sum_of(builder.found.made(blob)) for blob in watched]
        results.append(ops.concat([ops.reshape(one, [1], special_zero=False) for one in sums], 0).output(0))
    model = ov.Model([ops.result(r) for r in results], list(builder.parameters.values()), where)
    built = builder.built(model, outputs, taps)
    tap_sizes = tuple(int(one.get_shape()[0]) for one in ends)
    return replace(built, values=builder.values, stored=builder.stored, watched=tuple(watched), tap_sizes=tap_sizes)


def needed_for(
    graph: Graph, groups: Mapping[str, Fused], outputs: Iterable[Blob], given: Iterable[Blob] = ()
) -> frozenset[Blob]:
    """The values that must be computed for `outputs` where `given` are there already."""
    there, needed = set(given), set(outputs)
    needed -= there
    for node, group in reversed(list(in_run_order(graph, groups))):
        if not needed.isdisjoint(node.tops):
            needed.update(blob for blob in reads_of(node, group) if blob not in there)
    return frozenset(needed)


def layer_shapes(
    graph: Graph, blobs: Blobs, shapes: Shapes, where: str
) -> tuple[dict[Blob, tuple[int, ...]], list[DistcalibError]]:
    """The shape of every value as far as layers can be converted, and what each that cannot be says; for `inspect`."""
    builder = Builder(graph, blobs, shapes, where)
    builder.convert_all()
    value_shapes = {blob: tuple(int(d) for d in value.get_shape()) for blob, value in builder.values.items()}
    for group in builder.groups.values():  # all that is folded into a convolution keeps its shape
        if group.output in value_shapes:
            value_shapes.update((node.tops[0], value_shapes[group.output]) for node in group.members)
    value_shapes.update((top, ()) for node in graph if node.type in SCORE_TYPES for top in node.tops)
    value_shapes.update((top, DETECTED) for node in graph if node.type in HOST_TYPES - SCORE_TYPES for top in node.tops)
    known = {**{Blob(top, 0): shape for top, shape in shapes.items()}, **value_shapes}
    for node in graph:
        if node.type in HOST_TYPES:
            try:
                check_shapes(node.layer, [known.get(blob) for blob in node.bottoms])
            except UnsupportedError as problem:
                builder.problems.append(UnsupportedError(f"{where}: {problem}"))
    return value_shapes, builder.problems


class Builder:
    """Converts the layers of a net one after the other; `values` has what they made so far."""

    def __init__(self, graph: Graph, blobs: Blobs, shapes: Shapes, where: str, arithmetic: Arithmetic = NATIVE) -> None:
        self.graph, self.blobs, self.shapes, self.where = graph, blobs, shapes, where
        self.arithmetic, self.integers = arithmetic, Integers(arithmetic)
        self.groups = find_fused(graph)
        self.values: dict[Blob, Output] = {}
        self._store(params_of(graph))
        self.parameters: dict[str, ov.op.Parameter] = {}
        self.problems: list[DistcalibError] = []
        self.needed: frozenset[Blob] | None = None

    def _store(self, params: Params) -> None:
        self.params = params
        self.stored = storage(self.graph, self.groups, params)
        self.found = Finding(self.values, self.stored, self.integers)

    def in_fp32(self) -> None:
        """Leave the quantization_params out."""
        self._store({})

    def parameter(self, name: str, shape: Sequence[int]) -> Output:
        """An input of the model, f32."""
        if name not in self.parameters:
            self.parameters[name] = ops.parameter(list(shape), np.float32, name)
        return self.parameters[name].output(0)

    def begin_at(self, given: Mapping[Blob, Output], outputs: Iterable[Blob]) -> None:
        """Take the values `given`, real numbers, as they are and convert no more than `outputs` need then."""
        for blob, x in given.items():
            grid = self.stored.get(blob)
            self.values[blob] = x if grid is None else self.integers.take(x, grid)
        self.needed = needed_for(self.graph, self.groups, outputs, given)

    def built(self, model: ov.Model, outputs: Sequence[Blob], taps: Sequence[Blob] = ()) -> BuiltModel:
        """The model with what is in it."""
        names = frozenset(self.groups)
        return BuiltModel(model, tuple(self.parameters), tuple(outputs), tuple(taps), names, self.arithmetic.emulated)

    def run(self) -> None:
        """Convert all layers, or raise one error that names everything that cannot be converted."""
        self.convert_all()
        if self.problems:
            kinds = {type(problem) for problem in self.problems}
            kind = kinds.pop() if len(kinds) == 1 else UnsupportedError
            raise kind("; ".join(dict.fromkeys(map(str, self.problems))))

    def convert_all(self) -> None:
        """Convert what can be converted; `problems` says what cannot, but for what only depends on it."""
        for node, group in in_run_order(self.graph, self.groups):
            if node.type in HOST_TYPES or (self.needed is not None and self.needed.isdisjoint(node.tops)):
                continue
            if node.type in DATA_TYPES or (
                makes_data(node.layer) and all(top in self.shapes for top in node.layer.top)
            ):
                self._data(node)
                continue
            if any(blob not in self.values for blob in reads_of(node, group)):
                continue
            try:
                self._step(node, group)
            except (UnsupportedError, WeightsError) as problem:
                self.problems.append(problem)
            except Exception as error:
                bottoms = [self.values[blob] for blob in reads_of(node, group) if blob in self.values]
                self._cannot(node if group is None else group.node, why_not(error, bottoms))
            else:
                if (large := too_large(self.values.get(top) for top in node.tops)) is not None:
                    self._cannot(node if group is None else group.node, large)
                    self.values = {blob: value for blob, value in self.values.items() if blob not in node.tops}

    def _step(self, node: Node, group: Fused | None) -> None:
        """Convert a layer, or all that is fused into one."""
        if group is None:
            self._plain(node)
        else:
            self.values[node.tops[0]] = self._group(group)

    def _cannot(self, node: Node, reason: str) -> None:
        self.problems.append(UnsupportedError(f"{self.where}: layer '{node.name}' ({node.type}): {reason}"))

    def _data(self, node: Node) -> None:
        for blob in node.tops:
            # A Silence needs nothing: labels that it reads do not go in.
            readers = [n for n in self.graph.consumers.get(blob, ()) if n.type not in HOST_TYPES and n.tops]
            if readers and VARIES in self.shapes[blob.name]:
                self.problems.append(
                    UnsupportedError(
                        f"{self.where}: layer '{readers[0].name}' ({readers[0].type}): reads '{blob.name}', whose size "
                        "differs from iteration to iteration; only DetectionEvaluate and EvalDetection read boxes"
                    )
                )
            elif readers:
                self.values[blob] = self.parameter(blob.name, self.shapes[blob.name])

    def _plain(self, node: Node) -> None:
        layer = Layer(node.layer, self.blobs, self.where)
        grid = self.stored.get(node.tops[0]) if node.tops else None
        inputs = self.found.inputs(node)
        if node.type == "Eltwise" and grid is not None:
            coefficients = list(node.layer.eltwise_param.coeff) or [1.0] * len(inputs)
            tops: tuple[Output, ...] = (self.found.added(inputs, coefficients, grid),)
        elif node.index in self.graph.onto:
            tops = (eltwise_onto(layer, self.graph.onto[node.index], *inputs),)
        else:
            tops = convert(layer, inputs)
        if grid is not None and _makes_fractions(node):
            tops = tuple(self.integers.between(top, grid) for top in tops)
        elif grid is not None and node.type in MAKES_REAL:
            tops = tuple(self.integers.take(top, grid) for top in tops)
        for blob, value in zip(node.tops, tops, strict=True):
            self.values[blob] = value

    def _group(self, group: Fused) -> Output:
        layer = Layer(group.node.layer, self.blobs, self.where)
        param = self.params[group.name] if runs_int8(group, self.params, self.stored) else None
        grid = self.stored.get(group.output)
        source, *residual = self.found.readings(group.node.index, reads_of(group.node, group))
        weight, bias = fold(group, self._group_blobs(group, layer))
        # A ReLU follows at once, or behind the sum that is fused.
        at_once = None if residual else group.slope
        if param is None:
            x = self.found.real(source)
            if group.name in self.stored.run.in_place and can_follow(layer, x):
                return sum_in_place(layer, x, weight, bias, group.slope)
            y = quantized.relu(self._multiply(layer, x, weight, bias), at_once)
        else:
            y = self.integers.multiply(layer, self._int8_input(source, param), weight, bias, param, grid, at_once)
        if residual:
            y = quantized.relu(self._plus_residual(group, y, residual[0], grid), group.slope)
        y = _times(y, self.stored.run.gains.get(group.name, 1.0))
        return y if grid is None else self.integers.store(y, grid)

    def _plus_residual(self, group: Fused, y: Output, residual: Reading, grid: Grid | None) -> Output:
        """What the product becomes in the memory of its residual."""
        of_residual, of_product = group.coefficients if runs_int8(group, self.params, self.stored) else (1.0, 1.0)
        y = _times(y, of_product)
        if group.name in self.stored.run.dropped:
            return y
        if grid is None or residual.grid is None:
            return ops.add(y, _times(self.found.real(residual), of_residual)).output(0)
        value, form = self.found.grid_form(residual)
        return self.integers.plus(y, _times(value, of_residual), form, grid)

    def _int8_input(self, source: Reading, param: caffe_pb2.QuantizationParameter) -> Output:
        grid = input_grid(param)
        if param.force_u8_input:
            real = self.found.real(source)
            return self.integers.take(real, Grid(grid.scale, signed=False), unit=1.0 / grid.scale)
        return self.found.on_grid(source, grid)

    def _multiply(self, layer: Layer, x: Output, weight: Array, bias: Array) -> Output:
        """x times the folded weights, plus bias."""
        y = product(layer, x, _fp32_weights(weight))
        y.get_node().set_friendly_name(layer.name)
        if not np.any(bias):
            return y
        return ops.add(y, ops.constant(along_channels(layer, bias, len(y.get_shape())))).output(0)

    def _group_blobs(self, group: Fused, layer: Layer) -> dict[str, tuple[Array, ...]]:
        """The group's blobs in the shapes that the net asks for."""
        x_shape = self.values[group.input].get_shape()
        if layer.type == "InnerProduct":
            shape: tuple[int, ...] = inner_product.weight_shape(
                layer, inner_product.split_axis(layer, self.values[group.input])[1]
            )
            has_bias, n_out = layer.proto.inner_product_param.bias_term, layer.proto.inner_product_param.num_output
        else:
            rank = len(x_shape)
            layer.require(rank in (3, 4, 5), f"its input has {rank} dimensions; 3 to 5, (N, C, ...), are converted")
            layer.require(
                rank == 4 or group.name not in self.params,
                f"its input has {rank} dimensions, and INT8 is for images, of 4; keep it in FP32 (--keep-fp32)",
            )
            shape = convolution.weight_shape(layer, int(x_shape[1]), rank - 2)
            has_bias, n_out = layer.proto.convolution_param.bias_term, layer.proto.convolution_param.num_output
        layer.expect_blobs(2 if has_bias else 1)
        blobs = {layer.name: tuple(layer.blob(i, s) for i, s in enumerate([shape, (n_out,)][: 2 if has_bias else 1]))}
        if group.batch_norm is not None:
            bn = Layer(group.batch_norm.layer, self.blobs, self.where)
            blobs[bn.name] = stored_blobs(bn, n_out)
        if group.scale is not None:
            scale = Layer(group.scale.layer, self.blobs, self.where)
            n_blobs = 2 if scale.proto.scale_param.bias_term else 1
            blobs[scale.name] = tuple(scale.blob(i, (n_out,)) for i in range(n_blobs))
        return blobs


def _fp32_weights(weight: Array) -> Output:
    """W (M, ...) as a graph node, used where it lies if it can be: in the object store, shared by a node's actors."""
    if is_lendable(weight):
        return ops.constant(lent(weight), shared_memory=True).output(0)
    return ops.constant(weight).output(0)


def _times(x: Output, factor: float) -> Output:
    return x if factor == 1.0 else ops.multiply(x, np.float32(factor)).output(0)


def _makes_fractions(node: Node) -> bool:
    """Whether a layer that keeps its input's grid makes values between the steps: then they are rounded back to it."""
    if node.type == "Pooling":
        return bool(node.layer.pooling_param.pool == caffe_pb2.PoolingParameter.AVE)
    return node.type == "ReLU" and node.layer.relu_param.negative_slope != 0.0


def sum_of(x: Output) -> Output:
    """The sum of |x|: NaN or infinite if one of the values is, or if there are too many large ones."""
    return ops.reduce_l1(x, np.arange(len(x.get_shape()), dtype=np.int64)).output(0)


def _ends(value: Output, by_channel: bool) -> Output:
    """Least and largest element of a value, (1, 2) f32, or of each of its channels, (C, 2)."""
    axes = np.array([axis for axis in range(len(value.get_shape())) if axis != 1 or not by_channel], np.int64)
    pair = [
        ops.reshape(reduce(value, axes), np.array([-1, 1], np.int64), special_zero=False).output(0)
        for reduce in (ops.reduce_min, ops.reduce_max)
    ]
    return ops.concat(pair, 1).output(0)
