"""What Intel Caffe makes of a TEST net before it runs it: Net::CompileNet, rule by rule.

The rules rename blobs, drop layers and look readers up by name from a place in the list, so what they do to a net that
none of them foresaw (a sum onto a blob that another layer was to read, a ReLU that is skipped by counting) follows from
doing the same with the same names, not from describing what they are for.
Source: net.cpp (CompileNet and its rules), remove_batch_norm.cpp and insert_splits.cpp of commit 44d5363, run with
`-engine MKLDNN`; 50 recorded nets agree (tests/engine/test_golden_rules.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from distcalib.caffe import caffe_pb2

Layer = caffe_pb2.LayerParameter
_CAFFE, _DEFAULT = caffe_pb2.ConvolutionParameter.CAFFE, caffe_pb2.ConvolutionParameter.DEFAULT
NET_ENGINE = "MKLDNN"
CAFFE = "CAFFE"
UNFUSED = "MKLDNN:CPU"
"""The engine that a convolution runs on anyway; where it is spelled out no sum is fused into it (golden_rules c40)."""


@dataclass
class Step:
    """A layer of the compiled net; `parts` are the indices of the prototxt's layers that run in it, by their role.

    A Split that Caffe inserts has no layer.
    """

    type: str
    name: str
    bottoms: list[str]
    tops: list[str]
    layer: Layer
    parts: dict[str, int] = field(default_factory=dict)
    relu: float | None = None
    """Negative slope of the ReLU at its end."""
    summed: bool = False
    """Whether it adds its second bottom, in the memory of which it leaves the sum."""
    astray: str = ""
    """The layer that waits for another Eltwise, and whose output it adds."""

    @property
    def last(self) -> int | None:
        """The layer of the prototxt whose top it makes; None for a Split that Caffe inserts."""
        return next((self.parts[role] for role in reversed(_ORDER) if role in self.parts), None)


_ORDER = ("layer", "batch_norm", "scale", "relu", "eltwise", "sum_relu")


@dataclass(frozen=True, order=True)
class Trouble:
    """What Intel Caffe dies of, or computes wrongly, at a layer of the prototxt."""

    index: int
    said: str
    """A sentence about the layer, without an end."""
    fatal: bool = True
    """Whether the net cannot be run at all."""
    layer: str = ""
    """The layer that is mended by another engine; "" if none is."""
    engine: str = ""

    def __str__(self) -> str:
        end = "; Intel Caffe cannot run the net" if self.fatal else ""
        return self.said + end + (f"; engine: \"{self.engine}\" on '{self.layer}' mends it" if self.layer else "")


@dataclass(frozen=True)
class Compiled:
    """The steps in the order in which they run, and what keeps Caffe from making or loading the net."""

    steps: tuple[Step, ...]
    troubles: tuple[Trouble, ...] = ()


def compile_net(layers: Sequence[Layer]) -> Compiled:
    """The TEST net `layers` as Intel Caffe runs it."""
    steps = _insert_splits(layers)
    for rule in (_remove_batch_norm, _merge_scale, _fuse_conv_relu, _fuse_bn_relu, _fuse_sum, _fuse_fc_relu):
        steps = rule(steps)
    troubles = [*_unavailable(steps), *_left_out(steps, layers), *_without_blobs(steps, layers)]
    return Compiled(tuple(steps), tuple(sorted(troubles)))


def runs_on_caffe(layer: Layer) -> bool:
    """Whether a Convolution or InnerProduct runs in Caffe's own engine, which knows no INT8 and no fused ReLU."""
    if layer.type == "InnerProduct":
        inner = layer.inner_product_param
        engine, special = inner.engine, inner.transpose
        default, caffe = caffe_pb2.InnerProductParameter.DEFAULT, caffe_pb2.InnerProductParameter.CAFFE
        return engine == caffe or (engine == default and (special or _own_engine(layer) == "CAFFE"))
    engine_of = layer.convolution_param.engine
    return engine_of == _CAFFE or (engine_of == _DEFAULT and _own_engine(layer) == "CAFFE")


