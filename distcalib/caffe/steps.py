"""A layer as Intel Caffe has compiled it, which engine runs it, and what may be wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from distcalib.caffe import caffe_pb2

Layer = caffe_pb2.LayerParameter
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


def runs_on_caffe(layer: Layer) -> bool:
    """Whether a Convolution or InnerProduct runs in Caffe's own engine, which knows no INT8 and no fused ReLU."""
    if layer.type == "InnerProduct":
        inner = layer.inner_product_param
        engine, special = inner.engine, inner.transpose
        default, caffe = caffe_pb2.InnerProductParameter.DEFAULT, caffe_pb2.InnerProductParameter.CAFFE
        return engine == caffe or (engine == default and (special or _own_engine(layer) == "CAFFE"))
    engine_of = layer.convolution_param.engine
    return engine_of == caffe_pb2.ConvolutionParameter.CAFFE or (
        engine_of == caffe_pb2.ConvolutionParameter.DEFAULT and _own_engine(layer) == "CAFFE"
    )


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
    if layer.type == "Pooling" and _pools_its_own_way(layer):
        return False
    if layer.type == "LRN" and layer.lrn_param.norm_region != caffe_pb2.LRNParameter.ACROSS_CHANNELS:
        return False
    own = params[layer.type]
    return bool(own.engine != own.CAFFE)  # type: ignore[attr-defined]


def _pools_its_own_way(layer: Layer) -> bool:
    """Whether a Pooling reads FP32: Intel Caffe's MKLDNN has no AVE_EXC_PAD, and a mask lies on no grid."""
    kinds = caffe_pb2.PoolingParameter
    return layer.pooling_param.pool in (kinds.STOCHASTIC, kinds.AVE_EXC_PAD) or len(layer.top) > 1


def _own_engine(layer: Layer) -> str:
    """The engine before the colon; "" where the net's is taken."""
    return layer.engine.split(":")[0]


def first_reader(steps: Sequence[Step], i: int, name: str, skipped: int = 1) -> Step | None:
    """The first layer behind place `i` (`skipped` places and more) that reads blob `name`: the first that
    GetBlobConsumers finds; where it would start behind the last layer, callers start at the layer itself."""
    start = i + skipped if i + skipped < len(steps) else i
    return next((steps[k] for k in range(start, len(steps)) if name in steps[k].bottoms), None)
