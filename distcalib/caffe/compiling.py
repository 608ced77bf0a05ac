"""What Intel Caffe makes of a TEST net before it runs it: Net::CompileNet, rule by rule.

The rules rename blobs, drop layers and look readers up by name from a place in the list, so what they do to a net that
none of them foresaw (a sum onto a blob that another layer was to read, a ReLU that is skipped by counting) follows from
doing the same with the same names, not from describing what they are for.
Source: net.cpp (CompileNet and its rules), remove_batch_norm.cpp and insert_splits.cpp of commit 44d5363, run with
`-engine MKLDNN`; the recorded nets agree (tests/engine/test_golden_rules.py).
"""

from collections.abc import Sequence

from distcalib.caffe import caffe_pb2
from distcalib.caffe.loading import loading_troubles
from distcalib.caffe.sparse import move_strides
from distcalib.caffe.steps import NET_ENGINE, Compiled, Layer, Step, first_reader


def compile_net(layers: Sequence[Layer]) -> Compiled:
    """The TEST net `layers` as Intel Caffe runs it."""
    steps = _insert_splits(layers)
    for rule in (_remove_batch_norm, _merge_scale, _fuse_conv_relu, _fuse_bn_relu):
        steps = rule(steps)
    steps, sparse = move_strides(steps)
    for rule in (_fuse_sum, _fuse_fc_relu):
        steps = rule(steps)
    troubles = [*sparse, *loading_troubles(steps, layers)]
    return Compiled(tuple(steps), tuple(sorted(troubles)))


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
        child = first_reader(steps, i, step.tops[0]) if step.type == "Convolution" and step.tops else None
        if child is not None and child.type == "BatchNorm" and child.tops:
            if not _global_statistics(child.layer):
                rule.kept.append(step)
                continue
            grandchild = first_reader(steps, i, child.tops[0], 2)
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
            child = first_reader(steps, i, step.tops[0])
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
            child = first_reader(steps, i, step.tops[0])
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
            child = first_reader(steps, i, step.tops[0])
            plain = child is not None and child.layer.relu_param.negative_slope == 0.0
            if child is not None and plain and child.tops and _is_mkldnn_relu(child):
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
        eltwise = first_reader(steps, i, step.tops[0])
        if eltwise is None or eltwise.type != "Eltwise" or not unusable.isdisjoint(eltwise.bottoms):
            continue
        relu = first_reader(steps, i, eltwise.tops[0])
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
