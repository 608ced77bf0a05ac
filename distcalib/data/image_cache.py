"""Decoded images of the iterations that an actor has met, kept for the next program that reads them.

A search reads the same data again and again; decoding and resizing takes 1.5 ms an image of 500x375, what is left to do
with kept ones 0.1 ms (docs/real-size.md).  They are kept as bytes, before mean and scale, a quarter of what a net is
fed with.  What was kept first stays: passes go round through the data, and where not all of them have room, whoever
threw the oldest out would never have the next one wanted.

Images may be wanted by their numbers, too: those of an iteration that is kept are taken from it, and of another only
those that are wanted are decoded, and kept one by one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distcalib.data.datum import Pixels
from distcalib.data.left_out import Bad
from distcalib.data.source import FloatArray
from distcalib.data.transform import Transform
from distcalib.errors import DataError


class MemoryBudget:
    """Bytes that all sources of a process may still keep together."""

    def __init__(self, n_bytes: int = 0) -> None:
        self._left = n_bytes

    def take(self, n_bytes: int) -> bool:
        """Take so many of them; False, and none, where there are not as many."""
        if n_bytes > self._left:
            return False
        self._left -= n_bytes
        return True


@dataclass(frozen=True)
class Decoded:
    """One iteration of a source: images (N, C, H, W) before mean and scale, the other top, and its bad records."""

    images: Pixels
    labels: FloatArray
    bad: Bad


class KeepingSource(ABC):
    """A source of images and labels that keeps what it decoded as long as there is `room`."""

    tops: tuple[str, ...]
    batch_size: int
    _transform: Transform

    def __init__(self, where: str, room: MemoryBudget | None) -> None:
        """`where` begins errors: "net.prototxt: layer 'data' (Data)"."""
        self._where = where
        self._room = MemoryBudget() if room is None else room
        self._kept: dict[tuple[int, bool], Decoded] = {}
        self._single: dict[int, tuple[Pixels, FloatArray]] = {}  # by the image's number

    def batch(self, iteration: int, bad: Bad | None = None) -> dict[str, FloatArray]:
        """Records iteration·batch .. of the data, wrapped around at its end; see Source."""
        place = iteration, bad is None
        decoded = self._kept.get(place)
        if decoded is None:
            decoded = self._decode(iteration, None if bad is None else {})
            if self._room.take(decoded.images.nbytes + decoded.labels.nbytes):
                self._kept[place] = decoded
        if bad is not None:
            bad.update(decoded.bad)
        return dict(zip(self.tops, (self._transform.finish(decoded.images), decoded.labels.copy()), strict=False))

    def pick(self, numbers: Sequence[int]) -> dict[str, FloatArray]:
        """The images `numbers` as a batch of their own; see Source."""
        picked: dict[int, tuple[Pixels, FloatArray]] = {}
        missing: dict[int, list[int]] = {}
        for number in dict.fromkeys(numbers):
            known = self._known(number)
            if known is None:
                missing.setdefault(number // self.batch_size, []).append(number % self.batch_size)
            else:
                picked[number] = known
        for iteration, rows in missing.items():
            decoded = self._decode(iteration, None, rows)
            for place, row in enumerate(rows):
                number = iteration * self.batch_size + row
                picked[number] = pair = decoded.images[place].copy(), decoded.labels[place].copy()
                if self._room.take(pair[0].nbytes + pair[1].nbytes):
                    self._single[number] = pair
        images, labels = (np.stack(column) for column in zip(*map(picked.__getitem__, numbers), strict=True))
        return dict(zip(self.tops, (self._transform.finish(images), labels), strict=False))

    def _known(self, number: int) -> tuple[Pixels, FloatArray] | None:
        iteration, row = divmod(number, self.batch_size)
        for place in ((iteration, True), (iteration, False)):
            decoded = self._kept.get(place)
            if decoded is not None and row not in decoded.bad:
                return decoded.images[row], decoded.labels[row]
        return self._single.get(number)

    def images(self, iteration: int, bad: Bad | None = None) -> list[Pixels]:
        """The images of an iteration as they are before resizing and cropping: (C, H, W) u8, each of its own size.

        They are decoded again. `bad` as in `batch`.  Raises DataError, also for records that hold floats.
        """
        images = self._images(iteration, bad)
        if any(image.dtype != np.uint8 for image in images):
            raise DataError(f"{self._where}: has records of floats, not images; leave out --preprocess, or write bytes")
        return images

    def image(self, number: int) -> Pixels:
        """The image of record `number` as it is before resizing and cropping, (C, H, W), of whatever values it holds.

        Raises DataError.
        """
        iteration, row = divmod(number, self.batch_size)
        return self._images(iteration, None, [row])[0]

    def _shapes(self, image: Sequence[int], labels: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Of the tops, from the shape of an image and that of the other top."""
        shapes = (self.batch_size, *image), labels
        return dict(zip(self.tops, shapes, strict=False))

    @abstractmethod
    def _decode(self, iteration: int, bad: Bad | None, rows: Sequence[int] | None = None) -> Decoded:
        """Read an iteration, or only `rows` of it; bad records are entered into `bad`, or raise DataError where it is
        None.
        """

    @abstractmethod
    def _images(self, iteration: int, bad: Bad | None, rows: Sequence[int] | None = None) -> list[Pixels]:
        """As `images`, or only `rows` of them, of whatever values the records hold."""
