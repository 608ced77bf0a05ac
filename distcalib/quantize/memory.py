"""How Intel Caffe's blobs lie in memory while a net runs: type, scale and layout, layer by layer.

A blob has Caffe's plain FP32 copy, a private one of MKLDNN's (a layout, integers and a scale), or both, and what a layer
reads depends on which is there when it runs. So the order of readers matters: an INT8 layer that finds the plain copy
alone makes the private one, and MKLDNN layers behind it read those integers, FP32 layers too (golden e32, e37, c36).
Source: mkldnn_memory.cpp, syncedmem.cpp and the layers' Init functions of commit 44d5363, mkl-dnn 9a865c2b.

INT8 is nhwc on all CPUs. FP32 is not: a convolution works on blocks of 8 channels with AVX2, as in the recordings, and
of 16 with AVX-512, and a Concat whose inputs end inside a block is plain. What comes of that is foreseen for blocks of
8; `calibrate` writes nothing that either CPU trips over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Run
from distcalib.caffe.steps import CAFFE, UNFUSED, Trouble, runs_on_mkldnn
from distcalib.quantize.fusion import QUANTIZABLE, Fused
from distcalib.quantize.grids import INT8, Grid, input_grid

PLAIN, NHWC = "nchw", "nhwc"
BLOCKS = {8: "nChw8c", 16: "nChw16c"}
"""The FP32 layout by the channels of a block: with AVX2, with AVX-512."""
_LAYOUTS = (PLAIN, NHWC, *BLOCKS.values())
"""In the order of mkl-dnn's enumeration: of several, Concat and Eltwise take the last."""
_ONE = 1.0


class Reading(NamedTuple):
    """A value as a layer finds it: `blob`, rounded to each of `rounded` since it was made; `grid` if as integers."""

    blob: Blob
    rounded: tuple[Grid, ...] = ()
    grid: Grid | None = None


@dataclass(frozen=True)
class Kept:
    """How a blob lies in memory. `reading` is the private copy where there is one, else the plain one."""

    reading: Reading
    layout: str = PLAIN
    private: bool = False
    plain: Reading | None = None
    """The plain copy beside the private one; None where it would be made from that."""
    scale: float = _ONE
    """That of the private copy's descriptor; FP32 has one too."""
    described: bool = False
    """Whether there is a descriptor at all, be it of a private copy that is out of date."""
    behind: "Kept | None" = None
    """The out-of-date private copy that a layer of Caffe's own, working in place, has left."""
    is_sum: bool = False
    flat: bool = False
    """Whether it has two axes, as the output of an InnerProduct has."""
    channels: int | None = None

    @property
    def grid(self) -> Grid | None:
        """The integers' grid; None for FP32."""
        return self.reading.grid

    @property
    def as_plain(self) -> Reading:
        """What a layer of Caffe's own reads."""
        return self.reading._replace(grid=None) if self.plain is None else self.plain


ParamOf = Callable[[Fused, "Kept", "Kept | None"], caffe_pb2.QuantizationParameter | None]
"""The quantization_param of a group that reads this input and this residual; None for FP32."""


@dataclass
class Pass:
    """What came of a pass over the net: a trace of all that is rounded, and of what goes wrong."""

    stored: dict[Blob, Grid] = field(default_factory=dict)
    reads: dict[int, tuple[Reading, ...]] = field(default_factory=dict)
    """By the first layer of a step: what it finds in its bottoms; of a group, input and residual."""
    final: dict[Blob, Reading] = field(default_factory=dict)
    """What Caffe would show of each value when all is over."""
    int8: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    """Groups that add nothing, for their residual is not where it is looked for."""
    in_place: set[str] = field(default_factory=set)
    """FP32 groups that overwrite their own input."""
    gains: dict[str, float] = field(default_factory=dict)
    """What the FP32 output of an INT8 InnerProduct is too large by."""
    unscaled: dict[int, tuple[bool, ...]] = field(default_factory=dict)
    """By Concat: which inputs it takes for integers of the common scale without making them so."""
    concat_scales: dict[int, float] = field(default_factory=dict)
    """By Concat of `unscaled`: the common scale."""
    at_one: dict[int, Grid] = field(default_factory=dict)
    """Layers that round what they read and make to whole numbers."""
    troubles: list[Trouble] = field(default_factory=list)
    """What Intel Caffe aborts at, or computes wrongly."""


