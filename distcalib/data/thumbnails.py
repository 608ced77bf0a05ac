"""A record's image made small, to be looked at beside its key."""

from __future__ import annotations

import cv2
import numpy as np

from distcalib.data.datum import Bytes, Pixels
from distcalib.data.image_cache import KeepingSource
from distcalib.data.source import PickingSource, Source

SIDE = 96
"""Pixels of the longer side, at the most."""
_LEAST = 4  # pixels of a side: below that it is a vector rather than an image
_SHARP = 48  # up to that side every pixel is kept: JPEG would blur what is drawn large
_QUALITY = 80


def thumbnail(source: Source, number: int) -> tuple[str, bytes] | None:
    """The media type and the bytes of a small picture of record `number`; None where the records are no images.

    An image is a value (1, H, W) or (3, H, W), in the order BGR; one that holds no bytes is shown from its least value,
    black, to its largest, white.  Raises DataError.
    """
    pixels = _pixels(source, number)
    if pixels is None or pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or min(pixels.shape[1:]) < _LEAST:
        return None
    return _encoded(_as_bytes(pixels).transpose(1, 2, 0))


def _pixels(source: Source, number: int) -> Pixels | None:
    if isinstance(source, KeepingSource):
        return source.image(number)
    if isinstance(source, PickingSource):
        batch = source.pick([number])
        return next((values[0] for values in batch.values() if values.ndim == 4), None)
    return None


def _as_bytes(pixels: Pixels) -> Bytes:
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    values = pixels.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    return np.rint((values - low) * (255.0 / (high - low) if high > low else 0.0)).astype(np.uint8)


def _encoded(image: Bytes) -> tuple[str, bytes]:
    """(H, W, C) as PNG where it is small, else as JPEG."""
    height, width = image.shape[:2]
    ratio = SIDE / max(height, width)
    if ratio < 1.0:
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        image = np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA), np.uint8)
    kind, options = ("png", [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if max(height, width) > _SHARP:
        kind, options = "jpeg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, made = cv2.imencode(f".{kind}", np.ascontiguousarray(image), options)
    return f"image/{kind}", made.tobytes()
