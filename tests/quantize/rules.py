"""What a quantized net must keep to, so that Intel Caffe computes what was measured: docs/intel-caffe-files.md.

Told a second time, from the layers of the file alone and without distcalib.quantize: what the calibrator believes of
fusion and storage is not asked for; which layers Intel Caffe's compiler puts together is (distcalib.caffe).
`violations` of a file that the calibrator wrote must be empty.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from distcalib.caffe.caffe_pb2 import EltwiseParameter, LayerParameter, PoolingParameter, QuantizationParameter
from distcalib.caffe.graph import Run, build_graph

Value = tuple[str, int]
"""A blob's name and how often it was written before: equal to distcalib's Blob."""
Stored = tuple[float, bool]
"""Scale, and whether it is s8."""

MULTIPLY = ("Convolution", "InnerProduct")
MKLDNN = ("Pooling", "ReLU", "LRN", "BatchNorm", "Eltwise", "Concat")
KEEP = ("ReLU", "Split", "Pooling", "Concat")


@dataclass(frozen=True)
class Flags:
    """The calibrator's switches that change what is right."""

    weights_channel: str = "single"
    enable_1st_conv: bool = False
    fc_int8: bool = False
    unsigned_range: bool = False
    concat_use_fp32: bool = False
    unify_concat_scales: bool = False
    disable_force_fp32: bool = False
    disable_cac_unify: bool = False


@dataclass
class Step:
    """A layer, or a convolution with all that Intel Caffe runs inside it."""

    layer: LayerParameter
    index: int
    reads: list[Value]
    makes: list[Value]
    relu: float | None = None
    residual: Value | None = None
    eltwise: int | None = None

    @property
    def out(self) -> Value:
        return self.makes[0]

    @property
    def param(self) -> QuantizationParameter | None:
        quantized = self.layer.type in MULTIPLY and self.layer.HasField("quantization_param")
        return self.layer.quantization_param if quantized else None


def _step(run: Run) -> Step:
    step, reads = run.step, [(blob.name, blob.version) for blob in run.reads if blob is not None]
    residual = reads.pop() if step.summed else None
    makes = [(blob.name, blob.version) for blob in run.makes]
    return Step(step.layer, step.parts["layer"], reads, makes, step.relu, residual, step.parts.get("eltwise"))