def run_pass(
    graph: Graph, groups: Mapping[str, Fused], param_of: ParamOf, block: int = 8, *, mended: bool = False
) -> Pass:
    """Follow the net's blobs through one iteration, on a CPU whose FP32 convolutions make blocks of `block` channels.

    With `mended` each layer that an engine mends (mending.py) is taken to have it: it makes FP32.
    """
    memory = _Memory(graph, groups, param_of, block, mended)
    for run in graph.runs:
        memory.step(run)
    final = memory.done.final
    final.update((blob, kept.as_plain) for blob, kept in memory.of.items())
    final.update((blob, final[by]) for blob, by in graph.overwritten.items() if by in final)
    return memory.done


class _Memory:
    def __init__(self, graph: Graph, groups: Mapping[str, Fused], param_of: ParamOf, block: int, mended: bool) -> None:
        self.graph, self.groups, self.param_of, self.block, self.mended = graph, groups, param_of, block, mended
        self.of: dict[Blob, Kept] = {}
        self.done = Pass()
        self._same: dict[Blob, Blob] = {}

    def step(self, run: Run) -> None:
        """Run one step of the compiled net."""
        before, n_troubles = dict(self.of) if self.mended else {}, len(self.done.troubles)
        self._step(run)
        if self.mended and any(one.layer == run.step.name for one in self.done.troubles[n_troubles:]):
            first = self._root(run.reads[0]) if run.reads and run.reads[0] is not None else None
            changed = {first: self.of[first]} if first is not None and run.step.type in QUANTIZABLE else {}
            made = {blob: self.of[blob] for blob in run.makes}
            self.of = {**before, **changed}
            for blob, kept in made.items():
                self.of[blob] = self._unfused(run, kept)
                self.done.stored.pop(blob, None)

    def _unfused(self, run: Run, made: Kept) -> Kept:
        """What a mended step makes: an FP32 sum of a convolution's output and its residual, plain or not."""
        blob = Reading(run.makes[0])
        if not run.step.summed or run.reads[1] is None:
            return Kept(blob)
        residual, group = self.of[self._root(run.reads[1])], self.groups[run.step.name]
        param = self.param_of(group, self.of[self._root(run.reads[0])], None) if run.reads[0] is not None else None
        if residual.grid is not None or (param is not None and param.bw_layer_out == INT8):
            return Kept(blob)
        own = conv_layout(group.node.layer, None, self.block) if param is None else NHWC
        layout = max((residual.layout, own), key=_LAYOUTS.index)
        return Kept(blob, layout, layout != PLAIN, described=True, channels=made.channels)

    def _step(self, run: Run) -> None:
        step = run.step
        if step.last is None or any(blob is None for blob in run.reads):
            if step.last is not None:
                self._make(run, [Kept(Reading(blob)) for blob in run.makes])
            return
        reads = [self._root(blob) for blob in run.reads if blob is not None]
        group = self.groups.get(step.name) if step.type in QUANTIZABLE else None
        if step.type == "Split":
            self._same.update((top, reads[0]) for top in run.makes)
            grid = self.of[reads[0]].grid
            if grid is not None:
                self.done.stored.update((top, grid) for top in run.makes)
        elif not runs_on_mkldnn(step.layer):
            self._on_caffe(run, reads)
        elif group is not None:
            group_reads = [reads[0]] if group.residual is None else reads
            self._group(run, group, group_reads)
        else:
            _RULES[step.type](self, run, reads)

    def _root(self, blob: Blob) -> Blob:
        return self._same.get(blob, blob)

    def _make(self, run: Run, tops: list[Kept]) -> None:
        for blob, kept in zip(run.makes, tops, strict=False):
            self.of[blob] = kept
            if kept.grid is not None:
                self.done.stored[blob] = kept.grid

    def _note(self, run: Run, readings: list[Reading]) -> None:
        self.done.reads[run.step.parts["layer"]] = tuple(readings)

    def _fail(self, run: Run, said: str, engine: str = "", *, fatal: bool = True) -> None:
        """Something goes wrong in a step; `engine` is what mends its layer."""
        name = run.step.name
        said = f"layer '{name}' ({run.step.type}): {said}"
        self.done.troubles.append(Trouble(run.step.parts["layer"], said, fatal, name if engine else "", engine))

    def _on_caffe(self, run: Run, reads: list[Blob]) -> None:
        """A layer of Caffe's own: reads and makes the plain copy."""
        if run.step.summed:
            self._fail(run, "runs in Caffe's own engine, and a sum is fused into it, which that does not know", CAFFE)
        self._note(run, [self.of[blob].as_plain for blob in reads])
        for blob in reads:
            kept = self.of[blob]
            if kept.private:
                self.of[blob] = replace(kept, plain=kept.as_plain)
        tops = [Kept(Reading(blob), channels=_data_channels(run.step.layer)) for blob in run.makes]
        if reads and run.step.type in ("Flatten", "Reshape"):
            # The top shares the memory, and the copy with the old shape is given up.
            kept = self.of[reads[0]]
            self.of[reads[0]] = Kept(kept.as_plain, described=kept.described)
        elif reads and tops and run.step.tops[0] == run.step.bottoms[0]:
            kept = self.of[reads[0]]
            behind = kept if kept.private else kept.behind
            tops[0] = replace(tops[0], described=kept.described, behind=behind, channels=kept.channels)
        elif reads and tops and run.step.type in _KEEPS_CHANNELS:
            tops[0] = replace(tops[0], channels=self.of[reads[0]].channels)
        self._make(run, tops)

    def _convert(self, blob: Blob, grid: Grid | None, layout: str, scale: float) -> Kept:
        """An MKLDNN layer reads `blob` as integers of `grid` or FP32 in `layout`: what it finds, and leaves."""
        kept = self.of[blob]
        if not kept.private:
            if grid is None and layout == PLAIN:
                return kept
            rounded = kept.reading.rounded if grid is None else (*kept.reading.rounded, grid)
            made = Reading(kept.reading.blob, rounded, grid)
            self.of[blob] = replace(
                kept, reading=made, plain=kept.reading, layout=layout, private=True, scale=scale, described=True
            )
        elif (kept.grid, kept.layout, kept.scale) == (grid, layout, scale):
            self.of[blob] = replace(kept, plain=None)
        return self.of[blob]

    def _group(self, run: Run, group: Fused, reads: list[Blob]) -> None:
        residual = self._kept_residual(run, reads[1]) if len(reads) > 1 else None
        param = self.param_of(group, self.of[reads[0]], residual)
        if run.step.type == "InnerProduct":
            self._inner_product(run, group, reads[0], param)
            return
        param = self._sum_param(run, group, residual, param)
        out = NHWC if param is not None else conv_layout(group.node.layer, self.of[reads[0]].channels, self.block)
        self._read_input(group, reads[0], param)
        readings = [self.of[reads[0]].reading]
        if residual is not None:
            residual = self._kept_residual(run, reads[1])  # which may be the input itself
            readings.append(self._residual(run, group, residual, out))
            if reads[0] == reads[1] and not run.copied:
                self.done.in_place.update(() if param is not None else (group.name,))
                self._fail(
                    run,
                    f"adds to '{reads[0].name}', its own input, and overwrites it while it is still read; what comes of "
                    "that depends on the CPU and the number of threads",
                    UNFUSED,
                    fatal=False,
                )
        self._note(run, readings)
        grid, scale = None, _ONE
        if param is not None:
            self.done.int8.add(group.name)
            scale = param.scale_out[0]
            grid = _output_grid(group, param, residual)
        channels = group.node.layer.convolution_param.num_output
        is_sum = param is not None and residual is not None and group.slope is not None
        blob = Reading(run.makes[0], (), grid)
        kept = Kept(blob, out, out != PLAIN, None, scale, True, is_sum=is_sum, channels=channels)
        self._make(run, [kept])
        if residual is not None and not run.copied:  # which shares the memory of the sum
            self.of[reads[1]] = kept

    def _kept_residual(self, run: Run, blob: Blob) -> Kept:
        """How a residual lies in memory, or the copy of it that a pooling makes."""
        kept = self.of[blob]
        if run.copied and kept.is_sum and kept.grid is not None:
            reading = kept.reading._replace(grid=replace(kept.grid, signed=False))
            return replace(kept, reading=reading, is_sum=False)
        return kept

    def _read_input(self, group: Fused, blob: Blob, param: caffe_pb2.QuantizationParameter | None) -> None:
        if param is None:
            layout = source_layout(group.node.layer, self.of[blob].channels, self.block)
            self._convert(blob, None, layout, _ONE)
        else:
            grid = Grid(_ONE, signed=False) if param.force_u8_input else input_grid(param)
            self._convert(blob, grid, NHWC, grid.scale)

    def _sum_param(
        self, run: Run, group: Fused, residual: Kept | None, param: caffe_pb2.QuantizationParameter | None
    ) -> caffe_pb2.QuantizationParameter | None:
        """The parameters that hold: a sum takes the residual's type, and runs FP32 if it would have been stored INT8."""
        if residual is None:
            return param
        if param is None:
            if residual.grid is not None:
                self._fail(
                    run,
                    f"is FP32, and its residual '{residual.reading.blob.name}' is INT8, for which Intel Caffe has no "
                    "convolution (Check failed: convFwd_pd)",
                    UNFUSED,
                )
            return None
        if residual.grid is None and param.bw_layer_out == INT8:
            return None
        if residual.grid is None and not residual.described:
            self._fail(
                run,
                f"has bw_layer_out {param.bw_layer_out} on a sum whose residual '{residual.reading.blob.name}' comes from a "
                "layer of Caffe's own, which has no scale to be read",
                UNFUSED,
            )
        return param

    def _residual(self, run: Run, group: Fused, residual: Kept, out: str) -> Reading:
        """What a sum really adds: its own memory is the residual's private copy, in whatever layout that is."""
        if residual.grid is not None:
            return residual.reading
        if residual.private or residual.behind is not None:
            copy = residual if residual.private else residual.behind
            assert copy is not None
            if copy.layout == out and copy.grid is None:
                return copy.reading
            self._fail(
                run,
                f"adds '{residual.reading.blob.name}' as if it lay in memory as its own output does, and it lies otherwise",
                UNFUSED,
                fatal=False,
            )
            return residual.reading
        if out == PLAIN:
            return residual.reading
        self.done.dropped.add(group.name)
        self._fail(
            run,
            f"does not add '{residual.reading.blob.name}', which lies in Caffe's plain layout, but what is in its memory: "
            "nothing in the first iteration, then the sum of the one before",
            UNFUSED,
            fatal=False,
        )
        return residual.reading

    def _inner_product(self, run: Run, group: Fused, blob: Blob, param: caffe_pb2.QuantizationParameter | None) -> None:
        grid, scale = None, _ONE
        if param is None:
            self._note(run, [self.of[blob].reading])
        else:
            if param.bw_layer_in != INT8:
                self._fail(
                    run, f"has bw_layer_in {param.bw_layer_in}, for which Intel Caffe has no INT8 InnerProduct; write 8"
                )
            source = input_grid(param)
            self._note(run, [self._convert(blob, source, NHWC, source.scale).reading])
            self.done.int8.add(group.name)
            scale = param.scale_out[0]
            if param.bw_layer_out == INT8:
                grid = Grid(scale, signed=group.slope is None)
            elif scale != _ONE:
                self.done.gains[group.name] = scale
        self._make(run, [Kept(Reading(run.makes[0], (), grid), PLAIN, grid is not None, None, scale, True, flat=True)])

    def _is_flat(self, run: Run, reads: list[Blob]) -> bool:
        flat = [blob for blob in reads if self.of[blob].flat and self.of[blob].grid is not None]
        if flat:
            self._fail(
                run,
                f"reads '{flat[0].name}', the INT8 output of an InnerProduct, which has two axes, as if it had four",
                CAFFE,
            )
        return bool(flat)

    def _touch(self, blob: Blob) -> Kept:
        """The private copy is read as it lies: the plain one is out of date from now on."""
        kept = self.of[blob]
        if kept.private:
            self.of[blob] = replace(kept, plain=None)
        return kept

    def _pooling(self, run: Run, reads: list[Blob]) -> None:
        kept = self._touch(reads[0])
        self._note(run, [kept.reading])
        grid = kept.grid
        if grid is not None and kept.is_sum:
            grid = replace(grid, signed=False)
        self._make(
            run,
            [
                replace(
                    kept, reading=Reading(run.makes[0], (), grid), plain=None, is_sum=False, described=True, behind=None
                )
            ],
        )

    def _relu(self, run: Run, reads: list[Blob]) -> None:
        self._is_flat(run, reads)
        kept = self._touch(reads[0])
        self._note(run, [kept.reading])
        in_place = run.step.tops[0] == run.step.bottoms[0]
        made = replace(kept, reading=Reading(run.makes[0], (), kept.grid), plain=None, is_sum=False)
        self._make(run, [made if in_place else replace(made, described=True, behind=None)])

    def _lrn(self, run: Run, reads: list[Blob]) -> None:
        kept = self.of[reads[0]]
        if kept.private and kept.grid is None and kept.scale == _ONE:
            self._touch(reads[0])
        self._note(run, [kept.reading])
        made = Reading(run.makes[0])
        self._make(run, [Kept(made, kept.layout, kept.layout != PLAIN, None, _ONE, True, channels=kept.channels)])

    def _batch_norm(self, run: Run, reads: list[Blob]) -> None:
        kept = self.of[reads[0]]
        if kept.grid is None:
            self._lrn(run, reads)
            return
        if not kept.grid.signed:
            self._fail(run, f"reads '{reads[0].name}' as u8, for which Intel Caffe has no BatchNorm", CAFFE)
        else:
            self._fail(
                run,
                f"reads '{reads[0].name}' as s8: rounds it to whole numbers, and makes whole numbers",
                CAFFE,
                fatal=False,
            )
        grid = Grid(_ONE, signed=True)
        self.done.at_one[run.step.parts["layer"]] = grid
        self._note(run, [kept.reading])
        self._make(run, [replace(kept, reading=Reading(run.makes[0], (), grid), plain=None, scale=_ONE, is_sum=False)])

    def _concat(self, run: Run, reads: list[Blob]) -> None:
        self._is_flat(run, reads)
        kept = [self.of[blob] for blob in reads]
        self._note(run, [one.reading for one in kept])
        for blob in reads:
            self._touch(blob)
        scales = [one.scale for one in kept if one.private]
        common = _concat_scale(scales)
        channels = [one.channels for one in kept]
        total = None if None in channels else sum(c for c in channels if c is not None)
        made = Reading(run.makes[0])
        if not _one_type(kept):
            self._make(run, [Kept(made, described=True, channels=total)])
            return
        index = run.step.parts["layer"]
        grid = kept[0].grid
        as_is = tuple(one.private and one.scale == _ONE and common != _ONE for one in kept)
        if any(as_is):
            self.done.unscaled[index], self.done.concat_scales[index] = as_is, common
        if grid is not None:
            grid = Grid(common, grid.signed)
            layout = NHWC
        else:
            layout = _concat_layout(kept)
        made = Reading(run.makes[0], (), grid)
        self._make(run, [Kept(made, layout, layout != PLAIN, None, common, True, channels=total)])

    def _eltwise(self, run: Run, reads: list[Blob]) -> None:
        operation = run.step.layer.eltwise_param.operation
        if operation != caffe_pb2.EltwiseParameter.SUM:
            name = caffe_pb2.EltwiseParameter.EltwiseOp.Name(operation)
            self._fail(run, f"operation {name} is not implemented on MKLDNN", CAFFE)
        self._is_flat(run, reads)
        kept = [self.of[blob] for blob in reads]
        self._note(run, [one.reading for one in kept])
        channels = kept[0].channels
        if not _one_type(kept):
            self._make(run, [Kept(Reading(run.makes[0]), described=True, channels=channels)])
            return
        grid, layout = kept[0].grid, max((one.layout for one in kept), key=_LAYOUTS.index)
        if grid is not None:
            grid, layout = Grid(_ONE, grid.signed), NHWC
            self._fail(
                run, "has INT8 inputs of one type: they are rounded to whole numbers before it", CAFFE, fatal=False
            )
            self.done.at_one[run.step.parts["layer"]] = grid
        made = Reading(run.makes[0], (), grid)
        self._make(run, [Kept(made, layout, layout != PLAIN, None, _ONE, True, channels=channels)])


