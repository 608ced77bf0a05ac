"""PriorBox: the boxes that an SSD refines, worked out before compiling, since they follow from shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from openvino import Output

from distcalib.layers.blobs import FloatArray
from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, shape_of, too_many

_SAME = 1e-6  # aspect ratios that are nearer are one
Pair = tuple[float, float]


@converts("PriorBox", bottoms=(2, 2))
def prior_box(layer: Layer, features: Output, image: Output) -> Output:
    """Corners and variances of P boxes at each place:  features (.., h, w), image (.., H, W) -> (1, 2, h·w·P·4).

    For each min_size, at each place: the square of that size, the square of sqrt(min_size · max_size) if there is one,
    then the aspect ratios other than 1.  Sizes are cut to whole pixels, as prior_box_layer.cpp does; it rounds centers
    and extents to float32, and each corner once.
    """
    p = layer.param("prior_box_param")
    _require_sizes(layer, p)
    layer.require(not (p.width or p.height), "width and height are those of a PriorBoxClustered; take them out")
    return _boxes(layer, features, image, np.array(list(_extents(p)), np.float32))


@converts("PriorBoxClustered", bottoms=(2, 2))
def prior_box_clustered(layer: Layer, features: Output, image: Output) -> Output:
    """A box of each `width` with its `height`, in pixels, at each place; else a PriorBox, without its sizes.

    Source: OpenVINO's operator of this name, which the Caffe of Open Model Zoo's training has too; corners, offset,
    step, clip and variance are those of a PriorBox.
    """
    p = layer.param("prior_box_param")
    layer.require(
        len(p.width) == len(p.height) > 0 and min(*p.width, *p.height) > 0.0,
        f"{len(p.width)} width and {len(p.height)} height; give as many of each, all above zero",
    )
    _require_variance(layer, p)
    extents = np.stack([np.array(list(p.width), np.float32), np.array(list(p.height), np.float32)], axis=1)
    return _boxes(layer, features, image, extents)


def _boxes(layer: Layer, features: Output, image: Output, extents: FloatArray) -> Output:
    """Boxes of `extents` (P, 2), width and height in pixels, at each place, and their variances."""
    p = layer.param("prior_box_param")
    shapes = shape_of(features), shape_of(image)
    layer.require(all(len(shape) == 4 for shape in shapes), f"its bottoms have shapes {shapes}; 4 axes are converted")
    (rows, columns), (height, width) = shapes[0][2:], shapes[1][2:]
    large = too_many((1, 2, rows * columns * len(extents) * 4))
    layer.require(large is None, large or "")
    size_h, size_w = _given(layer, p, "img_size", ("img_h", "img_w"), (height, width))
    step_h, step_w = _given(layer, p, "step", ("step_h", "step_w"), _quotients((size_h, size_w), (rows, columns)))
    offset = np.float32(p.offset)
    center_x = (np.arange(columns, dtype=np.float32) + offset) * np.float32(step_w)
    center_y = (np.arange(rows, dtype=np.float32) + offset) * np.float32(step_h)
    half = extents.astype(np.float64) / 2.0
    size = np.array([size_w, size_h], np.float64)
    values = np.empty((2, rows, columns, len(extents), 4), np.float32)
    centers = np.empty((columns, 1, 2), np.float64)
    centers[:, 0, 0] = center_x
    for row in range(rows):  # one at a time: all of them in float64 would take five times the memory of the top
        centers[:, 0, 1] = center_y[row]
        values[0, row, :, :, :2] = (centers - half) / size
        values[0, row, :, :, 2:] = (centers + half) / size
    if p.clip:
        np.clip(values[0], np.float32(0.0), np.float32(1.0), out=values[0])
    values[1] = np.array(list(p.variance) or [0.1], np.float32)
    return constant(values.reshape(1, 2, -1))


def _extents(p: Any) -> Iterator[Pair]:
    """Width and height of each box at a place, in pixels."""
    ratios = _ratios(p)
    for number, given in enumerate(p.min_size):
        least = int(given)
        yield least, least
        if p.max_size:
            side = np.sqrt(float(least * int(p.max_size[number])))
            yield side, side
        for ratio in ratios:
            root = np.sqrt(np.float64(ratio))
            yield least * root, least / root


def _ratios(p: Any) -> list[np.float32]:
    """The aspect ratios but 1, each once; with `flip` each followed by its inverse."""
    ratios = [np.float32(1.0)]
    for ratio in map(np.float32, p.aspect_ratio):
        if all(abs(float(ratio) - float(known)) >= _SAME for known in ratios):
            ratios += [ratio, np.float32(1.0 / float(ratio))] if p.flip else [ratio]
    return [ratio for ratio in ratios if abs(float(ratio) - 1.0) >= _SAME]


def _given(layer: Layer, p: Any, both: str, each: tuple[str, str], otherwise: Pair) -> Pair:
    """A pair of sizes, (vertical, horizontal): from the field `both`, or the two of `each`, or `otherwise`."""
    if any(p.HasField(name) for name in each):
        layer.require(not p.HasField(both), f"{both} and {each[0]}, {each[1]} are given; one of them must go")
        pair = getattr(p, each[0]), getattr(p, each[1])
        layer.require(min(pair) > 0, f"{each[0]}={pair[0]:g}, {each[1]}={pair[1]:g}; both must be above zero")
        return pair
    if p.HasField(both):
        size = getattr(p, both)
        layer.require(size > 0, f"{both}={size:g}; it must be above zero")
        return size, size
    return otherwise


def _quotients(image: Pair, features: Pair) -> Pair:
    """Pixels between two places, as float32."""
    return float(np.float32(image[0]) / np.float32(features[0])), float(np.float32(image[1]) / np.float32(features[1]))


def _require_sizes(layer: Layer, p: Any) -> None:
    for field, given in p.ListFields():
        values = np.atleast_1d(given).tolist()
        layer.require(bool(np.isfinite(values).all()), f"{field.name} {values}; numbers with an end are needed")
    layer.require(len(p.min_size) > 0 and min(p.min_size) > 0, f"min_size {list(p.min_size)}; give some above zero")
    pairs = list(zip(p.min_size, p.max_size, strict=False))
    layer.require(
        not p.max_size or (len(p.max_size) == len(p.min_size) and all(low < high for low, high in pairs)),
        f"max_size {list(p.max_size)} for min_size {list(p.min_size)}; give none, or a larger one for each",
    )
    layer.require(all(ratio > 0.0 for ratio in p.aspect_ratio), f"aspect_ratio {list(p.aspect_ratio)}; must be above 0")
    _require_variance(layer, p)


def _require_variance(layer: Layer, p: Any) -> None:
    layer.require(
        len(p.variance) in (0, 1, 4) and all(v > 0.0 for v in p.variance),
        f"variance {[round(v, 6) for v in p.variance]}; give one or four above zero",
    )
