"""INT8 layers in ONNX, so that ONNX Runtime answers with the engine's integers on integer kernels.

The engine multiplies integers by a factor per channel (engine/arithmetic.py): the sum of products, plus an integer
bias, times scale_out / (scale_in · scale_params), rounded. That factor becomes the scale of the weights here, and
activations keep a scale of 1, so the only multiplication that a runtime does is by the engine's own factor. ONNX
Runtime fuses DequantizeLinear -> Conv -> QuantizeLinear to QLinearConv. Where FP32 comes out, or a residual is added
before the one rounding, the same sums are written as MatMulInteger, of windows laid side by side: a QuantizeLinear
before the sum would round twice. Grouped convolutions are ConvInteger there.

Signed values are u8 with a zero point of 128: ConvInteger of ONNX Runtime's CPU provider takes no s8. Its weights are
u8, too, since ONNX Runtime 1.23 and older take no s8 for them either.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from openvino import Node, Output

from distcalib.exporters.folding import folded
from distcalib.exporters.onnx_writer import Stored, Writer

_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Integer:
    """A layer that multiplies integers: its int8 weights in ONNX's shape, and its bias if there is one."""

    node: Node
    weight: NDArray[np.int8]
    bias: NDArray[np.float32] | None = None


def integer_weight(output: Output) -> NDArray[np.int8] | None:
    """The int8 constant behind a weight, in the shape of `output`; None where it is FP32."""
    node = output.get_node()
    if node.get_type_name() == "Reshape":
        inner = integer_weight(node.input_value(0))
        return None if inner is None else inner.reshape(list(node.get_output_shape(0)))
    if node.get_type_name() != "Multiply" or node.input_value(0).get_node().get_type_name() != "Convert":
        return None
    constant = node.input_value(0).get_node().input_value(0).get_node()
    if constant.get_type_name() != "Constant" or constant.get_output_element_type(0).get_type_name() != "i8":
        return None
    return np.asarray(constant.get_data(), np.int8).reshape(list(node.get_output_shape(0)))


def integer_layer(node: Node) -> Integer | None:
    """`node` as a layer on integers, if it is one."""
    if node.get_type_name() not in (*_CONVOLUTIONS, "MatMul"):
        return None
    weight = integer_weight(node.input_value(1))
    if weight is None:
        return None
    return Integer(node, weight.reshape(-1, *weight.shape[2:]) if weight.ndim == 5 else weight)


def integer_sums(output: Output) -> Integer | None:
    """The layer whose integer sums `output` is, with or without a bias."""
    node = output.get_node()
    if node.get_type_name() == "Add":
        layer, bias = integer_layer(node.input_value(0).get_node()), folded(node.input_value(1))
        return None if layer is None or bias is None else Integer(layer.node, layer.weight, bias.reshape(-1))
    return integer_layer(node)


def write_integer_layer(writer: Writer, layer: Integer, attributes: dict[str, Any]) -> bool:
    """Integer sums as FP32; whether it could be written: its input must be on a grid."""
    node = layer.node
    x = writer.stored(node.input_value(0))
    if x is None:
        return False
    name = node.get_friendly_name()
    zero = writer.constant(np.uint8(x.zero_point), "zero_point")
    if node.get_type_name() not in _CONVOLUTIONS:
        weight = writer.constant(np.ascontiguousarray(layer.weight.T), f"{name}/weight")
        sums = writer.one("MatMulInteger", [x.name, weight, zero], f"{name}/sums")
    elif attributes["group"] == 1:
        sums = _as_product(writer, layer, x, zero, attributes)
    else:
        weight = writer.constant(np.uint8(128) + layer.weight.view(np.uint8), f"{name}/weight")
        middle = writer.constant(np.uint8(128), "zero_point")
        sums = writer.one("ConvInteger", [x.name, weight, zero, middle], f"{name}/sums", **attributes)
    writer.put(node.output(0), writer.one("Cast", [sums], name, to=TensorProto.FLOAT))
    return True


def _as_product(writer: Writer, layer: Integer, x: Stored, zero: str, attributes: dict[str, Any]) -> str:
    """The convolution as a product of its windows, laid side by side, with the weights (KH·KW·C, M): (N, M, H', W').

    Some 10 times as fast in ONNX Runtime as its ConvInteger, which has no kernel of its own (resnet20: 29 ms for 320).
    """
    name, shape = layer.node.get_friendly_name(), layer.node.get_output_partial_shape(0)
    rows, columns = int(shape[2].get_length()), int(shape[3].get_length())
    (kernel_h, kernel_w), (stride_h, stride_w) = attributes["kernel_shape"], attributes["strides"]
    (dilation_h, dilation_w), pads = attributes["dilations"], attributes["pads"]
    last = writer.one("Transpose", [x.name], f"{name}/last", perm=[0, 2, 3, 1])
    if any(pads):
        around = writer.integers([0, pads[0], pads[1], 0, 0, pads[2], pads[3], 0])
        last = writer.one("Pad", [last, around, zero], f"{name}/padded")
    windows = []
    for i in range(kernel_h):
        for j in range(kernel_w):
            top, left = i * dilation_h, j * dilation_w
            ends = top + (rows - 1) * stride_h + 1, left + (columns - 1) * stride_w + 1
            cut = [(top, left), ends, (1, 2), (stride_h, stride_w)]
            windows.append(writer.one("Slice", [last, *map(writer.integers, cut)], f"{name}/window"))
    wide = writer.one("Concat", windows, f"{name}/windows", axis=3) if len(windows) > 1 else windows[0]
    weight = layer.weight.transpose(2, 3, 1, 0).reshape(-1, len(layer.weight))
    product = writer.constant(np.ascontiguousarray(weight), f"{name}/weight")
    sums = writer.one("MatMulInteger", [wide, product, zero], f"{name}/product")
    return writer.one("Transpose", [sums], f"{name}/sums", perm=[0, 3, 1, 2])