class File:
    """A quantized TEST net as Intel Caffe runs it."""

    def __init__(self, layers: Sequence[LayerParameter]) -> None:
        graph = build_graph(layers, "net")
        self.troubles = [one.said for one in graph.troubles]
        self.layers = layers
        self.steps = [_step(run) for run in graph.runs if run.step.last is not None]
        self.maker = {value: step for step in self.steps for value in step.makes}
        self.readers: dict[Value, list[Step]] = {}
        for step in self.steps:
            for value in dict.fromkeys([*step.reads, *([step.residual] if step.residual else [])]):
                self.readers.setdefault(value, []).append(step)
        self.stored: dict[Value, Stored] = {}
        """As they are made."""
        self.found: dict[tuple[int, Value], Stored | None] = {}
        """As the step with this index finds them: FP32 becomes INT8 at the first INT8 layer that reads it plain."""
        self.layout: dict[tuple[int, Value], str] = {}
        """plain, blocks or nhwc, as the step finds them; FP32 convolutions read less than 8 channels as they are."""
        self.channels: dict[Value, int] = {}
        self._follow()

    def _count(self, step: Step) -> int:
        """Channels of what the step makes."""
        if step.layer.type in MULTIPLY:
            own = step.layer.convolution_param if step.layer.type == "Convolution" else step.layer.inner_product_param
            return own.num_output
        counts = [self.channels[value] for value in step.reads]
        return sum(counts) if step.layer.type == "Concat" else counts[0] if counts else 2

    def _follow(self) -> None:
        now: dict[Value, Stored | None] = {}
        lies: dict[Value, str] = {}
        same: dict[Value, Value] = {}
        for step in self.steps:
            reads = [*step.reads, *([step.residual] if step.residual else [])]
            for value in reads:
                root = same.get(value, value)
                self.found[step.index, value], self.layout[step.index, value] = now[root], lies[root]
            if step.layer.type == "Split":
                same.update((value, same.get(step.reads[0], step.reads[0])) for value in step.makes)
            kept = self._stores(step)
            if kept is not None:
                self.stored.update(dict.fromkeys(step.makes, kept))
            if step.layer.type in MULTIPLY:
                first = same.get(step.reads[0], step.reads[0])
                if lies[first] == "plain" and self.int8(step) and step.param is not None:
                    now[first], lies[first] = (step.param.scale_in[0], step.param.is_negative_input), "nhwc"
                elif lies[first] == "plain" and step.layer.type == "Convolution" and self.channels[step.reads[0]] >= 8:
                    lies[first] = "blocks"
            for value in step.makes:
                now[value], lies[value] = kept, self._lies(step, kept)
                self.channels[value] = self._count(step)
            if step.residual is not None:
                root = same.get(step.residual, step.residual)
                now[root], lies[root] = kept, lies[step.out]

    def _lies(self, step: Step, kept: Stored | None) -> str:
        """How what the step makes lies in memory."""
        if kept is not None or (step.layer.type == "Convolution" and self.int8(step)):
            return "nhwc"
        if step.layer.type == "Convolution":
            return "blocks"
        if step.layer.engine == "CAFFE" or step.layer.type not in MKLDNN:
            return "plain"
        found = [self.layout[step.index, value] for value in step.reads]
        kinds = {self.found[step.index, value] is None for value in step.reads}
        if step.layer.type == "Concat":
            if kinds != {True}:
                return "plain"
            ends = all(self.channels[value] % 8 == 0 for value in step.reads)
            return ("blocks" if ends else "plain") if "blocks" in found else "nhwc" if "nhwc" in found else "plain"
        if step.layer.type == "Eltwise" and kinds != {True}:
            return "plain"
        return next((name for name in ("blocks", "nhwc") if name in found), "plain")

    def int8(self, step: Step) -> bool:
        """Whether Intel Caffe multiplies integers there."""
        return step.param is not None and (step.residual is None or self._at(step, step.residual) is not None)

    def _at(self, step: Step, value: Value) -> Stored | None:
        return self.found[step.index, value]

    def _stores(self, step: Step) -> Stored | None:
        """How Intel Caffe keeps what the step makes."""
        param = step.param
        if param is not None:
            if not self.int8(step):
                return None
            if step.residual is not None:
                residual = self._at(step, step.residual)
                assert residual is not None
                return param.scale_out[0], residual[1]
            return (param.scale_out[0], step.relu != 0.0) if param.bw_layer_out == 8 else None
        if step.layer.type not in KEEP or step.layer.engine == "CAFFE":
            return None
        found = [self._at(step, value) for value in step.reads]
        kept = [one for one in found if one is not None]
        if len(kept) < len(found) or len({signed for _, signed in kept}) > 1:
            return None
        if step.layer.type == "Pooling" and self._is_sum(step.reads[0]):
            return kept[0][0], False
        return min(kept)

    def _is_sum(self, value: Value) -> bool:
        """Whether a fused sum with a ReLU made it: a pooling takes that for u8, whatever it is stored as."""
        maker = self.maker[value]
        if maker.layer.type == "Split":
            return self._is_sum(maker.reads[0])
        return maker.residual is not None and maker.relu is not None

    def read_as_integers(self, value: Value) -> bool:
        """Whether an INT8 layer takes `value` as it is stored."""
        for step in self.readers.get(value, ()):
            if self.int8(step) and value in (step.reads[0], step.residual):
                return True
            if step.layer.type in KEEP and any(v in self.stored and self.read_as_integers(v) for v in step.makes):
                return True
        return False

    def never_negative(self, value: Value) -> bool:
        """Whether no input whatsoever makes `value` negative."""
        step = self.maker[value]
        if step.layer.type in MULTIPLY:
            return step.relu == 0.0
        if step.layer.type == "ReLU":
            return step.layer.relu_param.negative_slope == 0.0 or self.never_negative(step.reads[0])
        if step.layer.type == "Eltwise" and step.layer.eltwise_param.operation == EltwiseParameter.MAX:
            return any(map(self.never_negative, step.reads))
        if step.layer.type == "Softmax":
            return True
        keeps = step.layer.type in (*KEEP, "LRN", "Dropout", "Eltwise", "Flatten")
        return keeps and bool(step.reads) and all(map(self.never_negative, step.reads))

    def feeders(self, concat: Step) -> set[int]:
        """The convolutions that a Concat joins, directly or through layers that keep integers."""
        found, todo = set(), list(concat.reads)
        while todo:
            step = self.maker[todo.pop()]
            if step.layer.type in MULTIPLY:
                found.add(step.index)
            elif step.layer.type in ("ReLU", "Split", "Pooling"):
                todo += step.reads
        return found


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6)