def runs_on_mkldnn(layer: Layer) -> bool:
    """Whether a layer has an MKLDNN form, and runs as that."""
    if layer.type in ("Convolution", "InnerProduct"):
        return not runs_on_caffe(layer)
    params = {
        "Pooling": layer.pooling_param,
        "LRN": layer.lrn_param,
        "BatchNorm": layer.batch_norm_param,
        "Split": layer.split_param,
        "ReLU": layer.relu_param,
        "Concat": layer.concat_param,
        "Eltwise": layer.eltwise_param,
    }
    if layer.type not in params or _own_engine(layer) == "CAFFE":
        return False
    if layer.type == "Pooling" and layer.pooling_param.pool == caffe_pb2.PoolingParameter.STOCHASTIC:
        return False
    if layer.type == "LRN" and layer.lrn_param.norm_region != caffe_pb2.LRNParameter.ACROSS_CHANNELS:
        return False
    own = params[layer.type]
    return bool(own.engine != own.CAFFE)  # type: ignore[attr-defined]


def _own_engine(layer: Layer) -> str:
    """The engine before the colon; "" where the net's is taken."""
    return layer.engine.split(":")[0]


def _insert_splits(layers: Sequence[Layer]) -> list[Step]:
    """A Split behind each top that is read more than once, a loss weight counting as a reader."""
    last: dict[str, tuple[int, int]] = {}
    source: dict[tuple[int, int], tuple[int, int]] = {}
    count: dict[tuple[int, int], int] = {}
    weighted: set[tuple[int, int]] = set()
    for i, layer in enumerate(layers):
        for j, name in enumerate(layer.bottom):
            if name in last:
                source[i, j] = last[name]
                count[last[name]] = count.get(last[name], 0) + 1
        for j, name in enumerate(layer.top):
            last[name] = i, j
        for j, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            if weight:
                weighted.add((i, j))
                count[i, j] = count.get((i, j), 0) + 1
    steps, taken = [], dict.fromkeys(weighted, 1)
    for i, layer in enumerate(layers):
        bottoms = list(layer.bottom)
        for j, name in enumerate(bottoms):
            top = source.get((i, j))
            if top is not None and count[top] > 1:
                taken[top] = taken.get(top, 0) + 1
                bottoms[j] = f"{name}_{layers[top[0]].name}_{top[1]}_split_{taken[top] - 1}"
        steps.append(Step(layer.type, layer.name, bottoms, list(layer.top), layer, {"layer": i}, _own_relu(layer)))
        for j, name in enumerate(layer.top):
            if count.get((i, j), 0) > 1:
                split = f"{name}_{layer.name}_{j}_split"
                tops = [f"{split}_{k}" for k in range(count[i, j])]
                steps.append(Step("Split", split, [name], tops, caffe_pb2.LayerParameter(type="Split", name=split)))
    return steps


def _own_relu(layer: Layer) -> float | None:
    if layer.type == "Convolution":
        return layer.convolution_param.negative_slope if layer.convolution_param.relu else None
    if layer.type == "InnerProduct":
        return layer.inner_product_param.negative_slope if layer.inner_product_param.relu else None
    return None


def _readers(steps: Sequence[Step], name: str, start: int) -> list[Step]:
    """GetBlobConsumers; where it would start behind the last layer, callers start at the layer itself."""
    return [step for step in steps[start:] for bottom in step.bottoms if bottom == name]


def _first_reader(steps: Sequence[Step], i: int, name: str, skipped: int = 1) -> Step | None:
    found = _readers(steps, name, i + skipped if i + skipped < len(steps) else i)
    return found[0] if found else None


class _Dropping:
    """The steps that a rule keeps: those that it drops are named before they are met."""

    def __init__(self) -> None:
        self.kept: list[Step] = []
        self._names: set[str] = set()

    def drop(self, step: Step) -> None:
        self._names.add(step.name)

    def keep(self, step: Step) -> None:
        if step.name in self._names:
            self._names.remove(step.name)
        else:
            self.kept.append(step)


def _remove_batch_norm(steps: list[Step]) -> list[Step]:
    """RemoveBNScale: BatchNorm, and Scale behind it, into the convolution in front."""
    rule = _Dropping()
    for i, step in enumerate(steps):
        child = _first_reader(steps, i, step.tops[0]) if step.type == "Convolution" and step.tops else None
        if child is not None and child.type == "BatchNorm" and child.tops:
            if not _global_statistics(child.layer):
                rule.kept.append(step)
                continue
            grandchild = _first_reader(steps, i, child.tops[0], 2)
            if grandchild is not None and grandchild.type == "Scale":
                step.tops[0] = grandchild.tops[0]
                step.parts.update(batch_norm=child.parts["layer"], scale=grandchild.parts["layer"])
                rule.drop(child)
                rule.drop(grandchild)
            elif grandchild is not None and grandchild is not child:
                step.tops[0] = child.tops[0]
                step.parts.update(batch_norm=child.parts["layer"])
                rule.drop(child)
        rule.keep(step)
    return rule.kept


