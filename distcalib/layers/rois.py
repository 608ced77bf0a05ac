"""ROIPooling, PSROIPooling and ROIAlign: a fixed grid of bins over each of many boxes (Fast R-CNN, R-FCN).

OpenVINO's operators of the first two names stem from the same code: bins, roundings, boxes beyond the image and empty
bins agree with Caffe's to the last bit of what is compared (tests/layers/test_rois.py).
"""

from __future__ import annotations

from math import prod

import numpy as np
import openvino.opset13 as ops
from openvino import Output

from distcalib.layers.registry import Layer, converts
from distcalib.layers.shapes import constant, integers, reshape, shape_of


@converts("ROIPooling", bottoms=(2, 2))
def roi_pooling(layer: Layer, x: Output, rois: Output) -> Output:
    """The largest value of each bin:  x (N, C, H, W), rois (R, 5) -> (R, C, pooled_h, pooled_w).

    A row of rois is (index in the batch, x1, y1, x2, y2), corners of pixels of the image included; times spatial_scale
    they are rounded half away from zero.  A bin that lies outside of the map is 0 (roi_pooling_layer.cpp).  With
    pad_ratio, a box grows by that part of its sides on each side first (zhaoweicai/cascade-rcnn).
    """
    p = layer.param("roi_pooling_param")
    rois = _boxes(layer, x, rois)
    layer.require(not p.pooled_size, "pooled_size is not converted; pooled_h and pooled_w are")
    layer.require(
        p.pooled_h > 0 and p.pooled_w > 0, f"pooled_h={p.pooled_h}, pooled_w={p.pooled_w}; both must be above zero"
    )
    layer.require(p.spatial_scale > 0.0, f"spatial_scale={p.spatial_scale:g}; it must be above zero")
    layer.require(p.pad_ratio >= 0.0, f"pad_ratio={p.pad_ratio:g}; it must not be below zero")
    if p.pad_ratio:
        rois = _widened(rois, p.pad_ratio)
    return ops.roi_pooling(x, rois, [p.pooled_h, p.pooled_w], p.spatial_scale, "max").output(0)


@converts("ROIAlign", bottoms=(2, 2))
def roi_align(layer: Layer, x: Output, rois: Output) -> Output:
    """The values at the corners of the bins:  x (1, C, H, W), rois (R, 5) -> (R, C, pooled_h + 1, pooled_w + 1).

    Between pixels a value is bilinear.  Corners of a roi times spatial_scale, less half a pixel, are not rounded;
    pad_ratio is that of ROIPooling.  A corner of a bin more than half a pixel outside of the map is 0, and so is a roi
    without an area.  (zhaoweicai/cascade-rcnn, roi_align_layer.cpp; the layer of that name in other forks takes means
    of bins, and has parameters of its own)
    """
    p = layer.param("roi_pooling_param")
    rois = _boxes(layer, x, rois)
    n_images, n_channels, height, width = shape_of(x)
    layer.require(n_images == 1, f"its batch is {n_images}; one image at a time is converted")
    layer.require(
        p.pooled_h > 0 and p.pooled_w > 0, f"pooled_h={p.pooled_h}, pooled_w={p.pooled_w}; both must be above zero"
    )
    layer.require(min(height, width) > 1, f"its map is {height} by {width}; at least 2 by 2 is converted")
    if p.pad_ratio:
        rois = _widened(rois, p.pad_ratio)
    corners = ops.subtract(ops.multiply(rois, constant(p.spatial_scale)), constant(0.5)).output(0)
    axes = []
    for axis, (n_bins, size) in enumerate(((p.pooled_w, width), (p.pooled_h, height))):
        low, high = (ops.gather(corners, integers([1 + axis + 2 * end]), integers([1])) for end in (0, 1))
        length = ops.subtract(high, low)
        steps = constant(np.arange(n_bins + 1, dtype=np.float32)[None])
        at = ops.add(low, ops.multiply(steps, ops.divide(length, constant(float(n_bins)))))  # (R, bins + 1)
        inside = ops.logical_and(
            ops.logical_and(ops.greater_equal(at, constant(-0.5)), ops.less_equal(at, constant(size - 0.5))),
            ops.greater(length, constant(0.0)),
        )
        normal = ops.subtract(ops.multiply(at, constant(2.0 / (size - 1))), constant(1.0))
        axes.append((normal, ops.convert(inside, "f32")))
    n_rois, grid = shape_of(rois)[0], (p.pooled_h + 1, p.pooled_w + 1)
    spread = ops.constant(np.array([n_rois, *grid, 1], np.int64))
    at_x, at_y = (
        ops.broadcast(ops.unsqueeze(ops.unsqueeze(axes[i][0], integers([1 + i])), integers([3])), spread)
        for i in (0, 1)
    )
    where = reshape(ops.concat([at_x, at_y], 3).output(0), (1, n_rois * grid[0], grid[1], 2))
    taken = ops.grid_sample(x, where, {"align_corners": True, "mode": "bilinear", "padding_mode": "border"}).output(0)
    by_roi = ops.transpose(reshape(taken, (n_channels, n_rois, *grid)), integers([1, 0, 2, 3]))
    inside_x = ops.unsqueeze(ops.unsqueeze(axes[0][1], integers([1])), integers([1]))
    inside_y = ops.unsqueeze(ops.unsqueeze(axes[1][1], integers([1])), integers([3]))
    return ops.multiply(ops.multiply(by_roi, inside_x), inside_y).output(0)


