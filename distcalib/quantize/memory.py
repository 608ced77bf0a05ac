"""How Intel Caffe's blobs lie in memory while a net runs: type, scale and layout, layer by layer.

A blob has Caffe's plain FP32 copy, a private one of MKLDNN's (a layout, integers and a scale), or both, and what a
layer reads depends on which is there when it runs. So the order of readers matters: an INT8 layer that finds the plain
copy alone makes the private one, and MKLDNN layers behind it read those integers, FP32 layers too (golden_rules e32,
e37, c36).
Source: mkldnn_memory.cpp, syncedmem.cpp and the layers' Init functions of commit 44d5363, mkl-dnn 9a865c2b.

INT8 is nhwc on all CPUs. FP32 is not: a convolution works on blocks of 8 channels with AVX2, as in the recordings, and
of 16 with AVX-512, and a Concat whose inputs end inside a block is plain. What comes of that is foreseen for blocks of
8; `calibrate` writes nothing that either CPU trips over.
"""

from collections.abc import Mapping
from dataclasses import replace

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, Run
from distcalib.caffe.steps import UNFUSED, runs_on_mkldnn
from distcalib.quantize.fusion import QUANTIZABLE, Fused
from distcalib.quantize.grids import INT8, Grid, input_grid
from distcalib.quantize.kept import ONE, Kept, ParamOf, Pass, Reading
from distcalib.quantize.layouts import LAYOUTS, NHWC, PLAIN, conv_layout, same_memory, source_layout
from distcalib.quantize.memory_layers import LayerMemory


def run_pass(
    graph: Graph, groups: Mapping[str, Fused], param_of: ParamOf, block: int = 8, *, mended: bool = False
) -> Pass:
    """Follow the net's blobs through one iteration, where FP32 convolutions make blocks of `block` channels.

    With `mended` each layer that an engine mends (mending.py) is taken to have it: it makes FP32.
    """
    memory = _Memory(graph, groups, param_of, block, mended)
    for run in graph.runs:
        memory.step(run)
    final = memory.done.final
    final.update((blob, kept.as_plain) for blob, kept in memory.of.items())
    final.update((view, memory.view(view).reading) for view, value in graph.views.items() if value in final)
    final.update((blob, final[by]) for blob, by in graph.overwritten.items() if by in final)
    return memory.done


class _Memory(LayerMemory):
    def __init__(self, graph: Graph, groups: Mapping[str, Fused], param_of: ParamOf, block: int, mended: bool) -> None:
        super().__init__()
        self.graph, self.groups, self.param_of, self.block, self.mended = graph, groups, param_of, block, mended
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
        layout = max((residual.layout, own), key=LAYOUTS.index)
        return Kept(blob, layout, layout != PLAIN, described=True, channels=made.channels)

    def _step(self, run: Run) -> None:
        step = run.step
        if step.last is None or any(blob is None for blob in run.reads):
            if step.last is not None:
                self._make(run, [Kept(Reading(blob)) for blob in run.makes])
            return
        for blob in run.reads:
            if blob is not None and blob in self.graph.views and blob not in self.of:
                self.of[blob] = self.view(blob)
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
            self.layer(run, reads)

    def view(self, blob: Blob) -> Kept:
        """What a name with another shape finds in memory: the plain copy, which sharing under that shape has made."""
        kept = self.of[self._root(self.graph.views[blob])]
        return Kept(Reading(blob, kept.as_plain.rounded), described=kept.described, channels=kept.channels)

    def _root(self, blob: Blob) -> Blob:
        return self._same.get(blob, blob)

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
            if reads[0] == reads[1] and residual.private and not run.copied:
                self.done.in_place.update(() if param is not None else (group.name,))
                self._fail(
                    run,
                    f"adds to '{reads[0].name}', its own input, and overwrites it while it is still read; what comes "
                    "of that depends on the CPU and the number of threads",
                    UNFUSED,
                    fatal=False,
                )
        self._note(run, readings)
        grid, scale = None, ONE
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
            self._convert(blob, None, layout, ONE)
        else:
            grid = Grid(ONE, signed=False) if param.force_u8_input else input_grid(param)
            self._convert(blob, grid, NHWC, grid.scale)

    def _sum_param(
        self, run: Run, group: Fused, residual: Kept | None, param: caffe_pb2.QuantizationParameter | None
    ) -> caffe_pb2.QuantizationParameter | None:
        """The parameters that hold: a sum takes the residual's type; for FP32 it runs FP32 if it was to be INT8."""
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
                f"has bw_layer_out {param.bw_layer_out} on a sum whose residual '{residual.reading.blob.name}' comes "
                "from a layer of Caffe's own, which has no scale to be read",
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
            if copy.grid is None and same_memory(copy.layout, out, group.node.layer.convolution_param.num_output):
                return copy.reading
            self._fail(
                run,
                f"adds '{residual.reading.blob.name}' as if it lay in memory as its own output does, which it does not",
                UNFUSED,
                fatal=False,
            )
            return residual.reading
        if out == PLAIN:
            return residual.reading
        self.done.dropped.add(group.name)
        self._fail(
            run,
            f"does not add '{residual.reading.blob.name}', which lies in Caffe's plain layout, but what is in its own "
            "memory: nothing in the first iteration, then the sum of the one before",
            UNFUSED,
            fatal=False,
        )
        return residual.reading

    def _inner_product(self, run: Run, group: Fused, blob: Blob, param: caffe_pb2.QuantizationParameter | None) -> None:
        grid, scale = None, ONE
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
            elif scale != ONE:
                self.done.gains[group.name] = scale
        self._make(run, [Kept(Reading(run.makes[0], (), grid), PLAIN, grid is not None, None, scale, True, flat=True)])


def _output_grid(group: Fused, param: caffe_pb2.QuantizationParameter, residual: Kept | None) -> Grid | None:
    """How an INT8 convolution stores its output; a sum as its residual, whatever bw_layer_out says."""
    if residual is not None:
        return None if residual.grid is None else Grid(param.scale_out[0], residual.grid.signed)
    return Grid(param.scale_out[0], signed=group.slope != 0.0) if param.bw_layer_out == INT8 else None
