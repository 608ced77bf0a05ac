"""OpenVINO's operators in ONNX: one table, for what engine/builder.py and the converters in layers/ use.

Two operators of the same name often differ in where they have their axes, as an input or as an attribute, and in what
they do about padding; each function says what it counts on. An operator that is not in the table is refused by name.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto
from openvino import Node, Output

from distcalib.errors import UnsupportedError
from distcalib.exporters.folding import folded
from distcalib.exporters.onnx_detection import detection_output, non_max_suppression
from distcalib.exporters.onnx_forks import masked_pool, mvn, scatter
from distcalib.exporters.onnx_integers import integer_layer, integer_sums, write_integer_layer, write_quantized
from distcalib.exporters.onnx_rois import psroi_pooling
from distcalib.exporters.onnx_writer import Stored, Writer, onnx_type

Translate = Callable[[Writer, Node], None]


def translate(writer: Writer, node: Node) -> None:
    """Write `node` with what it reads there already.  Raises UnsupportedError."""
    kind = node.get_type_name()
    if kind not in TABLE:
        raise UnsupportedError(
            f"layer '{node.get_friendly_name()}': ONNX has no operator for OpenVINO's {kind}; export to openvino"
        )
    TABLE[kind](writer, node)


def _plain(kind: str, **attributes: Any) -> Translate:
    """The same inputs, and an operator of another name at the most."""

    def write(writer: Writer, node: Node) -> None:
        inputs = [writer.value(source) for source in node.input_values()]
        writer.put(node.output(0), writer.one(kind, inputs, node.get_friendly_name(), **attributes))

    return write


def _moved(writer: Writer, node: Node, data: int, kind: str, rest: list[str], n: int = 1, **attributes: Any) -> None:
    """An operator that moves its first `data` inputs and computes nothing: integers stay integers."""
    stored = [writer.stored(source) for source in node.input_values()[:data]]
    quantized = [one for one in stored if one is not None]
    name = node.get_friendly_name()
    if len(quantized) == len(stored) and len({one.zero_point for one in quantized}) == 1:
        made = writer.emit(kind, [*(one.name for one in quantized), *rest], f"{name}/q", n, **attributes)
        for output, tensor in zip(node.outputs()[:n], made, strict=True):
            writer.put_stored(output, Stored(tensor, quantized[0].zero_point))
        return
    inputs = [writer.value(source) for source in node.input_values()[:data]]
    for output, tensor in zip(
        node.outputs()[:n], writer.emit(kind, [*inputs, *rest], name, n, **attributes), strict=True
    ):
        writer.put(output, tensor)


def _ints(output: Output) -> list[int]:
    array = folded(output)
    assert array is not None, "the engine has axes and shapes as constants"
    return [int(value) for value in array.reshape(-1)]


def convolution_attributes(node: Node) -> dict[str, Any]:
    """Of a Convolution or GroupConvolution in OpenVINO what Conv and ConvInteger take; none of a MatMul."""
    kind = node.get_type_name()
    if kind == "MatMul":
        return {}
    a = node.get_attributes()
    shape = list(node.input_value(1).get_shape())
    grouped = kind.startswith("Group")
    return {
        "group": int(shape[0]) if grouped else 1,
        "kernel_shape": [int(n) for n in shape[3 if grouped else 2 :]],
        "strides": list(a["strides"]),
        "dilations": list(a["dilations"]),
        "pads": [*a["pads_begin"], *a["pads_end"]],
    }


def _convolution(writer: Writer, node: Node) -> None:
    layer = integer_layer(node)
    attributes = convolution_attributes(node)
    if layer is not None and write_integer_layer(writer, layer, attributes):
        return
    weight, name = folded(node.input_value(1)), node.get_friendly_name()
    assert weight is not None, "weights are constants"
    if weight.ndim == 5:
        weight = weight.reshape(-1, *weight.shape[2:])
    inputs = [writer.value(node.input_value(0)), writer.constant(weight, f"{name}/weight")]
    writer.put(node.output(0), writer.one("Conv", inputs, name, **attributes))


def _deconvolution(writer: Writer, node: Node) -> None:
    """W (C, M/group, KH, KW) in both; OpenVINO has a group in front."""
    weight, name = folded(node.input_value(1)), node.get_friendly_name()
    assert weight is not None, "weights are constants"
    attributes = convolution_attributes(node)
    if weight.ndim == 5:
        weight = weight.reshape(-1, *weight.shape[2:])
    inputs = [writer.value(node.input_value(0)), writer.constant(weight, f"{name}/weight")]
    writer.put(node.output(0), writer.one("ConvTranspose", inputs, name, **attributes))


def _matmul(writer: Writer, node: Node) -> None:
    layer = integer_layer(node)
    if layer is not None and write_integer_layer(writer, layer, {}):
        return
    a, name = node.get_attributes(), node.get_friendly_name()
    weight = folded(node.input_value(1))
    assert weight is not None, "weights are constants"
    assert not a["transpose_a"], "the engine transposes weights alone"
    if a["transpose_b"]:
        weight = np.ascontiguousarray(weight.T)
    inputs = [writer.value(node.input_value(0)), writer.constant(weight, f"{name}/weight")]
    writer.put(node.output(0), writer.one("MatMul", inputs, name))


def _multiply(writer: Writer, node: Node) -> None:
    """Integers times a number are a DequantizeLinear with a scale of its own."""
    stored, factor = writer.stored(node.input_value(0)), folded(node.input_value(1))
    if factor is not None and factor.size == 1 and factor.item() == 1.0 and factor.ndim <= 1:
        writer.same(node.output(0), node.input_value(0))
        return
    rounds_again = [t.get_node().get_type_name() for t in node.output(0).get_target_inputs()] == ["Round"]
    # Two pairs of scales in a row are taken for one by ONNX Runtime, which rounds once then: that stays a product.
    if stored is not None and factor is not None and factor.size == 1 and factor.item() > 0.0 and not rounds_again:
        scaled = writer.dequantized(stored, np.float32(factor.item()), node.get_friendly_name())
        writer.put(node.output(0), scaled)
    elif folded(node.output(0)) is None:
        _plain("Mul")(writer, node)


def _round(writer: Writer, node: Node) -> None:
    """To even in both; sums of integers are whole already, and only OpenVINO needs to be told so."""
    if integer_sums(node.input_value(0)) is not None:
        writer.put(node.output(0), writer.value(node.input_value(0)))
        return
    assert node.get_attributes()["mode"] == "half_to_even", "the engine rounds ties to even"
    _plain("Round")(writer, node)


def _relu(writer: Writer, node: Node) -> None:
    stored = writer.stored(node.input_value(0))
    if stored is not None and stored.zero_point == 0:
        writer.put_stored(node.output(0), stored)
    else:
        _plain("Relu")(writer, node)


def _prelu(writer: Writer, node: Node) -> None:
    """A slope (C,) lies along axis 1 in OpenVINO, along the last in ONNX."""
    slope = folded(node.input_value(1))
    assert slope is not None, "slopes are constants"
    rank = len(node.input_value(0).get_partial_shape())
    laid = slope.reshape(-1, *[1] * (rank - 2)) if slope.size > 1 else slope.reshape([1] * rank)
    inputs = [writer.value(node.input_value(0)), writer.constant(laid, f"{node.get_friendly_name()}/slope")]
    writer.put(node.output(0), writer.one("PRelu", inputs, node.get_friendly_name()))


def _clamp(writer: Writer, node: Node) -> None:
    a, stored = node.get_attributes(), writer.stored(node.input_value(0))
    if stored is not None and a["min"] <= -stored.zero_point and a["max"] >= 255 - stored.zero_point:
        writer.same(node.output(0), node.input_value(0))
        return
    ends = [writer.constant(np.float32(a[key]), key) for key in ("min", "max")]
    inputs = [writer.value(node.input_value(0)), *ends]
    writer.put(node.output(0), writer.one("Clip", inputs, node.get_friendly_name()))


def _swish(writer: Writer, node: Node) -> None:
    x, name = writer.value(node.input_value(0)), node.get_friendly_name()
    scaled = writer.one("Mul", [x, writer.value(node.input_value(1))], f"{name}/scaled")
    gate = writer.one("Sigmoid", [scaled], f"{name}/gate")
    writer.put(node.output(0), writer.one("Mul", [x, gate], name))


def _pool(writer: Writer, node: Node) -> None:
    """Windows as they are: Caffe's rounding up is explicit padding in OpenVINO already."""
    a = node.get_attributes()
    kernel, strides, pads = list(a["kernel"]), list(a["strides"]), [*a["pads_begin"], *a["pads_end"]]
    if node.get_type_name() == "MaxPool" and node.get_output_size() == 2 and node.output(1).get_target_inputs():
        masked_pool(writer, node, pads, kernel, strides)
        return
    if node.get_type_name() == "MaxPool":
        _moved(writer, node, 1, "MaxPool", [], pads=pads, kernel_shape=kernel, strides=strides)
        return
    includes = int(not a["exclude-pad"])
    average = _plain("AveragePool", count_include_pad=includes, pads=pads, kernel_shape=kernel, strides=strides)
    average(writer, node)


