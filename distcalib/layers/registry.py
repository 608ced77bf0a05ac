"""The registry: Caffe layer type -> the function that builds its OpenVINO nodes.

A converter states how many bottoms and tops it takes where it is registered, so that a wrong count is one sentence
about the prototxt and not a TypeError. What a converter reads of its layer it reads through Layer, which knows how to
complain.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, KeysView, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from openvino import Output

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.data import DATA_TYPES
from distcalib.errors import UnsupportedError, WeightsError
from distcalib.layers.blobs import ROLES, Blobs, FloatArray
from distcalib.layers.refused import REFUSED, refused_code, refused_source

__all__ = [
    "CONVERTED",
    "FOLDING",
    "REFUSED",
    "Blobs",
    "Converter",
    "Layer",
    "convert",
    "converter",
    "converts",
    "layer_refusal",
    "refusal",
    "too_few",
]

Outputs: TypeAlias = "Output | Sequence[Output]"
Converter = Callable[..., Outputs]
"""converter(layer, *inputs) -> one output a top; a single top may come without the sequence around it."""

Counts = tuple[int, int | None]
"""At least, and at most; None: any number."""

_CONVERTERS: dict[str, Converter] = {}
_COUNTS: dict[str, tuple[Counts, Counts]] = {}

CONVERTED: KeysView[str] = _CONVERTERS.keys()
"""The types that have a converter: a live, set-like view."""

OTHERS = (*sorted(DATA_TYPES), "Accuracy", "SoftmaxWithLoss", "EuclideanLoss", "DetectionOutput", "DetectionEvaluate")
"""Types that are not converted for they run elsewhere, and may be meant where a name is wrong."""

FOLDING = frozenset({"Convolution", "InnerProduct"})
"""The types whose weights are quantized and absorb their neighbours: the engine builds these itself."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer as its converter sees it: the LayerParameter, its blobs, and whose file it is, for messages."""

    proto: LayerParameter
    blobs: Blobs
    source: str = "net"
    """The prototxt's name."""

    @property
    def name(self) -> str:
        """The layer's name, unique in a net."""
        return str(self.proto.name)

    @property
    def type(self) -> str:
        """Caffe's type name."""
        return str(self.proto.type)

    @property
    def tops(self) -> tuple[str, ...]:
        """Names of the blobs made."""
        return tuple(self.proto.top)

    @property
    def bottoms(self) -> tuple[str, ...]:
        """Names of the blobs read."""
        return tuple(self.proto.bottom)

    @property
    def where(self) -> str:
        """How a message about this layer begins: "deploy.prototxt: layer 'pool5' (Pooling)"."""
        return f"{self.source}: layer '{self.name}' ({self.type})"

    def param(self, name: str) -> Any:
        """The sub-message `name`, with proto2's defaults where the prototxt is silent."""
        return getattr(self.proto, name)

    @property
    def n_blobs(self) -> int | None:
        """How many blobs are stored; None if random or zero blobs stand in, of which there are as many as asked for."""
        return self.blobs.count(self.name)

    def blob(self, index: int, shape: tuple[int, ...]) -> FloatArray:
        """Blob `index` as float32 of `shape`; WeightsError if the caffemodel has none or another. See FileBlobs.get."""
        return self.blobs.get(self.name, index, shape, ROLES.get((self.type, index), ""))

    def expect_blobs(self, n: int) -> None:
        """WeightsError if the caffemodel has blobs of this layer that nobody would read; Caffe refuses it too."""
        stored = self.n_blobs
        if stored is not None and stored > n:
            raise WeightsError(
                f"{self.where}: the caffemodel has {stored} blobs and the prototxt uses {n}; "
                f"correct the prototxt (bias_term and the like) or give the caffemodel that belongs to it"
            )

    def require(self, condition: bool, message: str) -> None:
        """UnsupportedError "where: message" unless `condition`; the message says what is, then what would do."""
        if not condition:
            raise UnsupportedError(f"{self.where}: {message}")