def write_quantized(writer: Writer, node: Node, attributes: Any) -> None:
    """A FakeQuantize over a whole grid: QuantizeLinear, and the convolution before it where that becomes QLinearConv.

    `attributes(node)`: ONNX's of a convolution.
    """
    low, high = (float(np.asarray(folded(node.input_value(i))).reshape(())) for i in (1, 2))
    assert (low, high) in ((0.0, 255.0), (-128.0, 127.0)), "the engine has no other grids"
    zero_point = int(-low)
    source = node.input_value(0)
    if source.get_node().get_type_name() == "Round":
        source = source.get_node().input_value(0)
    name, already = node.get_friendly_name(), writer.stored(source)
    if already is not None and already.zero_point == zero_point:  # two pairs in a row: ONNX Runtime 1.20 fails at them
        writer.put_stored(node.output(0), already)
        return
    whole = _convolution_before(writer, source, zero_point, attributes)
    made = whole or _unclamped(writer, source, low, high) or writer.value(source)
    writer.put_stored(node.output(0), writer.quantized(made, zero_point, name))


def _unclamped(writer: Writer, scaled: Output, low: float, high: float) -> str | None:
    """A scaled value without the Clamp before its scale, if QuantizeLinear saturates nearer; None where there is none.

    ONNX Runtime up to 1.23 fails at a Clip that it finds needless itself, where the net begins with it.
    """
    node = scaled.get_node()
    if node.get_type_name() != "Multiply" or node.input_value(0).get_node().get_type_name() != "Clamp":
        return None
    clamp, factor = node.input_value(0).get_node(), folded(node.input_value(1))
    if factor is None or factor.size != 1 or factor.item() <= 0.0:
        return None
    ends, step = clamp.get_attributes(), float(factor.item())
    if ends["min"] * step > low - 0.75 or ends["max"] * step < high + 0.75:
        return None
    x = writer.value(clamp.input_value(0))
    if step == 1.0:
        return x
    return writer.one("Mul", [x, writer.value(node.input_value(1))], node.get_friendly_name())


def _convolution_before(writer: Writer, scaled: Output, zero_point: int, attributes: Any) -> str | None:
    """The convolution that `scaled` is made by, as DequantizeLinear -> Conv; None where it is made otherwise."""
    node = scaled.get_node()
    if node.get_type_name() != "Multiply":
        return None
    step, rounded = folded(node.input_value(1)), node.input_value(0).get_node()
    kind = rounded.get_type_name()
    # A QuantizeLinear without a zero point saturates at 0, which is the ReLU.
    if step is None or not (kind == "Round" or (kind == "Relu" and zero_point == 0)):
        return None
    layer = integer_sums(rounded.input_value(0))
    x = None if layer is None else writer.stored(layer.node.input_value(0))
    if layer is None or x is None or layer.node.get_type_name() not in _CONVOLUTIONS or np.any(step <= 0.0):
        return None
    if layer.bias is not None and np.abs(layer.bias).max(initial=0.0) > _INT32 - 128:
        return None
    return _conv(writer, layer, x, step.reshape(-1).astype(np.float32), attributes(layer.node))


def _conv(writer: Writer, layer: Integer, x: Stored, step: NDArray[np.float32], attributes: dict[str, Any]) -> str:
    name, n_out = layer.node.get_friendly_name(), len(layer.weight)
    steps = writer.constant(np.broadcast_to(step, n_out).copy(), f"{name}/scale")
    weight = writer.constant(layer.weight, f"{name}/weight")
    zeros = writer.constant(np.zeros(n_out, np.int8), f"{name}/weight_zero_point")
    inputs = [
        writer.dequantized(x, np.float32(1.0), f"{name}/input"),
        writer.one("DequantizeLinear", [weight, steps, zeros], f"{name}/weight_dq", axis=0),
    ]
    if layer.bias is not None:
        bias = writer.constant(layer.bias.astype(np.int32), f"{name}/bias")
        zero = writer.constant(np.zeros(n_out, np.int32), f"{name}/bias_zero_point")
        inputs.append(writer.one("DequantizeLinear", [bias, steps, zero], f"{name}/bias_dq", axis=0))
    return writer.one("Conv", inputs, name, **attributes)
