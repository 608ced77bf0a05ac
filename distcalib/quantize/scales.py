"""From ranges and a set of INT8 layers to the quantization_param of each of them.

The file is written for Intel Caffe's rules (storage.py), which decide more than the predecessor's formulas: a
consumer takes over the scale in which its input is stored, so that nothing is rounded twice; a sum onto an s8
residual is stored s8 and gets 127/max even after a ReLU; bw_layer_out 32 stands only where no INT8 consumer follows
and where Intel Caffe heeds it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import Weights, caffe_pb2
from distcalib.caffe.graph import Blob, Node
from distcalib.errors import UnsupportedError
from distcalib.quantize.blob_algorithms import Choice
from distcalib.quantize.candidate import Candidate
from distcalib.quantize.fusion import Fused, fold
from distcalib.quantize.grids import INT8, Grid
from distcalib.quantize.kept import Kept
from distcalib.quantize.memory import run_pass
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.signs import nonnegative_blobs

U8_MAX, S8_MAX = 255, 127
FP32 = 32
# A bias is an s32 in units of the accumulator; half of its range is left for the products.
_BIAS_LIMIT = float(2**30)
# Values that training let die are 1e-40 and the like: 127 over that is infinite in the file. The product of two scales
# must be finite too, in float32.
_LARGEST_SCALE = 1e15


class _Thresholds:
    """The thresholds of `ranges` as `choice` asks for them, each computed once; KL takes a tenth of a second."""

    def __init__(self, ranges: Mapping[Blob, Range], choice: Choice) -> None:
        self._ranges, self._choice = ranges, choice
        self._found: dict[tuple[Blob, int], float] = {}

    def of(self, blob: Blob, levels: int) -> float:
        """That of `blob` for so many steps above 0."""
        if (blob, levels) not in self._found:
            self._found[blob, levels] = self._ranges[blob].threshold(self._choice.algorithm(blob), levels)
        return self._found[blob, levels]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Those that were asked for, each once, in that order."""
        return tuple(dict.fromkeys(blob for blob, _ in self._found))


