"""A sample of the images for a test: the more likely an answer is to flip, the sooner it is looked at.

Where FP32 is sure INT8 hardly ever answers otherwise, so most of a sample in which all images are alike says nothing.
Here each image has a rate, and they are taken by u / rate with u uniform in (0, 1).  Of any beginning of that order an
image is in it with probability min(1, rate · t), t being that number of the first image behind it, and as if drawn by
itself: so Σ loss / probability is an unbiased estimate of what all images lose, and Σ loss² (1 - p) / p² one of its
variance (priority sampling; Duffield, Lund and Thorup 2007).  Nothing is assumed of the data, which may be sorted.

A sample is looked at after fixed numbers of batches.  What is drawn between two of them is put into batches as it lies
in the data, so that an actor can mostly be given images that it has decoded already.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from distcalib.metrics.by_image import ByImage
from distcalib.metrics.image_order import home_of
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
    """All images, in batches, in the order in which they are drawn from look to look.

    `images` (n_batches, batch) i32, -1 where the last batch has no more; `rates` of each, and `right` whether FP32 has
    it right, alike.  `looks`: the numbers of batches at which an early answer may be given, and `times` by look that
    at which the first image behind it was drawn.  `reference`: what FP32 scores in each batch; `n_iterations`: of the
    pass that it is of.
    """

    images: npt.NDArray[np.int32]
    rates: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    times: Mapping[int, float]
    reference: tuple[Partial, ...]
    n_iterations: int

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def n_images(self) -> int:
        """How many stand in it."""
        return len(self.right)

    @property
    def looks(self) -> tuple[int, ...]:
        """The numbers of batches at which an early answer may be given."""
        return tuple(self.times)

    @cached_property
    def _iterations(self) -> list[int]:
        """That of the middle image of each batch, as they lie in it."""
        middles = np.count_nonzero(self.images >= 0, axis=1) // 2
        found: list[int] = (self.images[np.arange(len(self)), middles] // self.images.shape[1]).tolist()
        return found

    def homes(self, batches: Sequence[int], n_actors: int) -> list[list[int]]:
        """`batches` in their order by the actor that has met most of the images in the FP32 pass, about: where that has
        had its middle image."""
        batches_of: list[list[int]] = [[] for _ in range(n_actors)]
        for batch in batches:
            batches_of[home_of(self._iterations[batch], self.n_iterations, n_actors)].append(batch)
        return batches_of

    def loss(self, values: Mapping[int, PartialScore], length: int) -> tuple[float, float, int]:
        """At the look after `length` batches, or at the end: about what an image loses on average, the standard error
        of that, and by how many answers that differ from FP32's the error is known.

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
        chances = np.minimum(1.0, self.rates[:n] * self.times[length])
        least = min(1.0, LEAST_RATE * self.times[length])
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
    times = np.random.default_rng(0).random(len(numbers)) / rates
    order = np.lexsort((numbers, times))
    n_batches = -(-len(order) // batch)
    at_look = {look: float(times[order[look * batch]]) for look in _looks(n_batches, batch)}
    for begin, end in pairwise((0, *at_look, n_batches)):
        part = order[begin * batch : end * batch]
        part.sort()  # images are numbered in the order of the data, and so are their places in `numbers`
    images = np.full(n_batches * batch, -1, np.int32)
    images[: len(order)] = numbers[order]
    counts = [int(np.count_nonzero(right[order[i * batch : (i + 1) * batch]])) for i in range(n_batches)]
    lengths = [min(batch, len(order) - i * batch) for i in range(n_batches)]
    reference = tuple(Partial(count, n, n) for count, n in zip(counts, lengths, strict=True))
    return Drawing(images.reshape(-1, batch), rates[order], right[order], at_look, reference, len(found))


def _looks(n_batches: int, batch: int) -> tuple[int, ...]:
    """After how many of `n_batches` a sample is looked at; none is within the last tenth."""
    counts, at = [], float(-(-FIRST_IMAGES // batch))
    while at <= 0.9 * n_batches:
        counts.append(int(at))
        at *= LOOK_FACTOR
    return tuple(dict.fromkeys(counts))
