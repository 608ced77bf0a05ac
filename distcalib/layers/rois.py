"""ROIPooling and PSROIPooling: a fixed grid of bins over each of many boxes (Fast R-CNN, R-FCN).

OpenVINO's operators of the same names stem from the same code: bins, roundings, boxes beyond the image and empty bins
agree with Caffe's to the last bit of what is compared (tests/layers/test_rois.py).
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
