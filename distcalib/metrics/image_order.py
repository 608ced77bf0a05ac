"""The order in which images decide soonest that a candidate loses too much: FP32's errors, then what it nearly missed.

A candidate's errors are where FP32 errs or nearly errs, so its allowance is used up after little more images than FP32
gets wrong: on resnet20 and a MobileNet for CIFAR-10 after 28 to 34 % of the data, where images in the order of the data
take 91 to 99 % (docs/search.md).  Nothing is guessed by that: a verdict is as certain in any order.

Images are ordered inside fixed groups of iterations that follow one another, and batches are cut from each group's
order.  So a group can stay with the actor that has decoded its images, and groups, batches and their order follow from
the data and the FP32 net alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from distcalib.metrics.by_image import ByImage
from distcalib.metrics.partial import Partial

GROUP = 16
"""Iterations in a group, about: a batch is then 6 % of it, so that few easy images stand among hard ones."""

N_PROBES = 8
"""Batches that are looked at of all INT8 beside the hardest, for the size of its loss."""


@dataclass(frozen=True, eq=False)
class ImageOrder:
    """Batches of images, the hardest first.

    `images` (n_batches, batch) i32: numbers of images, counted on past the end of the data as iterations are; -1 where
    a batch has no more.  `groups`: the group of each batch, and `spans` the iterations of each group.  `reference`:
    what FP32 scores in each batch.
    """

    images: npt.NDArray[np.int32]
    groups: tuple[int, ...]
    spans: tuple[range, ...]
    reference: tuple[Partial, ...]

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def probes(self) -> tuple[int, ...]:
        """A few batches from the hardest to the easiest, evenly: they tell what the rest is likely to lose."""
        n_probes = min(len(self), N_PROBES)
        return tuple((2 * i + 1) * len(self) // (2 * n_probes) for i in range(n_probes))

    def homes(self, batches: Sequence[int], n_actors: int) -> list[list[int]]:
        """`batches` in their order by the actor that has met most of the images in the FP32 pass.

        In that pass each actor has a stretch of the iterations; of those that share a group each gets as many batches.
        """
        n_iterations = self.spans[-1].stop
        batches_of: list[list[int]] = [[] for _ in range(n_actors)]
        home = partial(home_of, n=n_iterations, n_actors=n_actors)
        sharing = [range(home(span.start), home(span.stop - 1) + 1) for span in self.spans]
        for batch in batches:
            least = min(sharing[self.groups[batch]], key=lambda actor: (len(batches_of[actor]), actor))
            batches_of[least].append(batch)
        return batches_of

    @cached_property
    def n_images(self) -> int:
        """How many stand in it."""
        return int(np.count_nonzero(self.images >= 0))


def home_of(iteration: int, n: int, n_actors: int) -> int:
    """The actor that has met an iteration in a pass of `n`, which are cut evenly."""
    return ((iteration + 1) * n_actors - 1) // n


def hard_first(found: Sequence[ByImage], batch: int) -> ImageOrder:
    """The order of what FP32 said of each image, by iteration: inside a group the wrong ones, then by rising margin.

    Batches stand in the order of the easiest image of each.
    """
    n = len(found)
    n_groups = max(1, round(n / GROUP))
    spans = tuple(range(group * n // n_groups, (group + 1) * n // n_groups) for group in range(n_groups))
    cut: list[tuple[bool, float, int, npt.NDArray[np.int32], int]] = []
    for group, span in enumerate(spans):
        numbers = np.concatenate([i * batch + found[i].rows for i in span]).astype(np.int32)
        hits = np.concatenate([found[i].hits for i in span])
        margins = np.concatenate([found[i].margins for i in span])
        order = np.lexsort((numbers, margins, hits))
        for begin in range(0, len(order), batch):
            part = order[begin : begin + batch]
            images = np.full(batch, -1, np.int32)
            images[: len(part)] = numbers[part]
            n_hits = int(np.count_nonzero(hits[part]))
            cut.append((bool(hits[part[-1]]), float(margins[part[-1]]), group, images, n_hits))
    cut.sort(key=lambda one: one[:3])
    return ImageOrder(
        np.stack([images for *_, images, _ in cut]),
        tuple(group for _, _, group, _, _ in cut),
        spans,
        tuple(Partial(n, size, size) for *_, images, n in cut for size in [int(np.count_nonzero(images >= 0))]),
    )
