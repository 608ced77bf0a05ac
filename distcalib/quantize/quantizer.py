"""Which layers of a net can run INT8, and what of it must be observed: all that follows from the net alone."""

import fnmatch
from collections.abc import Mapping, Sequence

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.errors import OptionError
from distcalib.quantize.axes import known_axes
from distcalib.quantize.candidate import Space
from distcalib.quantize.fusion import Fused, find_fused
from distcalib.quantize.options import QUANTIZED_BY, Options


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
