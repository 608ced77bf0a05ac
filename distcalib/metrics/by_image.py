"""What an Accuracy layer says of each image: whether it was right, and by how much its own class leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.metrics.host_layers import score_rows

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ByImage:
    """Of the images of one iteration that were scored, (n,) each.

    `rows`: their places in the batch; `hits`: whether the own class is among the top_k; `margins`: the score of the own
    class less the k-th best of the others, so that hits have 0 or more.
    """

    rows: npt.NDArray[np.int32]
    hits: npt.NDArray[np.bool_]
    margins: npt.NDArray[np.float32]


def by_image(layer: LayerParameter, bottoms: Sequence[Array], rows: Sequence[int]) -> ByImage:
    """What `layer`, an Accuracy that counts each image once, makes of the images at `rows` of a batch.

    Raises what score_layer raises.
    """
    scores, labels, hits = score_rows(layer, bottoms[0], bottoms[1])
    n, n_classes, k = len(labels), scores.shape[1], layer.accuracy_param.top_k
    if k >= n_classes:
        margins = np.full(n, np.inf, np.float32)
    else:
        others = scores.astype(np.float64)
        own = others[np.arange(n), labels].copy()
        others[np.arange(n), labels] = -np.inf
        with np.errstate(invalid="ignore"):
            margins = (own - np.partition(others, n_classes - k, axis=1)[:, n_classes - k]).astype(np.float32)
        margins[np.isnan(margins)] = -np.inf
    return ByImage(np.asarray(rows, np.int32), hits, margins)


def classes_of(layer: LayerParameter, bottoms: Sequence[Array]) -> tuple[list[int], list[int]]:
    """Of each label that `layer`, an Accuracy, counts: the label, and the class of the highest score.

    Of equal scores the last counts, as it does for Accuracy.  Raises what score_layer raises.
    """
    scores, labels, _ = score_rows(layer, bottoms[0], bottoms[1])
    classes = scores.shape[1] - 1 - np.argmax(scores[:, ::-1], axis=1)
    return labels.tolist(), classes.tolist()
