"""The images that a ranking looks at, and what FP32 makes of them.

It costs a part of a net for each layer, so a few images are taken where they may stand in other batches than those of
the data. On resnet20, with 1, 3 and 5 planted layers in five ways each, these are first of all in 50 draws of 20 out of
200 images; of all pairs of layers 32 images have 96 % in the order of 200 on average, 50 have 97 %, 100 have 98 %.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from distcalib.engine.ranking_split import STACKED

PICKED_IMAGES = 35
LEAST_STACKED = 3
"""Candidates for which one net is worth its while."""
MOST_ROWS = 5
"""Images of a candidate that are computed at once: more take no less time, and fewer rows leave actors without one."""
_GOLDEN = 0.6180339887
"""By which part of a step each image stands off: steps that are all alike would miss classes that take turns."""

Values = tuple[NDArray[np.float32], ...]
"""What the score is made from, output by output."""


@dataclass(frozen=True)
class Sample:
    """FP32's values by iteration, or, with `images` (n, batch) i32, by row of these: batches of images by number."""

    reference: Mapping[int, Values]
    images: NDArray[np.int32] | None = None
    n_together: int = 0
    """Candidates that may go on behind each other in one batch, then of no more images than the net's; 0: none."""

    def share_of(self, batch: int) -> float:
        """The part of the net's `batch` that an iteration is."""
        return 1.0 if self.images is None else self.images.shape[1] / batch


def picked(kept: Mapping[int, Values], batch: int, can_be: Callable[[int], bool]) -> Sample:
    """About PICKED_IMAGES of the iterations `kept`, spread evenly: in rows of a few for candidates that go on behind
    each other, if the net can be built for them, else in as few batches as hold them.  All images if there are no more
    than that, or if a value has no row for each image.  `can_be`: whether a batch can be of so many images, others than
    `batch`.
    """
    if not all(value.shape[:1] == (batch,) for values in kept.values() for value in values):
        return Sample(kept)
    n_images, n_together = len(kept) * batch, min(STACKED, batch - 1)
    if n_together >= LEAST_STACKED:
        n_rows = _few(n_images, batch // (n_together + 1))
        if all(n == batch or can_be(n) for n in (n_rows, n_rows * (n_together + 1))):
            n_batches = -(-min(PICKED_IMAGES, n_images) // n_rows)
            return replace(_spread(kept, batch, n_batches, n_rows), n_together=n_together)
    n_batches = -(-PICKED_IMAGES // batch)
    if n_batches >= len(kept):
        return Sample(kept)
    n_rows = -(-PICKED_IMAGES // n_batches)
    return _spread(kept, batch, n_batches, n_rows if n_rows == batch or can_be(n_rows) else batch)


def _few(n_images: int, most: int) -> int:
    """Images a row, `most` at the most, so that all candidates of a piece together are about a batch of the net."""
    most = min(MOST_ROWS, most)
    if n_images > PICKED_IMAGES:
        return most
    return max(n for n in range(1, most + 1) if n_images % n == 0)  # so that none is left out


def _spread(kept: Mapping[int, Values], batch: int, n_batches: int, n_rows: int) -> Sample:
    """So many rows of so many images."""
    iterations = sorted(kept)
    steps = np.arange(n_batches * n_rows)
    stride = len(kept) * batch / len(steps)
    off = np.modf(steps * _GOLDEN)[0] if stride >= 2.0 else 0.0  # of less two might be the same image
    places = ((steps + off) * stride).astype(np.int64)
    numbers = np.concatenate([i * batch + np.arange(batch, dtype=np.int32) for i in iterations])
    every = [np.concatenate(values) for values in zip(*(kept[i] for i in iterations), strict=True)]
    rows = places.reshape(n_batches, n_rows)
    return Sample({i: tuple(values[rows[i]] for values in every) for i in range(n_batches)}, numbers[rows])