_KEEPS_CHANNELS = frozenset(
    {
        "Eltwise",
        "ReLU",
        "PReLU",
        "ELU",
        "Sigmoid",
        "TanH",
        "Power",
        "Dropout",
        "Scale",
        "BatchNorm",
        "LRN",
        "Pooling",
        "Normalize",
        "Bias",
    }
)
_RULES: Mapping[str, Callable[[_Memory, Run, list[Blob]], None]] = {
    "Pooling": _Memory._pooling,
    "ReLU": _Memory._relu,
    "LRN": _Memory._lrn,
    "BatchNorm": _Memory._batch_norm,
    "Concat": _Memory._concat,
    "Eltwise": _Memory._eltwise,
}


def _data_channels(layer: caffe_pb2.LayerParameter) -> int | None:
    """How many channels a data layer's images have: as its shape says; else 3, of which a first convolution knows."""
    shapes = (*layer.input_param.shape, *layer.dummy_data_param.shape)
    if shapes:
        return int(shapes[0].dim[1]) if len(shapes[0].dim) == 4 else None
    return 3 if layer.type in ("Data", "AnnotatedData", "ImageData") else None


def conv_layout(layer: caffe_pb2.LayerParameter, n_in: int | None, block: int) -> str:
    """The layout in which an FP32 convolution leaves its output (init_conf of mkl-dnn's jit kernels)."""
    param = layer.convolution_param
    n_out, group = param.num_output, max(param.group, 1)
    if group in (1, n_out):
        return BLOCKS[block]
    sizes = [n_out // group] + ([] if n_in is None else [n_in // group])
    return next((BLOCKS[b] for b in (block, 8) if all(size % b == 0 for size in sizes)), PLAIN)


def source_layout(layer: caffe_pb2.LayerParameter, n_in: int | None, block: int) -> str:
    """The layout in which an FP32 convolution reads its input: an image's few channels as they are."""
    group = max(layer.convolution_param.group, 1)
    few = (1, 3) if block == 16 else range(1, 8)
    if n_in is not None and n_in // group in few and group != layer.convolution_param.num_output:
        return PLAIN
    return conv_layout(layer, n_in, block)


def _output_grid(group: Fused, param: caffe_pb2.QuantizationParameter, residual: Kept | None) -> Grid | None:
    """How an INT8 convolution stores its output; a sum as its residual, whatever bw_layer_out says."""
    if residual is not None:
        return None if residual.grid is None else Grid(param.scale_out[0], residual.grid.signed)
    return Grid(param.scale_out[0], signed=group.slope != 0.0) if param.bw_layer_out == INT8 else None


def _one_type(kept: list[Kept]) -> bool:
    return len({None if one.grid is None else one.grid.signed for one in kept}) == 1


def _concat_scale(scales: list[float]) -> float:
    """The scale of a Concat: the smallest, but that 1 stands for none (golden e03)."""
    common = _ONE
    for scale in scales:
        if common == _ONE or (scale != _ONE and scale < common):
            common = scale
    return common


def _concat_layout(kept: list[Kept]) -> str:
    """That of the inputs if each ends at the end of a block, else plain."""
    layout = max((one.layout for one in kept), key=_LAYOUTS.index)
    block = next((block for block, name in BLOCKS.items() if name == layout), 1)
    return layout if all(one.channels is None or one.channels % block == 0 for one in kept) else PLAIN
