"""A record's bytes -> pixels.

A Datum holds either planes (channel, row, column; u8 or float) or an encoded image, which OpenCV decodes to interleaved
BGR, the order that Caffe's nets are trained on. Which of the two it is decides what a transform may do with it, so the
two functions stay apart. What is wrong with a record is raised as BadRecord, without its place: the caller knows the
database and the key, and building that text for each good record would cost more than parsing it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from distcalib.caffe import caffe_pb2
from distcalib.data.image_size import size_fault

# The EXIF orientation is ignored on purpose: Caffe's reading as stored (flag -1) ignores it, and OpenCV 2.4 always did.
AS_STORED = cv2.IMREAD_UNCHANGED
COLOR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
GRAY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION

Bytes = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


class BadRecord(Exception):
    """What is wrong with a record, worded to follow "PATH: record KEY "."""


class Mismatch(BadRecord):
    """A good record that the layer's parameters do not fit: where it is the first, all others are likely so too, and to
    leave records out is no advice."""


class MachineFault(BadRecord):
    """A record that this machine cannot read now, and another may: never left out, or it would be in some scores."""


def parse_datum(value: bytes | memoryview) -> caffe_pb2.Datum:
    """The Datum in a record's value (any buffer). Raises BadRecord."""
    try:
        return caffe_pb2.Datum.FromString(bytes(value))
    except DecodeError as error:
        raise BadRecord(f"is not a Datum ({len(value)} bytes); write it again or leave it out") from error


def planes(datum: caffe_pb2.Datum) -> Pixels:
    """A datum that is not encoded, as (C, H, W): u8 from `data`, or float32 from `float_data`. Raises BadRecord."""
    shape = (datum.channels, datum.height, datum.width)
    count = shape[0] * shape[1] * shape[2]
    data = datum.data
    pixels: Pixels
    if data:  # Caffe asks the same: float_data counts only when there are no bytes
        pixels = np.frombuffer(data, np.uint8)
    else:
        pixels = np.array(datum.float_data, np.float32)
    if not (data or pixels.size or any(shape)) and (what := _other_message(datum)):
        raise Mismatch(what)
    if not datum.ListFields():
        size = datum.ByteSize()
        said = f"is no Datum ({size} bytes, with none of its fields)" if size else "is empty"
        raise BadRecord(f"{said}; write it again or leave it out")
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise BadRecord("holds values that are NaN or infinite; write it again or leave it out")
    if min(shape) < 1 or pixels.size != count:
        raise BadRecord(
            f"declares {times(shape)} = {count} values but holds {pixels.size} {'bytes' if data else 'floats'}; "
            "write it again or leave it out"
        )
    return pixels.reshape(shape)


def _other_message(datum: caffe_pb2.Datum) -> str | None:
    """What a record is that is not a Datum, though it can be read as one without content."""
    annotated = caffe_pb2.AnnotatedDatum()
    try:
        annotated.ParseFromString(datum.SerializeToString())  # what Datum did not know is in it still
    except DecodeError:
        return None
    is_one = annotated.HasField("datum") and (annotated.datum.ByteSize() > 0 or len(annotated.annotation_group) > 0)
    return 'is an AnnotatedDatum, an image with boxes; write type: "AnnotatedData"' if is_one else None


def decode(encoded: bytes, flags: int) -> Bytes:
    """An encoded image as (H, W, C) u8, BGR or one channel; `flags`: AS_STORED, COLOR or GRAY. Raises BadRecord."""
    if wrong := size_fault(encoded):
        raise BadRecord(wrong)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags) if encoded else None
    except (cv2.error, MemoryError) as error:
        if isinstance(error, MemoryError) or error.code == cv2.Error.StsNoMem:
            raise MachineFault("cannot be decoded, for memory is short; give fewer actors") from error
        image = None
    if image is None:
        raise BadRecord(f"is not an image that can be decoded ({len(encoded)} bytes); write it again or leave it out")
    if image.dtype != np.uint8:
        raise BadRecord(f"is an image of {image.dtype} values where Caffe takes 8 bits; convert it or set force_color")
    return np.asarray(image, np.uint8).reshape(*image.shape[:2], -1)


def as_jpeg(image: Bytes) -> bytes:
    """An image (H, W, C) as OpenCV encodes it by itself: the quality is 95. Raises BadRecord."""
    try:
        is_made, encoded = cv2.imencode(".jpg", image)
    except cv2.error as error:
        raise BadRecord(f"cannot be encoded as JPEG ({error.err}); write it again or leave it out") from error
    if not is_made:
        raise BadRecord("cannot be encoded as JPEG; write it again or leave it out")
    return encoded.tobytes()


def stacked(images: Sequence[Pixels]) -> Pixels:
    """Images (C, H, W) as (N, C, H, W) in C order: u8, or float32 where one is; bytes and floats may be mixed."""
    dtype = np.uint8 if all(image.dtype == np.uint8 for image in images) else np.float32
    made: Pixels = np.empty((len(images), *images[0].shape), dtype)
    for planes_of, image in zip(made, images, strict=True):
        interleaved = image.transpose(1, 2, 0)
        if dtype == np.uint8 and interleaved.strides[1:] == (3, 1):  # as OpenCV decodes; it is nine times as fast then
            cv2.split(interleaved, list(planes_of))
        else:
            planes_of[:] = image
    return made


def times(shape: tuple[int, ...]) -> str:
    """A shape as it stands in messages: 3 x 32 x 32."""
    return " x ".join(map(str, shape))
