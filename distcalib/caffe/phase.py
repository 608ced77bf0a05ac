"""The layers of a net that take part in its TEST phase.

Rules are Caffe's (Net::FilterNet, Net::StateMeetsRule): the state that `caffe test` filters by has phase TEST, the
level of the command line in place of the file's, and the file's stages followed by those of the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from distcalib.caffe import caffe_pb2
from distcalib.caffe.forks import lower
from distcalib.caffe.needed import LeftOut, needed
from distcalib.caffe.upgrade import upgrade_inputs
from distcalib.errors import FormatError, UnsupportedError

_TWO_TOPS = ("InfogainLoss", "SoftmaxWithLoss")
"""Scores with a second top that is not evaluated, the probabilities: not made where nothing reads it."""
_BY_PHASE = frozenset({"BN", "BatchNorm", "Dropout", "Python", "SpatialDropout"})
"""The types, beside data layers and stochastic Pooling, which draws, whose result depends on their phase: in training a
BatchNorm has the statistics of its batch, a Dropout drops."""


class State(NamedTuple):
    """What --stage and --level say, as those of `caffe test` do: stages beside the file's, a level in place of its."""

    stages: tuple[str, ...] = ()
    level: int = 0

    def of(self, net: caffe_pb2.NetParameter) -> caffe_pb2.NetState:
        """The state that the layers of `net` are chosen by."""
        stages = dict.fromkeys([*net.state.stage, *self.stages])
        return caffe_pb2.NetState(phase=caffe_pb2.TEST, level=self.level, stage=list(stages))


PLAIN = State()


def test_net(
    net: caffe_pb2.NetParameter,
    given: State = PLAIN,  # noqa: PT028  # its name is the interface, but it is no test of pytest's
    where: str = "",  # noqa: PT028
) -> caffe_pb2.NetParameter:
    """A copy of `net` with the layers of the TEST phase only, legacy net inputs as an Input layer, and its state set.

    `where`: what messages call it; by default its own name.

    What a test does not need is left out, too (see needed.py), and types of forks get the names that are converted.

    FormatError if a layer has include and exclude rules both, as in Caffe; UnsupportedError if a layer whose result
    depends on its phase says `phase: TRAIN` outside a rule, because Caffe would run it as in training."""
    state, where = given.of(net), where or f"net '{net.name}'"
    both = [layer.name for layer in net.layer if layer.include and layer.exclude]
    if both:
        raise FormatError(f"{where}: layers {_quoted(both)} have include and exclude rules both; keep one kind")
    kept, _ = needed([layer for layer in net.layer if _takes_part(layer, state)])
    training = [layer.name for layer in kept if _trains(layer)]
    if training:
        raise UnsupportedError(
            f"{where}: layers {_quoted(training)} say `phase: TRAIN` outside an include rule, so Caffe would "
            "run them as in training inside the test net; remove the line, or write `include { phase: TRAIN }`"
        )
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    result.layer.extend(kept)
    read = {blob for layer in result.layer for blob in layer.bottom}
    for layer in result.layer:
        lower(layer)
        if given.level:  # whoever reads this net filters by level 0
            layer.ClearField("include")
            layer.ClearField("exclude")
        if layer.type in _TWO_TOPS and len(layer.top) == 2 and layer.top[1] not in read:
            del layer.top[1]
    result.state.CopyFrom(state)
    upgrade_inputs(result)
    for layer in result.layer:
        if layer.type.endswith("Loss") and not layer.top:
            layer.top.append(layer.name)  # Caffe makes up a top for a loss without one, "(automatic)"
    return result


test_net.__test__ = False  # type: ignore[attr-defined]  # keeps pytest from collecting it


def left_out(net: caffe_pb2.NetParameter, given: State = PLAIN) -> list[LeftOut]:
    """The layers of `net`, all phases, that take part in TEST and that `test_net` leaves out all the same."""
    return needed(in_test(net, given))[1]


def in_test(net: caffe_pb2.NetParameter, given: State = PLAIN) -> list[caffe_pb2.LayerParameter]:
    """The layers of `net` that take part in TEST, themselves and not copies."""
    state = given.of(net)
    return [layer for layer in net.layer if _takes_part(layer, state)]


