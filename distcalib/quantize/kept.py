"""What is known of a blob's memory at a time, and what comes of a pass over the net; see memory.py."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob
from distcalib.caffe.steps import Trouble
from distcalib.quantize.fusion import Fused
from distcalib.quantize.grids import Grid
from distcalib.quantize.layouts import PLAIN

ONE = 1.0
"""The scale of FP32."""


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
    scale: float = ONE
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
