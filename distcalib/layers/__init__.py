"""Caffe layers as OpenVINO nodes: one small module a family, found through the registry.

The modules are imported by name, not by a glob: what is converted can be read here, and an import error is one.
"""

from distcalib.layers import (
    activations,
    argmax,
    batch_norm,
    deconvolution,
    eltwise,
    fork_norm,
    joining,
    lookup,
    lrn,
    normalize,
    pooling,
    prior_box,
    proposal,
    reduction,
    reshaping,
    resizing,
    rois,
    scale,
    softmax,
)
from distcalib.layers.blobs import Blobs, FileBlobs, RandomBlobs, ZeroBlobs
from distcalib.layers.geometry import Geometry, kernel_geometry
from distcalib.layers.registry import CONVERTED, REFUSED, Layer, convert, converter, converts, layer_refusal, refusal

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
    "fork_norm",
    "joining",
    "kernel_geometry",
    "layer_refusal",
    "lookup",
    "lrn",
    "normalize",
    "pooling",
    "prior_box",
    "proposal",
    "reduction",
    "refusal",
    "reshaping",
    "resizing",
    "rois",
    "scale",
    "softmax",
]