def violations(
    layers: Sequence[LayerParameter], flags: Flags | None = None, largest: Mapping[Value, float] | None = None
) -> list[str]:
    """A line for each rule that a layer of a quantized TEST net breaks.

    `largest` is the largest absolute value of each value that scales are made from (algorithm DIRECT); without it,
    what a scale's own value should be is not checked.
    """
    file, flags = File(layers), flags or Flags()
    found = [said for step in file.steps if step.param is not None for said in _of_layer(file, step, flags, largest)]
    return [*found, *aborts(file), *_of_concats(file, flags)]


def aborts(file: File) -> Iterator[str]:
    """Where Intel Caffe aborts, drops a residual, or adds what it takes for something else."""
    yield from file.troubles
    for step in file.steps:
        name, kind = step.layer.name, step.layer.type
        found = [file.found[step.index, value] for value in step.reads]
        if step.residual is not None:
            stored, lies = file.found[step.index, step.residual], file.layout[step.index, step.residual]
            if stored is not None and step.param is None:
                yield f"{name}: is FP32, and its residual {step.residual} is INT8"
            if stored is None and lies != "blocks":
                yield f"{name}: does not add its FP32 residual {step.residual}, which lies {lies}"
            if step.residual == step.reads[0]:
                yield f"{name}: is summed onto its own input"
        if step.layer.engine == "CAFFE":
            continue
        if kind == "BatchNorm" and found[0] is not None:
            yield f"{name}: BatchNorm of integers"
        if kind == "Eltwise" and step.layer.eltwise_param.operation != EltwiseParameter.SUM:
            yield f"{name}: is no sum"
        if kind == "Eltwise" and None not in found and len({stored[1] for stored in found if stored}) == 1:
            yield f"{name}: is not fused and has INT8 inputs of one type"
        flat = [value for value in step.reads if file.maker[value].layer.type == "InnerProduct"]
        if kind in ("Eltwise", "Concat", "ReLU") and any(value in file.stored for value in flat):
            yield f"{name}: reads the integers of an InnerProduct"


def _of_layer(file: File, step: Step, flags: Flags, largest: Mapping[Value, float] | None) -> Iterator[str]:
    param, name = step.layer.quantization_param, step.layer.name
    first = next((i for i, layer in enumerate(file.layers) if layer.type == "Convolution"), None)
    if step.index == first and not flags.enable_1st_conv:
        yield f"{name}: is the first convolution"
    if step.layer.type == "InnerProduct" and not flags.fc_int8:
        yield f"{name}: is an InnerProduct"
    if not file.int8(step):
        yield f"{name}: runs FP32, its residual is FP32"
        return
    if (param.bw_layer_in, param.bw_params, param.force_u8_input) != (8, 8, False):
        yield f"{name}: widths {param.bw_layer_in} and {param.bw_params}"
    if (len(param.scale_in), len(param.scale_out)) != (1, 1):
        yield f"{name}: {len(param.scale_in)} scale_in, {len(param.scale_out)} scale_out"
        return
    own = step.layer.convolution_param if step.layer.type == "Convolution" else step.layer.inner_product_param
    if len(param.scale_params) != (1 if flags.weights_channel == "single" else own.num_output):
        yield f"{name}: {len(param.scale_params)} scale_params"
    if not all(0.0 <= scale < math.inf for scale in param.scale_params):
        yield f"{name}: scale_params {list(param.scale_params)}"
    yield from _of_input(file, step, flags, largest)
    yield from _of_output(file, step, flags, largest)