@dataclass(frozen=True)
class Calibration:
    """Ranges and weights of a net: all that the parameters of any candidate follow from."""

    quantizer: Quantizer
    ranges: Mapping[Blob, Range]
    weights: Weights
    choice: Choice = field(default_factory=Choice)
    equalized: Mapping[str, tuple[NDArray[np.float32], ...]] = field(default_factory=dict)
    """Blobs of `weights` that are not those of the caffemodel given, by layer (--equalize)."""
    corrected: Mapping[str, tuple[NDArray[np.float32], ...]] = field(default_factory=dict)
    """Blobs that an INT8 layer has in place of those of `weights`, by layer (--bias-correction)."""

    @cached_property
    def _thresholds(self) -> "_Thresholds":
        return _Thresholds(self.ranges, self.choice)

    @cached_property
    def _sizes(self) -> Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """By layer that can be INT8 the largest |w| and |b| (M,) of its folded weights: the same for all candidates of
        a search, and folding VGG-16 takes a second.
        """
        blobs = {**self.weights, **self.corrected}
        sizes = {}
        for name in self.quantizer.space.order:
            weight, bias = fold(self.quantizer.groups[name], blobs)
            largest = np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float64)
            sizes[name] = largest, np.abs(bias).astype(np.float64)
        return sizes

    def channel_sizes(self, layer: str) -> NDArray[np.float64]:
        """The largest |w| (M,) of each output channel of a layer that can be INT8, batch norms folded in."""
        return self._sizes[layer][0]

    @cached_property
    def _nonnegative(self) -> frozenset[Blob]:
        return nonnegative_blobs(self.quantizer.graph, self.weights)

    def scaled(self, candidate: Candidate) -> tuple[Blob, ...]:
        """The values whose thresholds the parameters of `candidate` are made from, in net order: fewer than are
        observed, since a consumer takes over the scale in which its input is stored.
        """
        asked = replace(self, choice=Choice())
        asked.params(candidate)
        return asked._thresholds.blobs

    def params(self, candidate: Candidate) -> dict[str, caffe_pb2.QuantizationParameter]:
        """The quantization_param of each INT8 layer of `candidate`, by layer name in net order."""
        quantizer, made = self.quantizer, dict[str, caffe_pb2.QuantizationParameter]()

        def param_of(group: Fused, source: Kept, residual: Kept | None) -> caffe_pb2.QuantizationParameter | None:
            if group.name not in candidate.int8:
                return None
            made[group.name] = self._layer_params(group, candidate, source.grid, residual)
            return made[group.name]

        run_pass(quantizer.graph, quantizer.groups, param_of, mended=True)
        return {name: made[name] for name in candidate.int8_layers}

    def _layer_params(
        self, group: Fused, candidate: Candidate, source: Grid | None, residual: Kept | None
    ) -> caffe_pb2.QuantizationParameter:
        quantizer, options = self.quantizer, self.quantizer.options
        if source is not None and options.disable_cac_unify and quantizer.behind_average(group.input):
            source = Grid(self._scale(group.input, source.signed), source.signed)
        if source is None:
            signed = group.input not in self._nonnegative
            source = Grid(self._scale(group.input, signed), signed)
        param = caffe_pb2.QuantizationParameter(bw_layer_in=INT8, bw_params=INT8, scale_in=[source.scale])
        if source.signed:
            param.is_negative_input = True
        target: Grid | None = None
        if residual is not None and residual.grid is not None:
            signed = residual.grid.signed
            target = Grid(self._scale(group.output, signed), signed)
        elif group.residual is None and self._has_int8_output(group, candidate):
            target = Grid(self._output_scale(group, candidate), not group.nonnegative)
        param.bw_layer_out = FP32 if target is None else INT8
        param.scale_out.append(1.0 if target is None else target.scale)
        param.scale_params.extend(self._weight_scales(group, param.scale_in[0]))
        return param

    def _has_int8_output(self, group: Fused, candidate: Candidate) -> bool:
        """Whether a layer without a fused sum stores integers."""
        if not self.quantizer.may_store_int8(group):
            return False
        return self.quantizer.options.disable_force_fp32 or self._wants_int8(group.output, candidate)

    def _output_scale(self, group: Fused, candidate: Candidate) -> float:
        """scale_out of a layer without a fused sum: its own, or the smallest of those that feed the same Concat."""
        quantizer, options = self.quantizer, self.quantizer.options
        sharing = {group.name}
        if options.unify_concat_scales:
            for feeders in quantizer.concat_feeders():
                if group.name in feeders:
                    sharing |= feeders & candidate.int8
        scales = []
        for other in (quantizer.groups[name] for name in sorted(sharing)):
            if other.nonnegative == group.nonnegative and other.residual is None:
                scale = self._scale(other.output, signed=not other.nonnegative)
                wide = options.unsigned_range and other.slope is None
                scales.append(scale * U8_MAX / S8_MAX if wide else scale)
        return min(scales)

    def _scale(self, blob: Blob, signed: bool) -> float:
        """127/t for s8, 255/t for u8, t the algorithm's threshold; 1 for a value that was zero in the whole sample."""
        end = S8_MAX if signed else U8_MAX
        largest = self._thresholds.of(blob, end + 1)
        if not np.isfinite(largest):
            raise UnsupportedError(
                f"blob '{blob.name}': is not finite in the FP32 pass; correct the weights or the data"
            )
        return min(end / largest, _LARGEST_SCALE) if largest > 0.0 else 1.0

    def _weight_scales(self, group: Fused, scale_in: float) -> NDArray[np.float64]:
        """127/max|w| of the folded weights, (1,) or (M,); lower where the bias would leave s32.

        A channel without weights gets 0 if it has no bias either: with scale 0 Intel Caffe rounds its bias to a whole
        number (golden zero_channel), so one with a bias gets the scale of the widest channel, which keeps it.
        """
        largest, bias_size = self._sizes[group.name]
        if self.quantizer.options.weights_channel == "single":
            largest, bias_size = largest.max(keepdims=True), bias_size.max(keepdims=True)
        widest = S8_MAX / largest.max() if largest.any() else 1.0
        with np.errstate(divide="ignore"):
            scales = np.where(largest > 0.0, S8_MAX / largest, np.where(bias_size > 0.0, widest, 0.0))
            limits = np.where(bias_size > 0.0, _BIAS_LIMIT / (bias_size * scale_in), np.inf)
        return np.asarray(np.minimum(np.minimum(scales, _LARGEST_SCALE), limits), np.float64)

    def _wants_int8(self, blob: Blob, candidate: Candidate) -> bool:
        """Whether an INT8 layer reads `blob` as integers: directly, as its residual, or through layers that keep
        them.
        """
        quantizer = self.quantizer
        for node in quantizer.graph.consumers.get(blob, ()):
            reader = quantizer.groups.get(node.name)
            if reader is not None and reader.input == blob and reader.name in candidate.int8:
                return True
            if any(
                g.residual == blob and g.eltwise is node and g.name in candidate.int8 for g in quantizer.groups.values()
            ):
                return True
            if node.type in ("ReLU", "Split", "Pooling"):
                if any(self._wants_int8(top, candidate) for top in node.tops):
                    return True
            elif (
                node.type == "Concat" and self._all_int8(node, candidate) and self._wants_int8(node.tops[0], candidate)
            ):
                return True
        return False

    def _all_int8(self, concat: Node, candidate: Candidate) -> bool:
        """Whether all inputs of a Concat can be stored as integers of one type: else it goes FP32."""
        if self.quantizer.stored_signed(concat.tops[0]) is None:
            return False
        return self.quantizer._origins(concat.tops[0]) <= candidate.int8