def _reshape(writer: Writer, node: Node) -> None:
    if folded(node.output(0)) is None:
        _moved(writer, node, 1, "Reshape", [writer.integers(_ints(node.input_value(1)))])


def _transpose(writer: Writer, node: Node) -> None:
    _moved(writer, node, 1, "Transpose", [], perm=_ints(node.input_value(1)))


def _concat(writer: Writer, node: Node) -> None:
    if folded(node.output(0)) is None:
        axis = int(node.get_attributes()["axis"])
        _moved(writer, node, node.get_input_size(), "Concat", [], axis=axis)


def _slice(writer: Writer, node: Node) -> None:
    starts, ends, steps, axes = (
        writer.value(source) if folded(source) is None else writer.integers(_ints(source))
        for source in node.input_values()[1:]
    )
    _moved(writer, node, 1, "Slice", [starts, ends, axes, steps])


def _split(writer: Writer, node: Node) -> None:
    [axis] = _ints(node.input_value(1))
    sizes = [int(output.get_partial_shape()[axis].get_length()) for output in node.outputs()]
    _moved(writer, node, 1, "Split", [writer.integers(sizes)], len(sizes), axis=axis)


def _interpolate(writer: Writer, node: Node) -> None:
    """Bilinear along H and W; ONNX wants the size of all axes."""
    name, x = node.get_friendly_name(), writer.value(node.input_value(0))
    kept = writer.one("Shape", [x], f"{name}/kept", start=0, end=2)
    sizes = writer.one("Concat", [kept, writer.integers(_ints(node.input_value(1)))], f"{name}/sizes", axis=0)
    where = str(node.get_attributes()["coordinate_transformation_mode"]).lower()
    made = writer.one("Resize", [x, "", "", sizes], name, mode="linear", coordinate_transformation_mode=where)
    writer.put(node.output(0), made)


