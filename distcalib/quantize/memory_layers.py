"""What layers that multiply nothing find and leave in the memory of their blobs; see memory.py."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Run
from distcalib.caffe.steps import CAFFE, Trouble
from distcalib.quantize.grids import Grid
from distcalib.quantize.kept import ONE, Kept, Pass, Reading
from distcalib.quantize.layouts import LAYOUTS, NHWC, PLAIN, concat_layout, data_channels


class LayerMemory:
    """The memory of all blobs, and the layers that MKLDNN has a form of, or that run in Caffe's own."""

    def __init__(self) -> None:
        self.of: dict[Blob, Kept] = {}
        self.done = Pass()

    def layer(self, run: Run, reads: list[Blob]) -> None:
        """Run a layer on MKLDNN."""
        _RULES[run.step.type](self, run, reads)

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
        tops = [Kept(Reading(blob), channels=data_channels(run.step.layer)) for blob in run.makes]
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

    def _touch(self, blob: Blob) -> Kept:
        """The private copy is read as it lies: the plain one is out of date from now on."""
        kept = self.of[blob]
        if kept.private:
            self.of[blob] = replace(kept, plain=None)
        return kept

    def _is_flat(self, run: Run, reads: list[Blob]) -> bool:
        flat = [blob for blob in reads if self.of[blob].flat and self.of[blob].grid is not None]
        if flat:
            self._fail(
                run,
                f"reads '{flat[0].name}', the INT8 output of an InnerProduct, which has two axes, as if it had four",
                CAFFE,
            )
        return bool(flat)

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
        if kept.private and kept.grid is None and kept.scale == ONE:
            self._touch(reads[0])
        self._note(run, [kept.reading])
        made = Reading(run.makes[0])
        self._make(run, [Kept(made, kept.layout, kept.layout != PLAIN, None, ONE, True, channels=kept.channels)])

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
        grid = Grid(ONE, signed=True)
        self.done.at_one[run.step.parts["layer"]] = grid
        self._note(run, [kept.reading])
        self._make(run, [replace(kept, reading=Reading(run.makes[0], (), grid), plain=None, scale=ONE, is_sum=False)])

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
        as_is = tuple(one.private and one.scale == ONE and common != ONE for one in kept)
        if any(as_is):
            self.done.unscaled[index], self.done.concat_scales[index] = as_is, common
        if grid is not None:
            grid = Grid(common, grid.signed)
            layout = NHWC
        else:
            layout = concat_layout([one.layout for one in kept], channels)
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
        grid, layout = kept[0].grid, max((one.layout for one in kept), key=LAYOUTS.index)
        if grid is not None:
            grid, layout = Grid(ONE, grid.signed), NHWC
            self._fail(
                run, "has INT8 inputs of one type: they are rounded to whole numbers before it", CAFFE, fatal=False
            )
            self.done.at_one[run.step.parts["layer"]] = grid
        made = Reading(run.makes[0], (), grid)
        self._make(run, [Kept(made, layout, layout != PLAIN, None, ONE, True, channels=channels)])


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
_RULES: Mapping[str, Callable[[LayerMemory, Run, list[Blob]], None]] = {
    "Pooling": LayerMemory._pooling,
    "ReLU": LayerMemory._relu,
    "LRN": LayerMemory._lrn,
    "BatchNorm": LayerMemory._batch_norm,
    "Concat": LayerMemory._concat,
    "Eltwise": LayerMemory._eltwise,
}


def _one_type(kept: list[Kept]) -> bool:
    return len({None if one.grid is None else one.grid.signed for one in kept}) == 1


def _concat_scale(scales: list[float]) -> float:
    """The scale of a Concat: the smallest, but that 1 stands for none (golden e03)."""
    common = ONE
    for scale in scales:
        if common == ONE or (scale != ONE and scale < common):
            common = scale
    return common