def _global_statistics(layer: Layer) -> bool:
    param = layer.batch_norm_param
    return bool(param.use_global_stats) if param.HasField("use_global_stats") else True


def _merge_scale(steps: list[Step]) -> list[Step]:
    """CompilationRuleRemoveScale: a Scale into a BatchNorm that no convolution took."""
    rule = _Dropping()
    for i, step in enumerate(steps):
        if step.type == "BatchNorm" and step.tops and _is_mkldnn_batch_norm(step.layer):
            child = _first_reader(steps, i, step.tops[0])
            if child is not None and child.type == "Scale" and len(child.bottoms) == 1:
                step.tops[0] = child.tops[0]
                step.parts["scale"] = child.parts["layer"]
                rule.drop(child)
        rule.keep(step)
    return rule.kept


def _is_mkldnn_batch_norm(layer: Layer) -> bool:
    param, kinds = layer.batch_norm_param, caffe_pb2.BatchNormParameter
    by_net = param.engine == kinds.DEFAULT and not layer.HasField("engine")
    return param.engine == kinds.MKLDNN or by_net or (not param.HasField("engine") and layer.engine == NET_ENGINE)


def _fuses(engine: int, default: int, mkldnn: int, layer: Layer) -> bool:
    """The rules' question whether a layer runs on MKLDNN's CPU engine."""
    own = layer.engine or NET_ENGINE
    return engine == mkldnn or (engine == default and own.startswith("MKLDNN") and ":DLA" not in own)


def _is_mkldnn_relu(step: Step) -> bool:
    kinds = caffe_pb2.ReLUParameter
    return step.type == "ReLU" and _fuses(step.layer.relu_param.engine, kinds.DEFAULT, kinds.MKLDNN, step.layer)


def _fuse_relu(steps: list[Step], kind: str) -> list[Step]:
    """The ReLU behind a Convolution or InnerProduct into it."""
    rule = _Dropping()
    kinds = caffe_pb2.ConvolutionParameter
    for i, step in enumerate(steps):
        # of an InnerProduct, too, the engine of the convolution_param is asked
        engine = step.layer.convolution_param.engine
        if step.type == kind and step.tops and _fuses(engine, kinds.DEFAULT, kinds.MKLDNN, step.layer):
            child = _first_reader(steps, i, step.tops[0])
            if child is not None and child.tops and _is_mkldnn_relu(child):
                step.tops[0] = child.tops[0]
                step.relu = child.layer.relu_param.negative_slope
                step.parts["relu"] = child.parts["layer"]
                rule.drop(child)
        rule.keep(step)
    return rule.kept


def _fuse_conv_relu(steps: list[Step]) -> list[Step]:
    return _fuse_relu(steps, "Convolution")


def _fuse_fc_relu(steps: list[Step]) -> list[Step]:
    return _fuse_relu(steps, "InnerProduct")


def _fuse_bn_relu(steps: list[Step]) -> list[Step]:
    """A plain ReLU behind a BatchNorm that no convolution took."""
    rule = _Dropping()
    kinds = caffe_pb2.BatchNormParameter
    for i, step in enumerate(steps):
        engine = step.layer.batch_norm_param.engine
        by_net = engine == kinds.DEFAULT and not step.layer.HasField("engine")
        if step.type == "BatchNorm" and step.tops and (engine == kinds.MKLDNN or by_net):
            child = _first_reader(steps, i, step.tops[0])
            if child is not None and child.tops and _is_mkldnn_relu(child):
                if child.layer.relu_param.negative_slope == 0.0:
                    step.tops[0] = child.tops[0]
                    step.parts["relu"] = child.parts["layer"]
                    rule.drop(child)
        rule.keep(step)
    return rule.kept


