"""Scores of a net: Caffe's accuracy and loss layers as exact partial results that merge in any order. NumPy only."""

from distcalib.metrics.choice import choose_score, lower_is_better
from distcalib.metrics.deciding import Decider
from distcalib.metrics.host_layers import HOST_TYPES, LOSS_TYPES, check_layer, evaluate_layer
from distcalib.metrics.partial import Partial, mean

__all__ = [
    "HOST_TYPES",
    "LOSS_TYPES",
    "Decider",
    "Partial",
    "check_layer",
    "choose_score",
    "evaluate_layer",
    "lower_is_better",
    "mean",
]
