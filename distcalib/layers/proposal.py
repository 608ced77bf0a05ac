"""Region proposals: `rpn.proposal_layer.ProposalLayer`, the Python layer in Intel Caffe's Faster R-CNN and R-FCN, and
Proposal, the same in C++.

Any other Python layer is refused: its code is not in the prototxt.  This one's is public, and half of two families of
nets stands behind it.  The number of boxes depends on the image; a compiled net has fixed shapes, so there are always
post_nms_topn rows, and those beyond the boxes found are zeros, as in the C++ layers that replaced the Python one
(docs/decisions/015).  OpenVINO's own Proposal is not used: among equal scores its order is any, its boxes differ at
some ratios and thresholds, and with fewer places than rows it reads beyond its memory (2026.4).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any

import numpy as np
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, integers, reshape, shape_of
from distcalib.layers.suppression import suppressed

_ROWS = integers([0])


@dataclass(frozen=True)
class Proposing:
    """What the layer's param_str says; defaults are those that Faster R-CNN tests with."""

    feat_stride: int = 16
    """Pixels of the image between two places of the map."""
    scales: tuple[float, ...] = (8.0, 16.0, 32.0)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width."""
    base_size: int = 16
    """Side of the square that ratios and scales are applied to."""
    min_size: int = 16
    """Boxes with a side below that, in pixels before the image was resized, are dropped."""
    pre_nms_topn: int = 6000
    post_nms_topn: int = 300
    nms_thresh: float = 0.7


@converts("Python", bottoms=(0, None), tops=(0, None))
def python(layer: Layer, *inputs: Output) -> Sequence[Output]:
    """Scores (1, 2·A, H, W), deltas (1, 4·A, H, W) and im_info (1, 3) -> rois (R, 5) and, if asked for, scores (R, 1).

    A is the number of anchors: ratios times scales; the last A channels of scores count. im_info is height and width
    of the image and by what it was resized.  R is post_nms_topn.  Of equal scores the one stands first that comes
    first in (row, column, anchor); in the original any of them may.
    """
    layer.require(len(inputs) == 3, f"{len(inputs)} bottoms are given; scores, deltas and im_info are needed")
    layer.require(len(layer.tops) in (1, 2), f"{len(layer.tops)} tops are given; rois, and scores if wanted, are made")
    return _proposed(layer, inputs, _settings(layer, layer.param("python_param").param_str), drops=True)


@converts("Proposal", bottoms=(3, 3), tops=(1, 2))
def proposal(layer: Layer, *inputs: Output) -> Sequence[Output]:
    """The same in C++, of PVANET (sanghoon/caffe, proposal_layer.cpp): rois (R, 5) and, if asked for, scores (R,).

    ratio and scale are given, and an anchor's sides are rounded halves up.  im_info may be (1, 4), with one scale for
    the height and one for the width.  A box that is too small stays, with a score of 0.
    """
    p = layer.param("proposal_param")
    layer.require(
        len(p.ratio) > 0 and len(p.scale) > 0,
        f"proposal_param has {len(p.ratio)} ratio and {len(p.scale)} scale; both are needed, as in PVANET's Proposal",
    )
    layer.require(
        min(*p.ratio, *p.scale, p.feat_stride, p.base_size, p.pre_nms_topn, p.post_nms_topn) > 0,
        "ratio, scale, feat_stride, base_size, pre_nms_topn and post_nms_topn must be above zero",
    )
    settings = Proposing(
        p.feat_stride,
        tuple(p.scale),
        tuple(p.ratio),
        p.base_size,
        p.min_size,
        p.pre_nms_topn,
        p.post_nms_topn,
        p.nms_thresh,
    )
    tops = _proposed(layer, inputs, settings, drops=False)
    return [tops[0], *(reshape(scores, (settings.post_nms_topn,)) for scores in tops[1:])]


def _proposed(layer: Layer, inputs: Sequence[Output], settings: Proposing, drops: bool) -> list[Output]:
    """Rois (R, 5) and scores (R, 1); boxes that are too small are dropped, or have a score of 0."""
    scores, deltas, info = inputs
    n_anchors = len(settings.ratios) * len(settings.scales)
    places = _checked_places(
        layer,
        n_anchors,
        *map(shape_of, inputs),
    )
    own = ops.slice(scores, integers([n_anchors]), integers([2 * n_anchors]), integers([1]), integers([1])).output(0)
    anchors = _anchors(settings, places, np.rint if drops else _half_up)
    scales = [2] if drops or prod(shape_of(info)) == 3 else [3, 2]  # x first
    boxes, is_large = _boxes(deltas, info, anchors, settings.min_size, scales)
    likely = _by_place(own, 1)
    counts = is_large
    if not drops:
        likely = ops.select(is_large, likely, constant(0.0)).output(0)
        counts = ops.constant(np.ones((shape_of(boxes)[0], 1), np.bool_)).output(0)
    chosen, is_box = suppressed(
        boxes, likely, counts, settings.pre_nms_topn, settings.post_nms_topn, settings.nms_thresh
    )
    image = ops.concat(
        [constant(np.zeros((settings.post_nms_topn, 1), np.float32)), ops.gather(boxes, chosen, _ROWS)], 1
    )
    made = (image.output(0), ops.gather(likely, chosen, _ROWS).output(0))
    return [ops.select(is_box, top, constant(0.0)).output(0) for top in made[: len(layer.tops)]]


def _settings(layer: Layer, text: str) -> Proposing:
    """The settings in a param_str such as `'feat_stride': 16`; UnsupportedError for any other."""
    known = {field.name: field.default for field in fields(Proposing)}
    given = _mapping(text.replace("!!python/tuple", "").strip())
    layer.require(isinstance(given, dict), f"param_str {text!r} is not understood; \"'feat_stride': 16\" would be")
    values: dict[str, object] = {}
    for name, value in given.items():
        layer.require(name in known, f"param_str sets {name!r}; {', '.join(known)} can be set")
        wanted = known[name]
        if isinstance(wanted, tuple):
            fits = isinstance(value, list | tuple) and bool(value) and all(_is_positive(v) for v in value)
            values[name] = tuple(map(float, value)) if fits else None
        else:
            fits = _is_positive(value) and (isinstance(wanted, float) or isinstance(value, int))
            values[name] = value
        kind = "positive numbers" if isinstance(wanted, tuple) else f"a positive {type(wanted).__name__}"
        layer.require(fits, f"param_str sets {name} to {value!r}; {kind} would do")
    return Proposing(**values)  # type: ignore[arg-type]  # checked one by one


def _mapping(text: str) -> Any:
    """The mapping that YAML makes of `text`, in braces or an entry a line; None if that is none."""
    forms = [text] if text.startswith("{") else [f"{{{text}}}", f"{{{','.join(text.splitlines())}}}"]
    for form in forms:
        try:
            return ast.literal_eval(form)
        except (ValueError, SyntaxError, TypeError):
            continue
    return None


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _checked_places(
    layer: Layer,
    n_anchors: int,
    scores: tuple[int, ...],
    deltas: tuple[int, ...],
    info: tuple[int, ...],
) -> tuple[int, int]:
    """Height and width of the maps."""
    layer.require(len(scores) == 4 and scores[0] == 1, f"its scores have shape {scores}; one image at a time is known")
    wanted = ((1, 2 * n_anchors, *scores[2:]), (1, 4 * n_anchors, *scores[2:]))
    layer.require(
        (scores, deltas) == wanted,
        f"its scores have shape {scores} and its deltas {deltas}; {n_anchors} anchors need {wanted[0]} and {wanted[1]}",
    )
    layer.require(prod(info) in (3, 4, 6), f"im_info has shape {info}; (1, 3), height, width and scale, is needed")
    return scores[2], scores[3]


def _half_up(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.floor(x + 0.5)


def _anchors(
    settings: Proposing, places: tuple[int, int], rounded: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Boxes (H·W·A, 4) before they are moved: at each place one of each ratio and scale, scales running fastest."""
    middle = (settings.base_size - 1) / 2
    widths = rounded(np.sqrt(settings.base_size**2 / np.array(settings.ratios)))
    sides = np.stack([widths, rounded(widths * settings.ratios)], axis=1)  # (ratios, 2)
    half = ((sides[:, None] * np.array(settings.scales)[None, :, None] - 1) / 2).reshape(-1, 2)
    anchors = np.concatenate([middle - half, middle + half], axis=1)
    y, x = np.indices(places).reshape(2, -1, 1) * settings.feat_stride
    return np.asarray((np.stack([x, y, x, y], axis=-1) + anchors).reshape(-1, 4), np.float32)


