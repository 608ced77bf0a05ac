"""How Intel Caffe stores each value of a quantized net: FP32, or integers on a grid.

One function answers for the engine (which rounding happens where), for the calibrator (which scales a consumer sees)
and for `inspect`. Source of every rule: intel-caffe.md, "INT8 arithmetic", and the golden nets that show it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.errors import FormatError
from distcalib.quantize.fusion import QUANTIZABLE, Fused, in_run_order

INT8 = 8
# The u8 that stands for zero in the input of a layer with force_u8_input.
ZERO_POINT = 128
Params = Mapping[str, caffe_pb2.QuantizationParameter]


@dataclass(frozen=True)
class Grid:
    """Integers q standing for q/scale: u8 in [0, 255], or s8 in [-128, 127] if `signed`."""

    scale: float
    signed: bool

    @property
    def low(self) -> int:
        """Smallest integer."""
        return -128 if self.signed else 0

    @property
    def high(self) -> int:
        """Largest integer."""
        return 127 if self.signed else 255

    def __str__(self) -> str:
        return f"{'s8' if self.signed else 'u8'}/{self.scale:.6g}"


def params_of(graph: Graph) -> dict[str, caffe_pb2.QuantizationParameter]:
    """The quantization_param of each layer that can run INT8 and has one.

    Raises FormatError naming every scale that is missing or no scale: nothing can be computed with it.
    """
    found = {
        node.name: node.layer.quantization_param
        for node in graph
        if node.type in QUANTIZABLE and node.layer.HasField("quantization_param")
    }
    problems = [f"layer '{name}': {problem}" for name, param in found.items() for problem in _problems(param)]
    if problems:
        raise FormatError("; ".join(problems))
    return found


def _problems(param: caffe_pb2.QuantizationParameter) -> Iterator[str]:
    for field, scales in (("scale_in", param.scale_in), ("scale_out", param.scale_out)):
        wrong = _first_wrong(field, scales, len(scales) == 1, lambda s: 0.0 < s < math.inf)
        if wrong is not None:
            yield f"quantization_param has {wrong}; one positive number is needed"
    scales = param.scale_params
    wrong = _first_wrong("scale_params", scales, len(scales) > 0, lambda s: 0.0 <= s < math.inf)
    if wrong is not None:
        yield f"quantization_param has {wrong}; one or one an output channel are needed, none negative"


def _first_wrong(field: str, scales: Sequence[float], count_fits: bool, fits: Callable[[float], bool]) -> str | None:
    if not count_fits:
        return f"{len(scales)} {field}"
    return next((f"{field} {scale:g}" for scale in scales if not fits(scale)), None)


def runs_int8(fused: Fused, params: Params, stored: Mapping[Blob, Grid]) -> bool:
    """Whether the group multiplies integers: it has a quantization_param, and no FP32 residual
    (`residual_fp32_shortcut`).
    """
    if fused.name not in params:
        return False
    return fused.residual is None or fused.residual in stored


def input_grid(param: caffe_pb2.QuantizationParameter) -> Grid:
    """The grid that a quantized layer rounds its input to."""
    return Grid(param.scale_in[0], param.is_negative_input)


def storage(graph: Graph, fused: Mapping[str, Fused], params: Params) -> dict[Blob, Grid]:
    """The grid of every value that is stored as integers; values not in it are FP32.

    Values inside a fused group are never stored and are not in it.
    """
    stored: dict[Blob, Grid] = {}
    for node, group in in_run_order(graph, fused):
        grid = layer_grid(node, stored) if group is None else _group_grid(group, params, stored)
        if grid is not None:
            stored.update((top, grid) for top in node.tops)
    return stored


def _group_grid(group: Fused, params: Params, stored: Mapping[Blob, Grid]) -> Grid | None:
    if not runs_int8(group, params, stored):
        return None
    param = params[group.name]
    if group.residual is not None:
        # The sum is stored in the residual's type, and bw_layer_out is ignored.
        return Grid(param.scale_out[0], stored[group.residual].signed)
    if param.bw_layer_out != INT8:
        return None
    return Grid(param.scale_out[0], signed=not group.nonnegative)


def layer_grid(node: Node, stored: Mapping[Blob, Grid]) -> Grid | None:
    """The grid of the tops of a layer that is in no fused group; None for FP32."""
    grids = [stored.get(blob) for blob in node.bottoms]
    if node.type in ("ReLU", "Split", "Pooling"):
        own = node.layer.pooling_param.pool == caffe_pb2.PoolingParameter.AVE_EXC_PAD  # Intel Caffe has none
        return None if own or (len(node.tops) > 1 and node.type == "Pooling") else grids[0]  # a mask lies on no grid
    if node.type == "Concat":
        present = [grid for grid in grids if grid is not None]
        if len(present) == len(grids) and len({grid.signed for grid in present}) == 1:
            return Grid(min(grid.scale for grid in present), present[0].signed)
    return None


def weight_integers(weight: NDArray[np.float32], scales: NDArray[np.float64]) -> NDArray[np.int8]:
    """s8 weights rint(w·scale), saturated: W (M, ...) f32, scales (M,), of which 0 gives zeros."""
    column = scales.reshape(-1, *[1] * (weight.ndim - 1))
    # float32 product, as Intel Caffe computes it, then ties to even.
    integers = np.clip(np.rint(weight * column.astype(np.float32)), -128, 127).astype(np.int8)
    integers[scales == 0.0] = 0
    return integers