@converts("PSROIPooling", bottoms=(2, 2))
def psroi_pooling(layer: Layer, x: Output, rois: Output) -> Output:
    """The mean of each bin, of a channel of its own:  x (N, D·G·G, H, W), rois (R, 5) -> (R, D, G, G).

    D is output_dim, G group_size; bin (i, j) of output d comes from channel (d·G + i)·G + j.  Corners are rounded
    before they are scaled, the last one counts as a pixel, a box is at least 0.1 wide; an empty bin is 0
    (psroi_pooling_layer.cpp).
    """
    p = layer.param("psroi_pooling_param")
    rois = _boxes(layer, x, rois)
    layer.require(
        p.output_dim > 0 and p.group_size > 0,
        f"output_dim={p.output_dim}, group_size={p.group_size}; both must be above zero",
    )
    channels, needed = shape_of(x)[1], p.output_dim * p.group_size**2
    layer.require(
        channels == needed,
        f"its input has {channels} channels; output_dim={p.output_dim} times group_size={p.group_size} squared, "
        f"{needed}, are needed",
    )
    layer.require(p.spatial_scale > 0.0, f"spatial_scale={p.spatial_scale:g}; it must be above zero")
    return ops.psroi_pooling(x, rois, p.output_dim, p.group_size, p.spatial_scale, 1, 1, "average").output(0)


def _boxes(layer: Layer, x: Output, rois: Output) -> Output:
    """The rois as (R, 5); they may have further axes of size 1, as blobs of the time before N-D have."""
    maps, boxes = shape_of(x), shape_of(rois)
    layer.require(len(maps) == 4, f"its first input has {len(maps)} axes; 4 (N, C, H, W) are converted")
    layer.require(
        len(boxes) >= 2 and prod(boxes[1:]) == 5,
        f"its second input has shape {boxes}; (R, 5), an index in the batch and a box each, is converted",
    )
    return reshape(rois, (boxes[0], 5))


def _widened(rois: Output, ratio: float) -> Output:
    """Each box larger by `ratio` times its sides, corners included, on each side."""
    index, low, high = ops.variadic_split(rois, ops.constant(np.int64(1)), integers([1, 2, 2])).outputs()
    margin = ops.multiply(ops.add(ops.subtract(high, low), constant(1.0)), constant(ratio))
    return ops.concat([index, ops.subtract(low, margin), ops.add(high, margin)], 1).output(0)
