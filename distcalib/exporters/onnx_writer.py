"""An ONNX graph while it is written: names, constants, and the two forms that a value on a grid has.

The engine's integers stand for themselves, in FP32 (layers/quantized.py). In ONNX such a value is u8, with a zero point
of 128 where it is signed, and a DequantizeLinear of scale 1 gives the same FP32 integers to whoever needs them. Both
forms are written on demand, and what nobody asked for is left out at the end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from openvino import Output

from distcalib.exporters.folding import folded

OPSET = 17
"""Of the default domain; ONNX Runtime has it since 1.12."""
IR_VERSION = 8
"""That belongs to OPSET."""

Key = tuple[str, int]


@dataclass(frozen=True)
class Stored:
    """A u8 tensor that stands for its values less `zero_point`."""

    name: str
    zero_point: int


class Writer:
    """Nodes and initializers, and the tensor of each of OpenVINO's outputs."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._floats: dict[Key, str] = {}
        self._stored: dict[Key, Stored] = {}
        self._names: set[str] = set()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def value(self, output: Output) -> str:
        """The tensor of `output` as it is in OpenVINO."""
        key = key_of(output)
        if key not in self._floats:
            stored = self._stored.get(key)
            if stored is not None:
                self._floats[key] = self.dequantized(
                    stored, np.float32(1.0), f"{output.get_node().get_friendly_name()}"
                )
            else:
                array = folded(output)
                assert array is not None, f"{output.get_node().get_friendly_name()} was not translated"
                self._floats[key] = self.constant(array, output.get_node().get_friendly_name())
        return self._floats[key]

    def stored(self, output: Output) -> Stored | None:
        """The integers of `output`, where it has some."""
        return self._stored.get(key_of(output))

    def put(self, output: Output, name: str) -> None:
        """`output` is the tensor `name`."""
        self._floats[key_of(output)] = name

    def put_stored(self, output: Output, stored: Stored) -> None:
        """`output` is on a grid."""
        self._stored[key_of(output)] = stored

    def same(self, output: Output, source: Output) -> None:
        """`output` is what `source` is, in both forms."""
        stored = self.stored(source)
        if stored is None:
            self.put(output, self.value(source))
        else:
            self.put_stored(output, stored)

    def emit(self, kind: str, inputs: Sequence[str], name: str, n_outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node; its outputs' names, which begin with `name`."""
        unique = self.unique(name)
        outputs = [unique, *(self.unique(f"{name}.{i}") for i in range(1, n_outputs))]
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, unique, **attributes))
        return outputs

    def one(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Add a node of one output."""
        return self.emit(kind, inputs, name, **attributes)[0]

    def constant(self, array: NDArray[Any] | np.generic, hint: str = "constant") -> str:
        """An initializer; equal ones are one."""
        array = np.asarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.unique(hint)
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            self._constants[key] = name
        return self._constants[key]

    def integers(self, values: Iterable[int]) -> str:
        """An int64 vector."""
        return self.constant(np.array(list(values), np.int64))

    def quantized(self, x: str, zero_point: int, name: str) -> Stored:
        """The FP32 integers of `x`, rounded to even and saturated."""
        scale, zero = self.constant(np.float32(1.0), "one"), self.constant(np.uint8(zero_point), "zero_point")
        return Stored(self.one("QuantizeLinear", [x, scale, zero], f"{name}/q"), zero_point)

    def dequantized(self, stored: Stored, scale: np.float32, name: str) -> str:
        """Integers times `scale`."""
        zero = self.constant(np.uint8(stored.zero_point), "zero_point")
        return self.one("DequantizeLinear", [stored.name, self.constant(scale, "scale"), zero], f"{name}/dq")

    def unique(self, name: str) -> str:
        """`name`, with a number where it is taken."""
        free, number = name, 1
        while free in self._names:
            number += 1
            free = f"{name}.{number}"
        self._names.add(free)
        return free

    def model(self, inputs: Sequence[tuple[Output, str]], outputs: Sequence[tuple[Output, str]]) -> onnx.ModelProto:
        """The whole, with what leads to `outputs` alone."""
        taken = {name for _, name in inputs}
        for output, name in outputs:
            self._rename(self.value(output), name, taken)
            taken.add(name)
        needed = {name for _, name in outputs}
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(filter(None, node.input))  # an input left out is ""
        graph = helper.make_graph(
            kept[::-1],
            "distcalib",
            [_info(output, name) for output, name in inputs],
            [_info(output, name) for output, name in outputs],
            [tensor for name, tensor in self.initializers.items() if name in needed],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _rename(self, old: str, new: str, fixed: set[str]) -> None:
        """Let what is `old` be `new`; where `old` must keep its name, by an Identity."""
        if old == new:
            return
        if old in fixed or old in self.initializers:
            self.nodes.append(helper.make_node("Identity", [old], [new], f"{new}/identity"))
            return
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == new:  # of a node that nobody asked for an output of
                        names[i] = f"{new}/inner"
                    elif name == old:
                        names[i] = new
        if new in self.initializers:
            tensor = self.initializers.pop(new)
            tensor.name = f"{new}/inner"
            self.initializers[tensor.name] = tensor
        for table in (self._floats,):
            for key, name in table.items():
                table[key] = new if name == old else f"{new}/inner" if name == new else name


def key_of(output: Output) -> Key:
    """What tells one output of a model from another."""
    return output.get_node().get_name(), output.get_index()


def _info(output: Output, name: str) -> onnx.ValueInfoProto:
    shape = output.get_partial_shape()
    dims: list[int | str | None] = []
    for axis, dim in enumerate(shape):
        dims.append(int(dim.get_length()) if dim.is_static else "N" if axis == 0 else f"{name}_{axis}")
    return helper.make_tensor_value_info(name, _TYPES[output.get_element_type().get_type_name()], dims)


_TYPES = {
    "f32": TensorProto.FLOAT,
    "i64": TensorProto.INT64,
    "i32": TensorProto.INT32,
    "u8": TensorProto.UINT8,
    "i8": TensorProto.INT8,
    "boolean": TensorProto.BOOL,
}


def onnx_type(output: Output) -> int:
    """ONNX's number of the element type."""
    return int(_TYPES[output.get_element_type().get_type_name()])
