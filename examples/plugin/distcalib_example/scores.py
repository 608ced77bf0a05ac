"""AbsoluteError: the mean of |score of the label - 1| over the records, lower is better."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.metrics import Partial, scores


@scores("AbsoluteError", lower_is_better=True)
def absolute_error(layer: LayerParameter, bottoms: Sequence[npt.NDArray[Any]]) -> Partial:
    """Bottoms: predictions (N, C), labels (N)."""
    predictions, labels = bottoms[0].reshape(len(bottoms[0]), -1), bottoms[1].astype(int).ravel()
    found = predictions[np.arange(len(labels)), labels].astype(np.float64)
    return Partial(float(np.abs(found - 1.0).sum()), len(labels))