def _of_input(file: File, step: Step, flags: Flags, largest: Mapping[Value, float] | None) -> Iterator[str]:
    param, name, value = step.layer.quantization_param, step.layer.name, step.reads[0]
    stored, maker = file.found[step.index, value], file.maker[value]
    negative = stored[1] if stored else not file.never_negative(value)
    if param.is_negative_input != negative:
        yield f"{name}: is_negative_input {param.is_negative_input}, its input {value} is stored {stored}"
    average = maker.layer.type == "Pooling" and maker.layer.pooling_param.pool == PoolingParameter.AVE
    if stored is None or (average and flags.disable_cac_unify):
        if (
            largest is not None
            and value in largest
            and not _same(param.scale_in[0], (127 if negative else 255) / largest[value])
        ):
            yield f"{name}: scale_in {param.scale_in[0]} is not of the range of {value}, stored {stored}"
    elif param.scale_in[0] != stored[0]:
        yield f"{name}: scale_in {param.scale_in[0]}, its input {value} is stored {stored}"


def _of_output(file: File, step: Step, flags: Flags, largest: Mapping[Value, float] | None) -> Iterator[str]:
    param, name = step.layer.quantization_param, step.layer.name
    residual = None if step.residual is None else file.found[step.index, step.residual]
    signed = step.relu != 0.0 if residual is None else residual[1]
    if step.residual is not None:
        if param.bw_layer_out != 8:
            yield f"{name}: bw_layer_out {param.bw_layer_out} is ignored on a sum with an INT8 residual"
        if not signed and step.relu != 0.0:
            yield f"{name}: a sum that can be negative is stored u8"
    elif param.bw_layer_out == 8:
        if not file.read_as_integers(step.out) and not flags.disable_force_fp32:
            yield f"{name}: stores integers that no INT8 layer reads"
    elif param.scale_out[0] != 1.0:
        yield f"{name}: FP32 output and scale_out {param.scale_out[0]}"
    if param.bw_layer_out == 32 and _could_store(file, step, flags):
        yield f"{name}: FP32 output, and an INT8 layer reads it"
    if param.bw_layer_out != 8 or largest is None or (flags.unify_concat_scales and step.residual is None):
        return
    if step.out not in largest:  # what is fused in the FP32 net stands apart here, for a layer in front has an engine
        return
    end = 127 if signed else 255
    if flags.unsigned_range and step.residual is None and step.relu is None:
        end = 255
    # Where a layer in front has an engine, a ReLU may be fused here that is not in the FP32 net.
    sizes = [size for value, size in largest.items() if value[0] == step.out[0]]
    if not any(_same(param.scale_out[0], end / size) for size in sizes):
        yield f"{name}: scale_out {param.scale_out[0]} is not {end}/{largest[step.out]}"


def _could_store(file: File, step: Step, flags: Flags) -> bool:
    """Whether an INT8 layer alone reads the output, at once: nothing speaks for FP32."""
    readers = file.readers.get(step.out, [])
    into_concat = any(reader.layer.type == "Concat" for reader in readers)
    direct = [reader for reader in readers if file.int8(reader) and reader.reads[0] == step.out]
    return len(direct) == len(readers) > 0 and not into_concat


def _of_concats(file: File, flags: Flags) -> Iterator[str]:
    by_index = {step.index: step for step in file.steps}
    joined = {step.index: file.feeders(step) for step in file.steps if step.layer.type == "Concat"}
    for index, feeders in joined.items():
        name = by_index[index].layer.name
        made = [by_index[feeder] for feeder in sorted(feeders)]
        made = [one for one in made if one.param is not None and one.residual is None and one.out in file.stored]
        if flags.concat_use_fp32:
            yield from (f"{one.layer.name}: stores integers for {name} in spite of -t" for one in made)
        if flags.unify_concat_scales and all(feeders.isdisjoint(other) for i, other in joined.items() if i != index):
            for signed in (True, False):
                scales = {file.stored[one.out][0] for one in made if file.stored[one.out][1] == signed}
                if len(scales) > 1:
                    yield f"{name}: its inputs have the scales {sorted(scales)} in spite of -f"
