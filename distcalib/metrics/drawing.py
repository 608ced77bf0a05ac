"""A sample of the images for a test: the more likely an answer is to flip, the sooner it is looked at.

Where FP32 is sure INT8 hardly ever answers otherwise, so most of a sample in which all images are alike says nothing.
Here each image has a rate, and they are taken by u / rate with u uniform in (0, 1).  Of any beginning of that order an
image is in it with probability min(1, rate · t), t being that number of the first image behind it, and as if drawn by
itself: so Σ loss / probability is an unbiased estimate of what all images lose, and Σ loss² (1 - p) / p² one of its
variance (priority sampling; Duffield, Lund and Thorup 2007).  Nothing is assumed of the data, which may be sorted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from distcalib.metrics.by_image import ByImage
from distcalib.metrics.partial import Partial, PartialScore

SOON = 0.1
"""The part of the images that is within a width of the boundary."""
FALL = 3.0
"""Widths over which rates fall by e."""
LEAST_RATE = 0.2
"""Of the surest image, where the most doubtful has 1: so that a candidate which errs anywhere is seen to.  With less
the few sure images of a sample weigh so much that their number, not the test, decides."""
LEAST_FLIPS = 8
"""Answers that differ from FP32's, below which a sample tells too little; those that weigh more count for less."""
FIRST_IMAGES, LOOK_FACTOR = 300, 1.5
"""At how many images a sample is looked at first, and after how many times as many again."""


@dataclass(frozen=True)
class Hits(Partial):
    """A count with the images that it is of: `right` (n,) in the order of the batch."""

    right: bytes = b""


@dataclass(frozen=True, eq=False)
class Drawing:
    """All images in the order in which they are drawn, in batches.

    `images` (n_batches, batch) i32, -1 where the last batch has no more; `rates` and `times` of each drawn image, and
    `right` whether FP32 has it right.  `reference`: what FP32 scores in each batch.
    """

    images: npt.NDArray[np.int32]
    rates: npt.NDArray[np.float64]
    times: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    reference: tuple[Partial, ...]

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def n_images(self) -> int:
        """How many stand in it."""
        return len(self.right)

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """The numbers of batches at which an early answer may be given; none is within the last tenth."""
        counts, at = [], float(-(-FIRST_IMAGES // self.images.shape[1]))
        while at <= 0.9 * len(self):
            counts.append(int(at))
            at *= LOOK_FACTOR
        return tuple(dict.fromkeys(counts))

    def loss(self, values: Mapping[int, PartialScore], length: int) -> tuple[float, float, int]:
        """After `length` batches: about what an image loses on average, the standard error of that, and by how many
        answers that differ from FP32's the error is known.

        They count for less where some weigh more than others: of their parts v of a variance V, V² / Σ v² would tell as
        much of it if they weighed alike (Kish's effective sample size, Satterthwaite's degrees of freedom).
        """
        partials = [values[i] for i in range(length)]
        assert all(isinstance(one, Hits) for one in partials), "what is drawn tells of each image"
        hits = np.concatenate([np.frombuffer(one.right, np.bool_) for one in partials if isinstance(one, Hits)])
        n, n_all = len(hits), self.n_images
        losses = self.right[:n].astype(np.float64) - hits
        if n == n_all:
            return math.fsum(losses) / n_all, 0.0, int(np.abs(losses).sum())
        chances = np.minimum(1.0, self.rates[:n] * self.times[n])
        least = min(1.0, LEAST_RATE * float(self.times[n]))
        parts = losses**2 * (1.0 - chances) / chances**2
        # And one flip more, of an image that is least likely to be drawn: those that are missing are of such.
        variance, squares = math.fsum(parts) + (1.0 - least) / least**2, math.fsum(parts**2)
        n_flips = float(np.abs(losses).sum())
        if squares:
            n_flips = min(n_flips, variance**2 / squares)
        return math.fsum(losses / chances) / n_all, math.sqrt(variance) / n_all, int(n_flips)


def drawn(found: Sequence[ByImage], batch: int) -> Drawing:
    """The order of what FP32 said of each image, by iteration."""
    numbers = np.concatenate([i * batch + one.rows for i, one in enumerate(found)]).astype(np.int32)
    right = np.concatenate([one.hits for one in found])
    sizes = np.abs(np.concatenate([one.margins for one in found]).astype(np.float64))
    finite = sizes[np.isfinite(sizes)]
    width = float(np.quantile(finite, SOON)) if len(finite) else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.maximum(LEAST_RATE, np.exp(-np.where(sizes > 0.0, sizes / (FALL * max(width, 1e-30)), 0.0)))
    uniform = np.random.default_rng(0).random(len(numbers))
    times = uniform / rates
    order = np.lexsort((numbers, times))
    n_batches = -(-len(order) // batch)
    images = np.full(n_batches * batch, -1, np.int32)
    images[: len(order)] = numbers[order]
    counts = [int(np.count_nonzero(right[order[i * batch : (i + 1) * batch]])) for i in range(n_batches)]
    lengths = [min(batch, len(order) - i * batch) for i in range(n_batches)]
    reference = tuple(Partial(count, n, n) for count, n in zip(counts, lengths, strict=True))
    return Drawing(images.reshape(-1, batch), rates[order], times[order], right[order], reference)
