"""Values that depend on constants alone: weights as they are read, and the priors of an SSD."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import Node, Output


def folded(output: Output) -> NDArray[Any] | None:
    """The values of what depends on constants alone, of the kinds that stand before weights and priors; else None."""
    node: Node = output.get_node()
    kind = node.get_type_name()
    if kind == "Constant":
        return np.asarray(node.get_data()).reshape(list(node.get_output_shape(0)))
    if kind not in ("Convert", "Multiply", "Reshape", "Concat"):
        return None
    inputs = [folded(node.input_value(i)) for i in range(node.get_input_size())]
    known = [array for array in inputs if array is not None]
    if len(known) < len(inputs):
        return None
    if kind == "Convert":
        return known[0].astype(node.get_output_element_type(0).to_dtype())
    if kind == "Multiply":
        return np.asarray(known[0] * known[1])
    if kind == "Reshape":
        return known[0].reshape(list(node.get_output_shape(0)))
    return np.concatenate(known, axis=int(node.get_attributes()["axis"]))
