"""The images that a ranking looks at, and what FP32 makes of them.

It costs a part of a net for each layer, so half the images are taken where they may stand in other batches than those
of the data: on resnet20 with planted layers 100 images rank the hard layers as 200 do.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PICKED_IMAGES = 100
_GOLDEN = 0.6180339887
"""By which part of a step each image stands off: steps that are all alike would miss classes that take turns."""

Values = tuple[NDArray[np.float32], ...]
"""What the score is made from, output by output."""


@dataclass(frozen=True)
class Sample:
    """FP32's values by iteration, or, with `images` (n, batch) i32, by row of these: batches of images by number."""

    reference: Mapping[int, Values]
    images: NDArray[np.int32] | None = None


def picked(kept: Mapping[int, Values], batch: int) -> Sample:
    """About PICKED_IMAGES of the iterations `kept`, spread evenly, in as few batches as hold them; all images if there
    are no more than that, or if a value has no row for each image."""
    n_batches = -(-PICKED_IMAGES // batch)
    has_rows = all(value.shape[:1] == (batch,) for values in kept.values() for value in values)
    if n_batches >= len(kept) or not has_rows:
        return Sample(kept)
    iterations = sorted(kept)
    steps = np.arange(n_batches * batch)
    places = ((steps + np.modf(steps * _GOLDEN)[0]) * len(kept) / n_batches).astype(np.int64)
    numbers = np.concatenate([i * batch + np.arange(batch, dtype=np.int32) for i in iterations])
    every = [np.concatenate(values) for values in zip(*(kept[i] for i in iterations), strict=True)]
    rows = places.reshape(n_batches, batch)
    return Sample({i: tuple(values[rows[i]] for values in every) for i in range(n_batches)}, numbers[rows])
