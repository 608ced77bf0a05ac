"""How Intel Caffe stores each value of a quantized net: FP32, or integers on a grid.

One function answers for the engine (which rounding happens where), for the calibrator (which scales a consumer sees)
and for `inspect`: it follows the blobs through one iteration (memory.py). Source of every rule:
docs/intel-caffe-files.md, and the nets recorded from a real Intel Caffe (tests/engine/test_golden_rules.py).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph
from distcalib.errors import FormatError
from distcalib.quantize.fusion import QUANTIZABLE, Fused
from distcalib.quantize.grids import INT8, ZERO_POINT, Grid, Params, input_grid
from distcalib.quantize.kept import Pass, Reading
from distcalib.quantize.memory import run_pass

__all__ = [
    "INT8",
    "ZERO_POINT",
    "Grid",
    "Params",
    "Reading",
    "Storage",
    "input_grid",
    "params_of",
    "runs_int8",
    "storage",
    "weight_integers",
]


class Storage(Mapping[Blob, Grid]):
    """The grid of every value that is stored as integers when it is made; values not in it are FP32.

    Values inside a fused group are never stored and are not in it. What an iteration does beside that is in `run`.
    """

    def __init__(self, run: Pass) -> None:
        self.run = run

    def __getitem__(self, blob: Blob) -> Grid:
        return self.run.stored[blob]

    def __iter__(self) -> Iterator[Blob]:
        return iter(self.run.stored)

    def __len__(self) -> int:
        return len(self.run.stored)


def params_of(graph: Graph) -> dict[str, caffe_pb2.QuantizationParameter]:
    """The quantization_param of each layer that can run INT8 and has one.

    Raises FormatError naming every scale that is missing or no scale: nothing can be computed with it.
    """
    params = {
        node.name: node.layer.quantization_param
        for node in graph
        if node.type in QUANTIZABLE and node.layer.HasField("quantization_param")
    }
    problems = [f"layer '{name}': {problem}" for name, param in params.items() for problem in _problems(param)]
    if problems:
        raise FormatError("; ".join(problems))
    return params


def _problems(param: caffe_pb2.QuantizationParameter) -> Iterator[str]:
    for field, scales in (("scale_in", param.scale_in), ("scale_out", param.scale_out)):
        wrong = _first_wrong(field, scales, len(scales) == 1, lambda s: 0.0 < s < math.inf)
        if wrong is not None:
            yield f"quantization_param has {wrong}; one positive number is needed"
    scales = param.scale_params
    wrong = _first_wrong("scale_params", scales, len(scales) > 0, lambda s: 0.0 <= s < math.inf)
    if wrong is not None:
        yield f"quantization_param has {wrong}; give one, or one per output channel, none negative"


def _first_wrong(field: str, scales: Sequence[float], count_fits: bool, fits: Callable[[float], bool]) -> str | None:
    if not count_fits:
        return f"{len(scales)} {field}"
    return next((f"{field} {scale:g}" for scale in scales if not fits(scale)), None)


def runs_int8(fused: Fused, params: Params, stored: Storage) -> bool:
    """Whether the group multiplies integers: it has a quantization_param, and no FP32 residual that would have to be
    stored INT8 (`residual_fp32_shortcut`).
    """
    return fused.name in params and fused.name in stored.run.int8


def storage(graph: Graph, fused: Mapping[str, Fused], params: Params) -> Storage:
    """How the net with the quantization_params `params` stores its values."""
    return Storage(run_pass(graph, fused, lambda group, source, residual: params.get(group.name)))


def weight_integers(weight: NDArray[np.float32], scales: NDArray[np.float64]) -> NDArray[np.int8]:
    """s8 weights rint(w·scale), saturated: W (M, ...) f32, scales (M,), of which 0 gives zeros."""
    column = scales.reshape(-1, *[1] * (weight.ndim - 1))
    # float32 product, as Intel Caffe computes it, then ties to even.
    integers = np.clip(np.rint(weight * column.astype(np.float32)), -128, 127).astype(np.int8)
    integers[scales == 0.0] = 0
    return integers