def _trains(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether the layer says that it trains, and would compute something else then."""
    if not layer.HasField("phase") or layer.phase != caffe_pb2.TRAIN:
        return False
    if layer.type == "BatchNorm" and layer.batch_norm_param.HasField("use_global_stats"):
        return False
    if layer.type == "Pooling":
        return bool(layer.pooling_param.pool == caffe_pb2.PoolingParameter.STOCHASTIC)
    return layer.type in _BY_PHASE or not layer.bottom


def _takes_part(layer: caffe_pb2.LayerParameter, state: caffe_pb2.NetState) -> bool:
    """A layer without include rules takes part unless an exclude rule holds; with them, if one of them holds."""
    if layer.include:
        return any(state_meets_rule(state, rule) for rule in layer.include)
    return not any(state_meets_rule(state, rule) for rule in layer.exclude)


def state_meets_rule(state: caffe_pb2.NetState, rule: caffe_pb2.NetStateRule) -> bool:
    """True if every condition that `rule` names holds; an empty rule always does."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    stages = set(state.stage)
    return stages.issuperset(rule.stage) and stages.isdisjoint(rule.not_stage)


def left_out_by(layer: caffe_pb2.LayerParameter, state: caffe_pb2.NetState, stages: Iterable[str]) -> str | None:
    """Which stage or level leaves the layer out of TEST, "what; what would do"; None if it takes part, or a phase does.

    `stages`: those of `state` that the command line sets."""
    if _takes_part(layer, state):
        return None
    for rule in layer.include or layer.exclude:
        if rule.HasField("phase") and rule.phase != state.phase:
            continue
        said = _unmet(rule, state, stages) if layer.include else _met(rule, state, stages)
        if said:
            return f"{', '.join(what for what, _ in said)}; {' and '.join(remedy for _, remedy in said)}"
    return None


def _unmet(rule: caffe_pb2.NetStateRule, state: caffe_pb2.NetState, stages: Iterable[str]) -> list[tuple[str, str]]:
    """The conditions of an include rule that do not hold, each with what would do."""
    said = []
    if rule.HasField("min_level") and state.level < rule.min_level:
        said.append((f"from level {rule.min_level} on (min_level), and it is {state.level}", _level(rule.min_level)))
    if rule.HasField("max_level") and state.level > rule.max_level:
        said.append((f"up to level {rule.max_level} (max_level), and it is {state.level}", _level(rule.max_level)))
    missing = [stage for stage in dict.fromkeys(rule.stage) if stage not in state.stage]
    if missing:
        said.append(("in a stage that is not set", "give " + " ".join(f"--stage {stage}" for stage in missing)))
    unwanted = [stage for stage in dict.fromkeys(rule.not_stage) if stage in state.stage]
    if unwanted:
        said.append((f"but not in stage {_quoted(unwanted)} (not_stage), which is set", _unset(unwanted, stages)))
    return said


def _met(rule: caffe_pb2.NetStateRule, state: caffe_pb2.NetState, stages: Iterable[str]) -> list[tuple[str, str]]:
    """The conditions by which an exclude rule holds, each with what would do; none where it names the phase alone."""
    if rule.stage:
        return [(f"but not in stage {_quoted(rule.stage)} (exclude), which is set", _unset(rule.stage, stages))]
    if rule.not_stage:
        return [("in a stage that is not set (exclude)", f"give --stage {rule.not_stage[0]}")]
    if rule.HasField("min_level"):
        return [(f"below level {rule.min_level} (exclude), and it is {state.level}", _level(rule.min_level - 1))]
    if rule.HasField("max_level"):
        return [(f"above level {rule.max_level} (exclude), and it is {state.level}", _level(rule.max_level + 1))]
    return []


def _level(level: int) -> str:
    return f"give --level {level}"


def _unset(unwanted: Iterable[str], stages: Iterable[str]) -> str:
    """How stages are set no more: those of the command line, and those that stand in the file."""
    flags = [f"--stage {stage}" for stage in unwanted if stage in set(stages)]
    own = [stage for stage in unwanted if stage not in set(stages)]
    remedies = [f"leave out {' '.join(flags)}"] * bool(flags) + [
        f"take stage {_quoted(own)} out of the state in the file"
    ] * bool(own)
    return " and ".join(remedies)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