def _fuse_sum(steps: list[Step]) -> list[Step]:
    """CompilationRuleConvSumFusion: the Eltwise that stands right behind a convolution, whatever it does, and a ReLU.

    One sum without a ReLU ends the fusion of ReLUs for the rest of the net, and a convolution whose Eltwise does not
    follow at once is added to the next one that is fused: neither is ever reset.
    """
    kept: list[Step] = []
    late: Step | None = None
    has_relu = True
    unusable: set[str] = set()
    i = -1
    while (i := i + 1) < len(steps):
        step = steps[i]
        if step.type == "Split" and len(step.tops) > 2:
            unusable.update(step.tops[:-1])
        kept.append(step)
        if step.type != "Convolution" or not step.tops or step.layer.engine not in ("", NET_ENGINE):
            continue
        eltwise = _first_reader(steps, i, step.tops[0])
        if eltwise is None or eltwise.type != "Eltwise" or not unusable.isdisjoint(eltwise.bottoms):
            continue
        relu = _first_reader(steps, i, eltwise.tops[0])
        if relu is None or relu.type != "ReLU":
            has_relu = False
        if eltwise is not steps[i + 1]:
            other = eltwise.bottoms[1 if eltwise.bottoms[0] == step.tops[0] else 0]
            makers = [maker for maker in steps[i + 1 :] for top in maker.tops if top == other]
            if not makers or makers[0].type == "Convolution":
                late = step
            continue
        if late is not None:
            residual = late.tops[0]
            if residual not in eltwise.bottoms:
                step.astray = late.name
            late = None
        else:
            residual = eltwise.bottoms[0 if eltwise.bottoms[1] == step.tops[0] else 1]
        step.bottoms.append(residual)
        step.summed = True
        step.parts["eltwise"] = eltwise.parts["layer"]
        step.tops[0] = eltwise.tops[0]
        i += 1
        if has_relu and relu is not None:
            step.tops[0] = relu.tops[0]
            step.parts["sum_relu"] = relu.parts["layer"]
            if step.relu is None:
                step.relu = step.layer.convolution_param.negative_slope
            i += 1  # whatever stands there is left out
    return kept


def _unavailable(steps: Sequence[Step]) -> Iterator[Trouble]:
    """What makes Net::Init abort: a bottom that no layer in front makes, or that an earlier one has taken."""
    available: set[str] = set()
    made: set[str] = set()
    astray = next((step for step in steps if step.astray), None)
    for step in steps:
        where = f"layer '{step.name}' ({step.type})"
        at = step.parts.get("layer", -1)
        for name in step.bottoms:
            if name not in available and at >= 0:
                if astray is not None:
                    said = (
                        f"{where}: finds no blob '{name}', for Intel Caffe takes convolution '{astray.astray}', which waits "
                        f"for a later Eltwise, for what '{astray.name}' is to be added to"
                    )
                    yield Trouble(at, said, True, astray.astray, UNFUSED)
                else:
                    yield Trouble(at, f"{where}: finds no blob '{name}' once layers are fused")
            available.discard(name)
        for name in step.tops:
            if name in made and name not in step.bottoms and at >= 0:
                yield Trouble(at, f"{where}: makes blob '{name}' a second time once layers are fused")
            available.add(name)
            made.add(name)


def _left_out(steps: Sequence[Step], layers: Sequence[Layer]) -> Iterator[Trouble]:
    """Layers that stand between a fused sum and its ReLU: as many are skipped as the ReLU would be."""
    inside = {index: step for step in steps for index in step.parts.values()}
    for index, layer in enumerate(layers):
        if index not in inside:
            before = max((i for i in inside if i < index), default=-1)
            sums = [step for step in steps if step.summed and step.parts["layer"] <= before]
            name = sums[-1].name if sums else ""
            said = f"layer '{layer.name}' ({layer.type}): is left out, for it stands between a fused sum and its ReLU"
            yield Trouble(index, said, True, name, UNFUSED if name else "")


def _without_blobs(steps: Sequence[Step], layers: Sequence[Layer]) -> Iterator[Trouble]:
    """Scales that are folded into what stands in front, and have not the two blobs that the folding takes."""
    for step in steps:
        if "scale" not in step.parts:
            continue
        layer = layers[step.parts["scale"]]
        param = layer.scale_param
        where = f"layer '{layer.name}' (Scale)"
        into = f"is folded into '{step.name}' ({step.type}), and"
        if len(layer.bottom) != 1:
            yield Trouble(step.parts["scale"], f"{where}: {into} has a second bottom in place of its factors")
        elif not param.bias_term:
            advice = "write bias_term: true, and zeros for it into the caffemodel"
            yield Trouble(step.parts["scale"], f"{where}: {into} has no bias, which that takes for granted; {advice}")
        elif param.axis not in (1, -3) or param.num_axes != 1:
            yield Trouble(step.parts["scale"], f"{where}: {into} does not scale channels")