def _by_place(maps: Output, n_values: int) -> Output:
    """(1, A·n, H, W) as (H·W·A, n)."""
    return reshape(ops.transpose(maps, integers([0, 2, 3, 1])).output(0), (prod(shape_of(maps)) // n_values, n_values))


def _boxes(
    deltas: Output, info: Output, anchors: NDArray[np.float32], min_size: int, scales: Sequence[int]
) -> tuple[Output, Output]:
    """Corners (n, 4) of the anchors moved, scaled and clipped to the image, and which of them are large enough (n, 1).

    `scales` are the places in im_info of by what the image was resized, along x and y where they are two.
    A delta is by what part of its size a center moves, and the logarithm of by what the size grows.
    """
    size = anchors[:, 2:] - anchors[:, :2] + np.float32(1.0)
    center = anchors[:, :2] + np.float32(0.5) * size
    moves, grows = ops.split(_by_place(deltas, 4), ops.constant(np.int64(1)), 2).outputs()
    middle = ops.add(ops.multiply(moves, constant(size)), constant(center))
    half = ops.multiply(ops.multiply(ops.exp(grows), constant(size)), constant(0.5))
    height_width_scale = reshape(info, (1, prod(shape_of(info))))
    last = ops.subtract(ops.gather(height_width_scale, integers([1, 0]), integers([1])), constant(1.0))
    low, high = (
        ops.maximum(ops.minimum(corner, last), constant(0.0))
        for corner in (ops.subtract(middle, half), ops.add(middle, half))
    )
    scale = ops.gather(height_width_scale, integers(scales), integers([1]))
    sides = ops.add(ops.subtract(high, low), constant(1.0))
    is_large = ops.reduce_logical_and(
        ops.greater_equal(sides, ops.multiply(scale, constant(float(min_size)))), integers([1]), keep_dims=True
    )
    return ops.concat([low, high], 1).output(0), is_large.output(0)
