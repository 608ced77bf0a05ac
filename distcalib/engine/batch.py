"""The batch of one iteration, and what is left of it where records could not be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distcalib.data import FLAG, VARIES, Bad, KeepingSource, LeftOut, PickingSource, Pixels, Source
from distcalib.errors import DataError, told

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """The tops of the data layers in one iteration, of `size` records from number `first` on.

    `left_out`: those that could not be read, in whose place are copies of others; `bad`: the rows that they are in.
    """

    tops: Mapping[str, Array]
    by_item: frozenset[str]
    """Tops whose rows begin with the number of their record: boxes."""
    first: int
    size: int
    bad: frozenset[int]
    left_out: tuple[LeftOut, ...]
    images: Sequence[Pixels] = ()
    """By row, where they are asked for: (C, H, W) u8 before the data layer resizes and crops, each of its own size."""
    numbers: Sequence[int] | None = None
    """Of the records, by row, where they do not follow one another."""

    @cached_property
    def good(self) -> list[int]:
        """The rows that are records."""
        return [row for row in range(self.size) if row not in self.bad]

    @property
    def records(self) -> Sequence[int]:
        """The number in the data of each good record."""
        return [self.first + row if self.numbers is None else self.numbers[row] for row in self.good]

    def kept(self, values: Array, name: str = "") -> Array:
        """What is left of `values` (N, ...), or of the top `name`; as it is where it has no row a record."""
        if not self.bad:
            return values
        if name in self.by_item:
            left = self.kept_boxes(values)
            # as a batch without objects has it
            return left if left.size else np.full((*values.shape[:-2], 1, values.shape[-1]), -1.0, np.float32)
        return values[self.good] if values.shape[:1] == (self.size,) else values

    def kept_boxes(self, boxes: Array) -> Array:
        """What is left of boxes (.., n, k) that begin with the row of their record; it counts the good ones then."""
        if not self.bad:
            return boxes
        rows = boxes.reshape(-1, boxes.shape[-1])
        place_of = {float(row): float(place) for place, row in enumerate(self.good)}
        left = rows[[float(row[0]) in place_of for row in rows]]
        left[:, 0] = [place_of[float(item)] for item in left[:, 0]]
        return left.reshape(*boxes.shape[:-2], *left.shape)


def records_an_iteration(sources: Sequence[Source]) -> int:
    """The batch size of the first layer with boxes, else of the first on a data set, else of the first: the arrays of
    an Input or DummyData layer may be of something else than records, such as the size of an image.
    """
    boxes = [source for source in sources if any(VARIES in shape for shape in source.shapes.values())]
    sets = [source for source in sources if source.index is not None]
    return next((source.batch_size for source in (*boxes, *sets, *sources)), 0)


def read_images(sources: Sequence[Source], numbers: Sequence[int], place: int) -> Batch:
    """The records `numbers` as batch `place` of their order; the rest of it, -1, are rows that are no records."""
    n = sum(number >= 0 for number in numbers)
    filled = [number if number >= 0 else numbers[0] for number in numbers]
    tops: dict[str, Array] = {}
    with told(DataError, f"batch {place} of images: its data cannot be read", "write the data again, or copy it again"):
        for source in sources:
            assert isinstance(source, PickingSource), "the driver looked at the types of the data layers"
            tops.update(source.pick(filled))
    return Batch(tops, frozenset(), 0, len(numbers), frozenset(range(n, len(numbers))), (), numbers=filled)


def read_batch(sources: Sequence[Source], iteration: int, skip_bad: bool, with_images: bool = False) -> Batch:
    """What the data layers give; raises DataError for a bad record unless `skip_bad`, and where no good one is left.

    `with_images`: those that the one data layer of images begins with come along.
    """
    bad_by_source: list[Bad] = [{} for _ in sources]
    with told(DataError, f"iteration {iteration}: its data cannot be read", "write the data again, or copy it again"):
        tops = {
            top: values
            for source, own in zip(sources, bad_by_source, strict=True)
            for top, values in source.batch(iteration, own if skip_bad else None).items()
        }
        images = _images(sources, iteration, skip_bad) if with_images else ()
    bad = frozenset(row for own in bad_by_source for row in own)
    left_out = tuple(sorted(one for own in bad_by_source for one in own.values()))
    size = records_an_iteration(sources)
    if bad and len(bad) == size:
        known = left_out[0]
        raise DataError(
            f"iteration {iteration}: each of its {size} records is bad in one of the data layers, such as {known.key} "
            f"of '{known.layer}', and {FLAG} needs one that is good in each iteration; take them out of the data"
        )
    by_item = frozenset(top for source in sources for top, shape in source.shapes.items() if VARIES in shape)
    return Batch(tops, by_item, iteration * size, size, bad, left_out, images)


def _images(sources: Sequence[Source], iteration: int, skip_bad: bool) -> Sequence[Pixels]:
    [source] = [source for source in sources if isinstance(source, KeepingSource)]
    return source.images(iteration, {} if skip_bad else None)