def _gather(writer: Writer, node: Node) -> None:
    [axis] = _ints(node.input_value(2))
    inputs = [writer.value(node.input_value(i)) for i in (0, 1)]
    writer.put(node.output(0), writer.one("Gather", inputs, node.get_friendly_name(), axis=axis))


def _gather_nd(writer: Writer, node: Node) -> None:
    inputs = [writer.value(node.input_value(i)) for i in (0, 1)]
    dims = int(node.get_attributes()["batch_dims"])
    writer.put(node.output(0), writer.one("GatherND", inputs, node.get_friendly_name(), batch_dims=dims))


def _tile(writer: Writer, node: Node) -> None:
    _moved(writer, node, 1, "Tile", [writer.integers(_ints(node.input_value(1)))])


def _broadcast(writer: Writer, node: Node) -> None:
    inputs = [writer.value(node.input_value(0)), writer.integers(_ints(node.input_value(1)))]
    writer.put(node.output(0), writer.one("Expand", inputs, node.get_friendly_name()))


def _top_k(writer: Writer, node: Node) -> None:
    """Of equal values the first, in both."""
    a, name = node.get_attributes(), node.get_friendly_name()
    k = writer.integers(_ints(node.input_value(1)))
    largest = int(a["mode"] == "max")
    values, indices = writer.emit(
        "TopK", [writer.value(node.input_value(0)), k], name, 2, axis=int(a["axis"]), largest=largest
    )
    writer.put(node.output(0), values)
    writer.put(node.output(1), writer.one("Cast", [indices], f"{name}/indices", to=onnx_type(node.output(1))))


