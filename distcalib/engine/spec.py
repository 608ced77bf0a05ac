"""What the driver asks of a worker, and what it gets back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, Graph, build_graph
from distcalib.data import LeftOut, Pixels
from distcalib.metrics import ByImage, PartialScore
from distcalib.quantize.ranges import Range


@dataclass(frozen=True)
class Sampling:
    """Which values are observed over the iterations from `first` to before `end`, `block` iterations a row.

    A row holds the merged state of its block, and blocks depend on these numbers alone: so the number of rows, and
    with it the driver's memory, is bounded whatever the number of iterations, and the result is the same on any number
    of actors.  `values` tells whether every value is looked at, or the least and the largest only, which the engine
    finds without handing the values out.

    With `errors` the taps are results of convolutions and inner products, and observed is the mean error, by output
    channel, that INT8 makes in each of them from FP32 inputs: `values` of the row, the mean over its block.
    """

    taps: tuple[Blob, ...]
    values: bool
    first: int
    end: int
    block: int
    errors: bool = False
    by_channel: tuple[Blob, ...] = ()
    """Of taps whose ends are observed, those of which `values` of the row has the ends of each channel, (C, 2)."""
    scored: bool = False
    """Whether a row, of one iteration then, has its scores, too."""
    sound: bool = False
    """Whether the net is looked at for NaN and infinity first, since no FP32 pass of this engine will."""

    @property
    def n_rows(self) -> int:
        """Blocks, the last of which may be short."""
        return -(-(self.end - self.first) // self.block)

    @property
    def row_sizes(self) -> tuple[int, ...]:
        """How many iterations each row is of."""
        return tuple(len(self.iterations_of(row)) for row in range(self.n_rows))

    def iterations_of(self, row: int) -> range:
        """The iterations of a row."""
        begin = self.first + row * self.block
        return range(begin, min(begin + self.block, self.end))


@dataclass(frozen=True)
class Outputs:
    """Which values are handed out as they are, a row an iteration, from iteration `first` on.

    Two programs compared on the same values tell what quantization did to them without a label or a score.  Whoever
    asks holds every row: a batch of each value times the iterations.  A value inside a fused group is in no program.
    """

    blobs: tuple[Blob, ...]
    first: int = 0


@dataclass(frozen=True)
class Kept:
    """Which of the values that scores are made from come along with the scores, and of which iterations."""

    blobs: tuple[Blob, ...]
    iterations: tuple[int, ...]


@dataclass(frozen=True)
class NetSpec:
    """One program: the TEST net as bytes, quantized or not.

    It scores; with `sampling` it observes instead, with `outputs` it hands values out instead.

    `changed` are blobs that replace those of the run's caffemodel, by layer: of layers whose weights depend on the
    candidate.

    `by_image`: the score, an Accuracy's, of which each row tells what it is made of, image by image.  `images`
    (n, batch) i32: iterations are batches of these images, and not as the data lie; see ImageOrder.
    """

    net: bytes
    where: str
    sampling: Sampling | None = None
    changed: Mapping[str, tuple[NDArray[np.float32], ...]] = field(default_factory=dict, compare=False)
    outputs: Outputs | None = None
    kept: Kept | None = None
    by_image: str = ""
    images: NDArray[np.int32] | None = field(default=None, compare=False)

    @property
    def scores(self) -> bool:
        """Whether it scores; what observes or hands out values only the embedded engine can run."""
        return self.sampling is None and self.outputs is None

    @property
    def layers(self) -> Sequence[caffe_pb2.LayerParameter]:
        """Those of the net, in its order."""
        layers: Sequence[caffe_pb2.LayerParameter] = caffe_pb2.NetParameter.FromString(self.net).layer
        return layers

    @property
    def graph(self) -> Graph:
        """The net's layers as values."""
        return build_graph(self.layers, self.where)


Model = Callable[[Mapping[str, NDArray[np.float32]], Sequence[Pixels]], Mapping[Blob, NDArray[np.float32]]]
"""A model in whatever runtime: what the data layers give, by top, and the images if it takes these, to its outputs."""


@dataclass(frozen=True)
class ElsewhereSpec:
    """The scores of `net` from what another runtime answers in the engine's place.

    `open_model`, called in the actor with the number of its threads, makes the model; it must be picklable.  It
    computes `makes`, detections included where they are among them; the other layers with a score run as always.
    """

    net: NetSpec
    makes: tuple[Blob, ...]
    open_model: Callable[[int], Model]
    takes_images: bool = False
    """Whether it does itself what the data layer does to its images."""

    @property
    def scores(self) -> bool:
        """It does nothing else."""
        return True


@dataclass(frozen=True)
class Row:
    """One iteration's partial score of each output blob, or its `values` where they are handed out, or a block's range
    of each tap; and the kernels that ran, None where the engine does not tell.
    """

    scores: Mapping[str, PartialScore]
    ranges: tuple[Range, ...]
    kernels: Mapping[str, str] | None
    values: Mapping[Blob, NDArray[np.float32]] = field(default_factory=dict)
    distances: Mapping[str, float] = field(default_factory=dict)
    """Of a ranking, in place of all else: by candidate the mean squared distance of its output from FP32's."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Of a net that is timed, in place of all else: by layer the time of the iteration."""
    whole_seconds: float = 0.0
    """Of a net that is timed: the time of the whole iteration."""
    left_out: tuple[LeftOut, ...] = ()
    """The records of the iteration, or the block, that could not be read: all else is of the others."""
    by_image: ByImage | None = None
    """What the score that was asked for so says of each image."""
    n_missing: int = 0
    """Of mean errors: the rows of the block that they are in, fewer where two data layers lack one in the same."""


def is_int8_kernel(name: str) -> bool:
    """Whether a kernel, as OpenVINO names it, multiplies integers: brgconv_avx512_I8, and of what AMX runs on s8 inputs
    brgconv_avx512_amx_i8 (2026.4)."""
    return name.upper().endswith("I8")