def converts(*types: str, bottoms: Counts = (1, 1), tops: Counts = (1, 1)) -> Callable[[Converter], Converter]:
    """Register a converter under all spellings of its type, for so many (at least, at most) bottoms and tops."""

    def register(function: Converter) -> Converter:
        @functools.wraps(function)
        def checked(layer: Layer, *inputs: Output) -> Outputs:
            _require_count(layer, "bottom", len(inputs), bottoms)
            _require_count(layer, "top", len(layer.tops), tops)
            return function(layer, *inputs)

        for name in types:
            if name in _CONVERTERS:
                raise ValueError(f"layer type {name} is registered twice")
            _CONVERTERS[name] = checked
            _COUNTS[name] = bottoms, tops
        return checked

    return register


def refusal(layer_type: str) -> str | None:
    """Why no layer of this type is converted, to follow "layer 'x' (Type): "; None if some are.

    Sources and scores are not asked for here: data/ and metrics/ know theirs.
    """
    if layer_type in CONVERTED or layer_type in FOLDING:
        return None
    return REFUSED.get(layer_type) or f"is not a layer type of Caffe or Intel Caffe{_meant(layer_type)}"


def _meant(layer_type: str) -> str:
    """What somebody may have meant by a type that there is not, with "; " before it; "" if nothing comes near."""
    plain = layer_type.lower().replace("_", "")
    if "depthwise" in plain:
        return '; write type: "Convolution" with its convolution_param, whose group is the number of channels'
    known = {name.lower(): name for name in (*_CONVERTERS, *FOLDING, *REFUSED, *OTHERS)}
    close = difflib.get_close_matches(plain, known, n=1, cutoff=0.8)
    return f"; {known[close[0]]} is meant?" if close else ""


def layer_refusal(layer: LayerParameter) -> str | None:
    """Why this layer is not converted, whatever its shapes; None if it may be."""
    reason = refusal(layer.type) or refused_code(layer)
    return None if reason is None else refused_source(layer) or reason


def converter(layer_type: str) -> Converter:
    """The converter of a type; UnsupportedError with the reason if there is none."""
    reason = refusal(layer_type)
    if reason is not None:
        raise UnsupportedError(f"layer type {layer_type}: {reason}")
    return _CONVERTERS[layer_type]


def convert(layer: Layer, inputs: Sequence[Output]) -> tuple[Output, ...]:
    """Build the layer on `inputs` (one a bottom): one output a top.

    Raises UnsupportedError for a type or a parameter that is not converted, WeightsError for blobs that do not fit.
    """
    reason = layer_refusal(layer.proto)
    if reason is not None:
        raise UnsupportedError(f"{layer.where}: {reason}")
    made = _CONVERTERS[layer.type](layer, *inputs)
    outputs = (made,) if isinstance(made, Output) else tuple(made)
    if len(outputs) != len(layer.tops):
        raise AssertionError(f"{layer.where}: the converter made {len(outputs)} outputs for {len(layer.tops)} tops")
    return outputs


def too_few(layer: LayerParameter) -> str | None:
    """That bottoms or tops are missing, to follow "layer 'x' (Type): "; None if none is, or the type is not known. Too
    many are a matter of the converter."""
    known = ((1, 1), (1, 1)) if layer.type in FOLDING else _COUNTS.get(layer.type)
    if known is None or (len(layer.bottom) >= known[0][0] and len(layer.top) >= known[1][0]):
        return None
    return _wrong_count("bottom", len(layer.bottom), known[0]) or _wrong_count("top", len(layer.top), known[1])


def _require_count(layer: Layer, what: str, n: int, bounds: Counts) -> None:
    wrong = _wrong_count(what, n, bounds)
    layer.require(wrong is None, wrong or "")


def _wrong_count(what: str, n: int, bounds: Counts) -> str | None:
    low, high = bounds
    wanted = f"at least {low}" if high is None else str(low) if low == high else f"{low} to {high}"
    fits = n >= low and (high is None or n <= high)
    return None if fits else f"{n} {what}s are given; {wanted} can be converted"