def _reduce(kind: str) -> Translate:
    """Axes are an attribute in opset 17, but of ReduceSum."""

    def write(writer: Writer, node: Node) -> None:
        keep = int(node.get_attributes()["keep_dims"])
        axes, name = _ints(node.input_value(1)), node.get_friendly_name()
        x = writer.value(node.input_value(0))
        if kind == "ReduceSum":
            made = writer.one(kind, [x, writer.integers(axes)], name, keepdims=keep)
        elif kind == "ReduceLogicalAnd":
            whole = writer.one("Cast", [x], f"{name}/int", to=TensorProto.INT32)
            least = writer.one("ReduceMin", [whole], f"{name}/least", axes=axes, keepdims=keep)
            made = writer.one("Cast", [least], name, to=onnx_type(node.output(0)))
        else:
            made = writer.one(kind, [x], name, axes=axes, keepdims=keep)
        writer.put(node.output(0), made)

    return write


def _softmax(writer: Writer, node: Node) -> None:
    _plain("Softmax", axis=int(node.get_attributes()["axis"]))(writer, node)


def _convert(writer: Writer, node: Node) -> None:
    if folded(node.output(0)) is None:
        _plain("Cast", to=onnx_type(node.output(0)))(writer, node)


def _elu(writer: Writer, node: Node) -> None:
    _plain("Elu", alpha=float(node.get_attributes()["alpha"]))(writer, node)


def _lrn(writer: Writer, node: Node) -> None:
    """Across channels, alpha divided by the size, in both."""
    a = node.get_attributes()
    values = {"alpha": float(a["alpha"]), "beta": float(a["beta"]), "bias": float(a["bias"]), "size": int(a["size"])}
    x = writer.value(node.input_value(0))
    writer.put(node.output(0), writer.one("LRN", [x], node.get_friendly_name(), **values))


def _roi_pooling(writer: Writer, node: Node) -> None:
    """Both stem from Caffe's code."""
    a = node.get_attributes()
    shape = [int(n) for n in a.get("output_size", (a.get("pooled_h"), a.get("pooled_w")))]
    _plain("MaxRoiPool", pooled_shape=shape, spatial_scale=float(a["spatial_scale"]))(writer, node)


def _quantize(writer: Writer, node: Node) -> None:
    write_quantized(writer, node, convolution_attributes)


def _nothing(writer: Writer, node: Node) -> None:
    """Constants are written where they are read, results at the end."""


TABLE: dict[str, Translate] = {
    "Abs": _plain("Abs"),
    "Add": _plain("Add"),
    "AvgPool": _pool,
    "Broadcast": _broadcast,
    "Clamp": _clamp,
    "Concat": _concat,
    "Constant": _nothing,
    "Convert": _convert,
    "Convolution": _convolution,
    "ConvolutionBackpropData": _deconvolution,
    "DetectionOutput": detection_output,
    "Divide": _plain("Div"),
    "Elu": _elu,
    "Exp": _plain("Exp"),
    "FakeQuantize": _quantize,
    "Floor": _plain("Floor"),
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Greater": _plain("Greater"),
    "GreaterEqual": _plain("GreaterOrEqual"),
    "GroupConvolution": _convolution,
    "GroupConvolutionBackpropData": _deconvolution,
    "Interpolate": _interpolate,
    "LRN": _lrn,
    "Less": _plain("Less"),
    "Log": _plain("Log"),
    "MVN": mvn,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Maximum": _plain("Max"),
    "Minimum": _plain("Min"),
    "Multiply": _multiply,
    "NonMaxSuppression": non_max_suppression,
    "PRelu": _prelu,
    "PSROIPooling": psroi_pooling,
    "Parameter": _nothing,
    "Power": _plain("Pow"),
    "ROIPooling": _roi_pooling,
    "ReduceLogicalAnd": _reduce("ReduceLogicalAnd"),
    "ReduceMean": _reduce("ReduceMean"),
    "ReduceSum": _reduce("ReduceSum"),
    "Relu": _relu,
    "Reshape": _reshape,
    "Result": _nothing,
    "Round": _round,
    "ScatterElementsUpdate": scatter,
    "Select": _plain("Where"),
    "Sigmoid": _plain("Sigmoid"),
    "ShapeOf": _plain("Shape"),
    "Slice": _slice,
    "SoftPlus": _plain("Softplus"),
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _plain("Sqrt"),
    "Subtract": _plain("Sub"),
    "Swish": _swish,
    "Tanh": _plain("Tanh"),
    "Tile": _tile,
    "TopK": _top_k,
    "Transpose": _transpose,
    "VariadicSplit": _split,
}
