"""Caffe layers as OpenVINO nodes: one small module a family, found through the registry.

The modules are imported by name, not by a glob: what is converted can be read here, and an import error is one.
"""

from distcalib.layers import (
    activations,
    argmax,
    batch_norm,
    deconvolution,
    eltwise,
    joining,
    lrn,
    normalize,
    pooling,
    prior_box,
    proposal,
    reduction,
    reshaping,
    rois,
    scale,
    softmax,
)
from distcalib.layers.blobs import Blobs, FileBlobs, RandomBlobs, ZeroBlobs
from distcalib.layers.geometry import Geometry, kernel_geometry
from distcalib.layers.registry import (
    CONVERTED,
    REFUSED,
    Layer,
    convert,
    converter,
    converts,
    layer_refusal,
    refusal,
    too_few,
)

__all__ = [
    "CONVERTED",
    "REFUSED",
    "Blobs",
    "FileBlobs",
    "Geometry",
    "Layer",
    "RandomBlobs",
    "ZeroBlobs",
    "activations",
    "argmax",
    "batch_norm",
    "convert",
    "converter",
    "converts",
    "deconvolution",
    "eltwise",
    "joining",
    "kernel_geometry",
    "layer_refusal",
    "lrn",
    "normalize",
    "pooling",
    "prior_box",
    "proposal",
    "reduction",
    "refusal",
    "reshaping",
    "rois",
    "scale",
    "softmax",
    "too_few",
]
