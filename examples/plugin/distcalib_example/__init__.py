"""A plugin of distcalib: a layer, a score, a data layer and a search strategy that Caffe and distcalib do not have."""

from distcalib_example import halves, layers, npy, scores

__all__ = ["halves", "layers", "npy", "scores"]
