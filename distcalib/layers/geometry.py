"""Kernel, stride, pad and dilation of a Convolution or Deconvolution, whichever of Caffe's three spellings is used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from distcalib.layers.registry import Layer

Pair = tuple[int, int]
_OF_TWO_AXES = (
    *(f"{stem}_{axis}" for stem in ("kernel", "stride", "pad", "dilation") for axis in "hw"),
    *(f"pad_{side}" for side in "tblr"),
)


@dataclass(frozen=True)
class Geometry:
    """All (height, width), in pixels."""

    kernel: Pair
    stride: Pair
    pad: Pair
    dilation: Pair
    end: Pair | None = None
    """The padding behind, where that is another: pad_b and pad_r."""

    @property
    def pad_end(self) -> Pair:
        """The padding below and on the right; `pad` is that above and on the left."""
        return self.pad if self.end is None else self.end

    def deconv_size(self, size: Pair) -> Pair:
        """Spatial size that a deconvolution gives: stride·(n - 1) + extent - 2·pad (deconv_layer.cpp)."""
        h, w = (self.stride[i] * (size[i] - 1) + self._extent(i) - 2 * self.pad[i] for i in (0, 1))
        return h, w

    def _extent(self, i: int) -> int:
        return self.dilation[i] * (self.kernel[i] - 1) + 1


def kernel_geometry(layer: Layer) -> Geometry:
    """The geometry of the layer's convolution_param (2-D), by the rules of Caffe's base_conv_layer.cpp.

    Each of kernel, stride and pad is `X_h` with `X_w`, or `X` given once for both axes or once an axis; stride and
    dilation default to 1, pad to 0. Raises UnsupportedError for both spellings at once, for other counts (3-D), and
    for a kernel, stride or dilation of 0.
    """
    p = layer.param("convolution_param")
    geometry = Geometry(
        kernel=_pair(layer, p, "kernel_size", "kernel", None),
        stride=_pair(layer, p, "stride", "stride", 1),
        pad=_pair(layer, p, "pad", "pad", 0),
        dilation=_pair(layer, p, "dilation", "dilation", 1),
    )
    sides = pads_by_side(layer, p, any(geometry.pad))
    if sides is not None:
        geometry = replace(geometry, pad=sides[0], end=sides[1])
    for what in ("kernel", "stride", "dilation"):
        layer.require(min(getattr(geometry, what)) > 0, f"{what} is {getattr(geometry, what)}; it must be above zero")
    return geometry


@dataclass(frozen=True)
class AxesGeometry:
    """Of a convolution over any number of axes: a number for each of them."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def pad_end(self) -> tuple[int, ...]:
        """The padding behind, which is that in front."""
        return self.pad


def axes_geometry(layer: Layer, n_axes: int) -> AxesGeometry:
    """The geometry of the layer's convolution_param over `n_axes` axes, 1 or 3, by base_conv_layer.cpp.

    Each value is given once for all axes or once an axis; X_h with X_w are for two axes.  Raises UnsupportedError.
    """
    p = layer.param("convolution_param")
    for name in _OF_TWO_AXES:
        layer.require(not p.HasField(name), f"{name} is for images, and its input has {n_axes} axes of positions")

    def values(name: str, default: int | None) -> tuple[int, ...]:
        given = tuple(int(value) for value in getattr(p, name)) or (() if default is None else (default,))
        layer.require(len(given) in (1, n_axes), f"{name} is given {len(given)} times; 1 or {n_axes} fit its input")
        return given * (n_axes // len(given))

    geometry = AxesGeometry(values("kernel_size", None), values("stride", 1), values("pad", 0), values("dilation", 1))
    for what in ("kernel", "stride", "dilation"):
        layer.require(min(getattr(geometry, what)) > 0, f"{what} is {getattr(geometry, what)}; it must be above zero")
    return geometry


def pads_by_side(layer: Layer, p: Any, padded: bool) -> tuple[Pair, Pair] | None:
    """The pads (above, on the left) and (below, on the right) of a convolution_param or pooling_param; None without.

    They are Synopsys Caffe's, which does not let them stand beside another pad.
    """
    before, behind = (p.pad_t, p.pad_l), (p.pad_b, p.pad_r)
    layer.require(p.pad_type == 0, f"pad_type={p.pad_type} is not converted; pad_l, pad_r, pad_t and pad_b are")
    if not (any(before) or any(behind)):
        return None
    layer.require(not padded, "pad and pad_l, pad_r, pad_t, pad_b are both given; keep one kind")
    return before, behind


def _pair(layer: Layer, p: Any, name: str, stem: str, default: int | None) -> Pair:
    h, w = f"{stem}_h", f"{stem}_w"
    if not (p.HasField(h) or p.HasField(w)):
        return _repeated(layer, name, getattr(p, name), default)
    layer.require(len(getattr(p, name)) == 0, f"{name} and {h}/{w} are both given; one of them must go")
    # A missing half is proto2's default 0 in Caffe, which only a pad survives: kernel_geometry refuses the other zeros.
    return int(getattr(p, h)), int(getattr(p, w))


def _repeated(layer: Layer, name: str, values: Any, default: int | None) -> Pair:
    given = tuple(int(v) for v in values)
    if not given and default is not None:
        return default, default
    layer.require(len(given) in (1, 2), f"{name} is given {len(given)} times; once or twice (2-D) is converted")
    return given[0], given[-1]
