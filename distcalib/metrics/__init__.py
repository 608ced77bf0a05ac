"""Scores of a net: Caffe's accuracy and loss layers, and mAP, as exact partial results that merge.  NumPy only."""

from distcalib.metrics.by_image import ByImage, by_image, classes_of
from distcalib.metrics.deciding import Decider
from distcalib.metrics.detection_evaluate import read_sizes
from distcalib.metrics.detections import AP_VERSIONS, DEFAULT_AP, Detections, absent_classes, average_precisions
from distcalib.metrics.drawing import Drawing, Hits, drawn
from distcalib.metrics.eval_detection import LEAST_SCORE, N_ANCHORS
from distcalib.metrics.frcnn_output import FRCNN
from distcalib.metrics.host_layers import (
    DETECTION,
    HOST_TYPES,
    LOSS_TYPES,
    MAP_TYPES,
    SCORE_TYPES,
    SECOND_TOPS,
    YOLO_DETECTION,
    check_layer,
    check_shapes,
    evaluate_layer,
    make_layer,
    score_layer,
    scores,
)
from distcalib.metrics.image_order import ImageOrder, hard_first
from distcalib.metrics.of_losses import OF_LOSSES, name_of_losses, named_as_written
from distcalib.metrics.pairing import mcnemar, paired_interval
from distcalib.metrics.partial import (
    Partial,
    PartialScore,
    class_accuracies,
    class_counts,
    detections_of,
    mean,
    merged,
    without_labels,
)
from distcalib.metrics.score_blob import choose_score, is_map, is_mean, lower_is_better, score_layers
from distcalib.metrics.segmentation import SEGMENTATION, Confusion, confusions_of
from distcalib.metrics.yolo_v3 import YOLO_V2, YOLO_V3

__all__ = [
    "AP_VERSIONS",
    "ByImage",
    "DEFAULT_AP",
    "DETECTION",
    "Confusion",
    "SEGMENTATION",
    "confusions_of",
    "FRCNN",
    "HOST_TYPES",
    "LEAST_SCORE",
    "LOSS_TYPES",
    "MAP_TYPES",
    "N_ANCHORS",
    "OF_LOSSES",
    "SCORE_TYPES",
    "SECOND_TOPS",
    "YOLO_DETECTION",
    "YOLO_V2",
    "YOLO_V3",
    "Decider",
    "Detections",
    "Drawing",
    "Hits",
    "ImageOrder",
    "Partial",
    "PartialScore",
    "absent_classes",
    "average_precisions",
    "by_image",
    "classes_of",
    "check_layer",
    "check_shapes",
    "choose_score",
    "class_accuracies",
    "class_counts",
    "detections_of",
    "drawn",
    "evaluate_layer",
    "hard_first",
    "is_map",
    "is_mean",
    "lower_is_better",
    "make_layer",
    "mean",
    "mcnemar",
    "name_of_losses",
    "named_as_written",
    "merged",
    "without_labels",
    "paired_interval",
    "read_sizes",
    "score_layer",
    "score_layers",
    "scores",
]
