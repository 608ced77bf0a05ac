"""From ranges and a set of INT8 layers to the quantization_param of each of them.

The file is written for Intel Caffe's rules (storage.py), which decide more than the predecessor's formulas: a
consumer takes over the scale in which its input is stored, so that nothing is rounded twice; a sum onto an s8
residual is stored s8 and gets 127/max even after a ReLU; bw_layer_out 32 stands only where no INT8 consumer follows
and where Intel Caffe heeds it.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import Weights, caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.errors import OptionError, UnsupportedError
from distcalib.quantize.axes import known_axes
from distcalib.quantize.blob_algorithms import Choice
from distcalib.quantize.candidate import Candidate, Space
from distcalib.quantize.fusion import Fused, find_fused, fold
from distcalib.quantize.grids import INT8, Grid
from distcalib.quantize.kept import Kept
from distcalib.quantize.memory import run_pass
from distcalib.quantize.options import QUANTIZED_BY, Options
from distcalib.quantize.ranges import Range
from distcalib.quantize.signs import nonnegative_blobs

U8_MAX, S8_MAX = 255, 127
FP32 = 32
# A bias is an s32 in units of the accumulator; half of its range is left for the products.
_BIAS_LIMIT = float(2**30)
# Values that training let die are 1e-40 and the like: 127 over that is infinite in the file. The product of two scales
# must be finite too, in float32.
_LARGEST_SCALE = 1e15


class Quantizer:
    """What is known of a net before anything was measured: which layers can run INT8, and what must be observed."""

    def __init__(self, graph: Graph, options: Options) -> None:
        """`graph` is the TEST net; quantization_params that it may have already are not looked at."""
        self.graph = graph
        self.options = options
        self.groups: Mapping[str, Fused] = find_fused(graph)
        self.first = next((name for name, group in self.groups.items() if group.node.type == "Convolution"), None)
        """The first convolution."""
        self.refused: dict[str, str] = {}
        """Convolutions and inner products that stay FP32 whatever the search says, with the reason."""
        self.fp32_outputs: Mapping[str, str] = {}
        """Layers whose output is not stored as integers, by the Eltwise that Intel Caffe would compute wrongly."""
        self._makers: dict[Blob, Fused | Node] = {top: node for node in graph for top in node.tops}
        self._makers.update({group.output: group for group in self.groups.values()})
        self._into_concat = self._fp32_into_concat()
        self._shared = self._into_shared()
        self._axes = known_axes(graph)
        self._kept_fp32 = self._named("--keep-fp32", options.keep_fp32)
        self.space = self._space()
        self.fp32_outputs = self._added_wrongly()
        if self.fp32_outputs:
            self.refused.clear()
            self.space = self._space()
        self._refuse_impossible()

    @property
    def observed(self) -> tuple[Blob, ...]:
        """The values whose ranges the scales come from: inputs and outputs of the layers that can be INT8."""
        groups = [self.groups[name] for name in self.space.order]
        return tuple(dict.fromkeys(blob for group in groups for blob in (group.input, group.output)))

    def stored_signed(self, blob: Blob) -> bool | None:
        """Whether `blob`, stored as integers, is s8 (True) or u8; None if no choice of layers stores it as integers."""
        maker = self._makers.get(blob)
        if isinstance(maker, Fused):
            if maker.name in self.refused or not self.may_store_int8(maker):
                return None
            return self.stored_signed(maker.residual) if maker.residual is not None else not maker.nonnegative
        if maker is None or maker.type not in ("ReLU", "Split", "Pooling", "Concat"):
            return None
        signs = {self.stored_signed(bottom) for bottom in maker.bottoms}
        if maker.type == "Pooling" and True in signs and self._is_sum(maker.bottoms[0]):
            return False
        return signs.pop() if len(signs) == 1 else None

    def _is_sum(self, blob: Blob) -> bool:
        """Whether a fused sum with a ReLU makes `blob`: a pooling takes that for u8, whatever it is stored as."""
        maker = self._makers.get(blob)
        if isinstance(maker, Fused):
            return maker.residual is not None and maker.slope is not None
        return maker is not None and maker.type == "Split" and self._is_sum(maker.bottoms[0])

    def may_store_int8(self, group: Fused) -> bool:
        """Whether the layer's output may be integers, if it runs INT8."""
        return group.name not in self.fp32_outputs and group.name not in self._into_concat

    def _fp32_into_concat(self) -> frozenset[str]:
        """With -t, the layers that feed a Concat; a fused sum is stored as its residual is, whatever its file says."""
        if not self.options.concat_use_fp32:
            return frozenset()
        feeders = frozenset().union(*self.concat_feeders())
        return frozenset(name for name in feeders if self.groups[name].residual is None)

    def _into_shared(self) -> frozenset[Blob]:
        """The values that lie in memory which a layer in place changes for others (aliases.py), and those that come
        there as the integers that they are: no recording tells what Intel Caffe makes of integers there."""
        shared, left = set[Blob](), list(self.graph.shared)
        while left:
            blob = left.pop()
            if blob not in shared:
                shared.add(blob)
                maker = self._makers.get(blob)
                if isinstance(maker, Node) and maker.type in ("ReLU", "Split", "Pooling", "Concat", "Slice"):
                    left += maker.bottoms
        return frozenset(shared)

    def _origins(self, blob: Blob) -> frozenset[str]:
        """The layers that must all run INT8 for `blob` to be stored as integers, given that it can be."""
        maker = self._makers[blob]
        if isinstance(maker, Fused):
            return frozenset({maker.name})
        return frozenset().union(*(self._origins(bottom) for bottom in maker.bottoms))

    def concat_feeders(self) -> list[frozenset[str]]:
        """For each Concat the layers whose outputs it joins, directly or through layers that keep integers."""
        return [
            frozenset(name for bottom in node.bottoms for name in self._feeders(bottom))
            for node in self.graph
            if node.type == "Concat"
        ]

    def _feeders(self, blob: Blob) -> frozenset[str]:
        maker = self._makers.get(blob)
        if isinstance(maker, Fused):
            return frozenset({maker.name})
        if maker is None or maker.type not in ("ReLU", "Split", "Pooling"):
            return frozenset()
        return self._feeders(maker.bottoms[0])

    def behind_average(self, blob: Blob) -> bool:
        """Whether `blob` comes out of an average pooling."""
        maker = self._makers.get(blob)
        return (
            isinstance(maker, Node)
            and maker.type == "Pooling"
            and maker.layer.pooling_param.pool == caffe_pb2.PoolingParameter.AVE
        )

    def _added_wrongly(self) -> dict[str, str]:
        """The layers whose integers would meet in an Eltwise that is not fused, by its name.

        Intel Caffe adds two INT8 values of one type at scale 1.0 whatever their scales, so neither may be stored so.
        """
        fused = {group.eltwise.index for group in self.groups.values() if group.eltwise is not None}
        eltwise_of: dict[str, str] = {}
        for node in self.graph:
            if node.type == "Eltwise" and node.index not in fused:
                signs = [self.stored_signed(blob) for blob in node.bottoms]
                for blob, signed in zip(node.bottoms, signs, strict=True):
                    if signed is not None and signs.count(signed) > 1:
                        eltwise_of.update(dict.fromkeys(sorted(self._origins(blob)), node.name))
        return eltwise_of

    def _space(self) -> Space:
        order: list[str] = []
        needs: dict[str, frozenset[str]] = {}
        for name, group in self.groups.items():
            reason = self._why_fp32(group)
            if reason is not None:
                self.refused[name] = reason
                continue
            order.append(name)
            if group.residual is not None:
                needs[name] = self._origins(group.residual)
        return Space(tuple(order), needs, self._named("--keep-int8", self.options.keep_int8))

    def _named(self, flag: str, globs: Sequence[str]) -> frozenset[str]:
        """The layers that `globs` name.  Raises OptionError for a glob that names none."""
        names_of = {glob: fnmatch.filter(self.groups, glob) for glob in globs}
        empty = [glob for glob, names in names_of.items() if not names]
        if empty:
            raise OptionError(
                f"{flag} {', '.join(empty)}: no convolution or inner product has such a name; `distcalib inspect` "
                "lists them"
            )
        return frozenset(name for names in names_of.values() for name in names)

    def _refuse_impossible(self) -> None:
        """Raise OptionError for layers that --keep-int8 names and that cannot be INT8."""
        reasons = [
            f"layer '{name}' cannot be INT8: {self.refused[name]}"
            for name in sorted(self.space.kept_int8)
            if name in self.refused
        ]
        if reasons:
            raise OptionError(f"--keep-int8: {'; '.join(reasons)}; name other layers")

    def _why_fp32(self, group: Fused) -> str | None:
        """Why a layer cannot be INT8; layers before it are decided already."""
        if group.name in self._kept_fp32:
            return "--keep-fp32 names it"
        if group.node.type == "InnerProduct" and not self.options.fc_int8:
            return f"InnerProduct, {QUANTIZED_BY.format('-fc')}"
        n_axes = self._axes.get(group.input, self._axes.get(group.node.tops[0], 4))
        if group.node.type == "Convolution" and n_axes != 4:
            return f"its input has {n_axes} axes, and INT8 is for images, of 4"
        if not self._shared.isdisjoint({group.input, group.output, group.residual}):
            return "a layer in place writes to memory that its input or output shares"
        options = self.options
        if group.name == self.first and not (options.enable_1st_conv or options.first_conv_force_u8):
            return f"first convolution, {QUANTIZED_BY.format('-1st')}"
        if group.residual is None:
            return None
        if group.name in self.fp32_outputs:
            eltwise = self.fp32_outputs[group.name]
            return f"its sum would be INT8 in Eltwise '{eltwise}', which Intel Caffe computes wrongly for INT8 inputs"
        signed = self.stored_signed(group.residual)
        if signed is None:
            return f"its residual '{group.residual.name}' is FP32, so Intel Caffe runs the sum in FP32"
        if not signed and not group.nonnegative:
            return f"its sum can be negative but would be stored u8, as its residual '{group.residual.name}' is"
        return None


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
