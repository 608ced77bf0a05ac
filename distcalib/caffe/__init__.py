"""Caffe's files: nets as text or binary, in all formats there ever were, and weights without a copy."""

from distcalib.caffe.paths import resolve_path, resolve_sources
from distcalib.caffe.phase import test_net
from distcalib.caffe.reading import read_label_map, read_net
from distcalib.caffe.sharing import share, shared_params
from distcalib.caffe.weights import Weights, read_weights
from distcalib.caffe.weights_writing import write_net_weights, write_weights
from distcalib.caffe.writing import net_text, write_atomically

__all__ = [
    "Weights",
    "net_text",
    "read_label_map",
    "read_net",
    "read_weights",
    "resolve_path",
    "resolve_sources",
    "share",
    "shared_params",
    "test_net",
    "write_atomically",
    "write_net_weights",
    "write_weights",
]
