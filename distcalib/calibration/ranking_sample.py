"""The images that a ranking looks at, and what FP32 makes of them.

It costs a part of a net for each layer, so a quarter of the images is taken where they may stand in other batches than
those of the data, and these are as small as that if the net can be built so. On resnet20, with 1, 3 and 5 planted
layers in five ways each, these are first of all in 50 draws of 20 out of 200 images; of all pairs of layers 50 images
have 97 % in the order of 200 on average, 100 have 98 %.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PICKED_IMAGES = 50
_GOLDEN = 0.6180339887
"""By which part of a step each image stands off: steps that are all alike would miss classes that take turns."""

Values = tuple[NDArray[np.float32], ...]
"""What the score is made from, output by output."""


@dataclass(frozen=True)
class Sample:
    """FP32's values by iteration, or, with `images` (n, batch) i32, by row of these: batches of images by number."""

    reference: Mapping[int, Values]
    images: NDArray[np.int32] | None = None

    def share_of(self, batch: int) -> float:
        """The part of the net's `batch` that an iteration is."""
        return 1.0 if self.images is None else self.images.shape[1] / batch


def picked(kept: Mapping[int, Values], batch: int, can_be: Callable[[int], bool]) -> Sample:
    """About PICKED_IMAGES of the iterations `kept`, spread evenly, in as few batches as hold them; all images if there
    are no more than that, or if a value has no row for each image. `can_be`: whether a batch can be of so many, fewer
    than `batch`."""
    n_batches = -(-PICKED_IMAGES // batch)
    has_rows = all(value.shape[:1] == (batch,) for values in kept.values() for value in values)
    if n_batches >= len(kept) or not has_rows:
        return Sample(kept)
    iterations = sorted(kept)
    n_rows = -(-PICKED_IMAGES // n_batches)
    if n_rows < batch and not can_be(n_rows):
        n_rows = batch
    steps = np.arange(n_batches * n_rows)
    stride = len(kept) * batch / len(steps)
    places = ((steps + np.modf(steps * _GOLDEN)[0]) * stride).astype(np.int64)
    numbers = np.concatenate([i * batch + np.arange(batch, dtype=np.int32) for i in iterations])
    every = [np.concatenate(values) for values in zip(*(kept[i] for i in iterations), strict=True)]
    rows = places.reshape(n_batches, n_rows)
    return Sample({i: tuple(values[rows[i]] for values in every) for i in range(n_batches)}, numbers[rows])
