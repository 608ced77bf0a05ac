"""What a quantized net must keep to, so that Intel Caffe computes what was measured: intel-caffe.md, "INT8 arithmetic".

Told a second time, from the layers of the file alone and without distcalib.quantize: what the calibrator believes of
fusion and storage is not asked for. `violations` of a file that the calibrator wrote must be empty.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from distcalib.caffe.caffe_pb2 import EltwiseParameter, LayerParameter, PoolingParameter, QuantizationParameter

Value = tuple[str, int]
"""A blob's name and how often it was written before: equal to distcalib's Blob."""
Stored = tuple[float, bool]
"""Scale, and whether it is s8."""

MULTIPLY = ("Convolution", "InnerProduct")
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
    inside: set[int] = field(default_factory=set)

    @property
    def out(self) -> Value:
        return self.makes[0]

    @property
    def param(self) -> QuantizationParameter | None:
        quantized = self.layer.type in MULTIPLY and self.layer.HasField("quantization_param")
        return self.layer.quantization_param if quantized else None


class File:
    """A quantized TEST net as Intel Caffe runs it."""

    def __init__(self, layers: Sequence[LayerParameter]) -> None:
        self.steps: list[Step] = []
        writes: dict[str, int] = {}
        for index, layer in enumerate(layers):
            reads = [(name, writes[name]) for name in layer.bottom]
            for name in layer.top:
                writes[name] = writes.get(name, -1) + 1
            self.steps.append(Step(layer, index, reads, [(name, writes[name]) for name in layer.top]))
        self.plain = list(self.steps)
        self._fuse()
        self.maker = {value: step for step in self.steps for value in step.makes}
        self.readers: dict[Value, list[Step]] = {}
        for step in self.steps:
            for value in dict.fromkeys([*step.reads, *([step.residual] if step.residual else [])]):
                self.readers.setdefault(value, []).append(step)
        self.stored: dict[Value, Stored] = {}
        for step in self.steps:
            kept = self._stores(step)
            if kept is not None:
                self.stored.update(dict.fromkeys(step.makes, kept))

    def _alone(self, value: Value) -> Step | None:
        """The one layer that reads `value`, if it is one."""
        readers = [step for step in self.plain if value in step.reads]
        return readers[0] if len(readers) == 1 else None

    def _fuse(self) -> None:
        """BatchNorm and Scale, ReLU, and the sum onto what was there before, into the convolution."""
        ready = {value: step.index for step in self.plain for value in step.makes}
        gone: set[int] = set()

        def take(step: Step, kinds: str, fits: Callable[[LayerParameter], bool] = lambda layer: True) -> Step | None:
            following = self._alone(step.out)
            if following is None or following.layer.type != kinds or not fits(following.layer):
                return None
            step.inside.add(following.index)
            step.makes = following.makes
            return following

        convolutions = [step for step in self.plain if step.layer.type in MULTIPLY]
        for step in convolutions:
            if step.layer.type == "Convolution" and take(step, "BatchNorm"):
                take(step, "Scale")
            relu = take(step, "ReLU")
            step.relu = None if relu is None else relu.layer.relu_param.negative_slope
            ready[step.out] = step.index
        for step in convolutions:
            summed = self._alone(step.out)
            if step.layer.type != "Convolution" or step.relu is not None or summed is None or not _is_sum(summed):
                continue
            other = next(value for value in summed.reads if value != step.out)
            if ready[other] > step.index:
                continue
            step.residual, step.eltwise, step.makes = other, summed.index, summed.makes
            step.inside.add(summed.index)
            relu = take(step, "ReLU")
            step.relu = None if relu is None else relu.layer.relu_param.negative_slope
            ready[step.out] = step.index
        for step in convolutions:
            gone |= step.inside
        # A convolution runs where the last of what is inside it stands: all that it reads is there by then.
        order = [(max([step.index, *step.inside]), step) for step in self.plain if step.index not in gone]
        self.steps = [step for _, step in sorted(order, key=lambda pair: pair[0])]

    def int8(self, step: Step) -> bool:
        """Whether Intel Caffe multiplies integers there."""
        return step.param is not None and (step.residual is None or step.residual in self.stored)

    def _stores(self, step: Step) -> Stored | None:
        """How Intel Caffe keeps what the step makes."""
        param = step.param
        if param is not None:
            if not self.int8(step):
                return None
            if step.residual is not None:
                return param.scale_out[0], self.stored[step.residual][1]
            return (param.scale_out[0], step.relu != 0.0) if param.bw_layer_out == 8 else None
        if step.layer.type not in KEEP:
            return None
        found = [self.stored.get(value) for value in step.reads]
        kept = [one for one in found if one is not None]
        if len(kept) < len(found) or len({signed for _, signed in kept}) > 1:
            return None
        return min(kept)

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


def _is_sum(step: Step) -> bool:
    param = step.layer.eltwise_param
    plain = param.operation == EltwiseParameter.SUM and all(c == 1.0 for c in param.coeff)
    return step.layer.type == "Eltwise" and plain and len(step.reads) == 2 and step.reads[0] != step.reads[1]


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
    return [*found, *_of_eltwises(file), *_of_concats(file, flags)]


def _of_layer(file: File, step: Step, flags: Flags, largest: Mapping[Value, float] | None) -> Iterator[str]:
    param, name = step.layer.quantization_param, step.layer.name
    first = next((other.index for other in file.plain if other.layer.type == "Convolution"), None)
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
    stored, maker = file.stored.get(value), file.maker[value]
    negative = stored[1] if stored else not file.never_negative(value)
    if param.is_negative_input != negative:
        yield f"{name}: is_negative_input {param.is_negative_input}, its input {value} is stored {stored}"
    average = maker.layer.type == "Pooling" and maker.layer.pooling_param.pool == PoolingParameter.AVE
    if stored is None or (average and flags.disable_cac_unify):
        if largest is not None and not _same(param.scale_in[0], (127 if negative else 255) / largest[value]):
            yield f"{name}: scale_in {param.scale_in[0]} is not of the range of {value}, stored {stored}"
    elif param.scale_in[0] != stored[0]:
        yield f"{name}: scale_in {param.scale_in[0]}, its input {value} is stored {stored}"


def _of_output(file: File, step: Step, flags: Flags, largest: Mapping[Value, float] | None) -> Iterator[str]:
    param, name = step.layer.quantization_param, step.layer.name
    signed = step.relu != 0.0 if step.residual is None else file.stored[step.residual][1]
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
    end = 127 if signed else 255
    if flags.unsigned_range and step.residual is None and step.relu is None:
        end = 255
    if not _same(param.scale_out[0], end / largest[step.out]):
        yield f"{name}: scale_out {param.scale_out[0]} is not {end}/{largest[step.out]}"


def _could_store(file: File, step: Step, flags: Flags) -> bool:
    """Whether an INT8 layer alone reads the output, at once: nothing speaks for FP32."""
    readers = file.readers.get(step.out, [])
    into_concat = any(reader.layer.type == "Concat" for reader in readers)
    direct = [reader for reader in readers if file.int8(reader) and reader.reads[0] == step.out]
    return len(direct) == len(readers) > 0 and not into_concat


def _of_eltwises(file: File) -> Iterator[str]:
    for step in file.steps:
        if step.layer.type == "Eltwise":
            signs = [file.stored[value][1] for value in step.reads if value in file.stored]
            if len(signs) > len(set(signs)):
                yield f"{step.layer.name}: is not fused and has two INT8 inputs of one type"


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
