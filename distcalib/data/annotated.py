"""The `AnnotatedData` layer of SSD: a database of images with the boxes of their objects.

The images go through the transform of a Data layer.  batch_sampler, distort_param and expand_param are not applied:
Caffe draws samples, colors and margins at random even in TEST, and then no score comes twice.  SSD's own test nets have
an empty batch_sampler, which draws the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from distcalib.caffe import caffe_pb2
from distcalib.data.annotations import crop_window, label_rows
from distcalib.data.database import database_faults, database_reading, first_records, layer_records, transform_of
from distcalib.data.datum import BadRecord, Mismatch, Pixels, stacked, times
from distcalib.data.keeping import Decoded, KeepingSource, Room
from distcalib.data.left_out import Bad
from distcalib.data.records import Record
from distcalib.data.shipped import Shipped, files_of
from distcalib.data.source import VARIES, FloatArray, Index
from distcalib.errors import DataError

Annotated = caffe_pb2.AnnotatedDatum


class AnnotatedSource(KeepingSource):
    """Images (N, C, H, W) of an LMDB or a LevelDB, transformed, and a row for each object in them: (1, 1, n, 8).

    A row is (item, label, instance, xmin, ymin, xmax, ymax, difficult); a batch without objects has one row of -1.
    Where the first record says no type of annotation, and the layer neither, labels are those of a Data layer:
    (N, 1, 1, 1).  The first record decides the shape of images.  Raises DataError as DatabaseSource does.
    """

    def __init__(
        self,
        layer: caffe_pb2.LayerParameter,
        prototxt: Path,
        index: Index | None = None,
        skip_bad: bool | None = False,
        shipped: Shipped | None = None,
        room: Room | None = None,
    ) -> None:
        super().__init__(room)
        where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
        faults = database_faults(layer)
        if layer.transform_param.HasField("random_resize_param"):
            faults.append("random_resize_param does not move the boxes; use resize_param")
        if faults:
            raise DataError(f"{where}: " + "; ".join(faults))
        self._param = layer.annotated_data_param
        self._transform = transform_of(layer, where, prototxt, files_of(shipped))
        self._records = layer_records(layer, prototxt, index, shipped)
        self.tops = tuple(layer.top)
        self.batch_size = int(layer.data_param.batch_size)
        self._image_shape: tuple[int, ...] = ()  # not known yet
        self._has_boxes: bool | None = None  # as the first record says
        self._reading = database_reading(layer.name, self._records, skip_bad, self._decoded)
        try:
            image, _ = self._reading.first(first_records(self._records, self.batch_size, skip_bad))
        except DataError:
            self._records.close()
            raise
        self._image_shape = image.shape
        self.shapes = self._shapes(image.shape, (1, 1, VARIES, 8) if self._has_boxes else (self.batch_size, 1, 1, 1))

    @property
    def index(self) -> Index:
        """The sparse index of the database; made now if it was not given."""
        return self._records.index

    def _decode(self, iteration: int, bad: Bad | None) -> Decoded:
        """A bad record has no boxes."""
        first = iteration * self.batch_size
        found = self._reading.rows(first, self._records.read(first, self.batch_size), bad)
        without = (bad or {}) if self._has_boxes else {}
        labels = [rows[:0] if item in without else rows for item, (_, rows) in enumerate(found)]
        return Decoded(stacked([pixels for pixels, _ in found]), self._label_blob(labels), bad or {})

    def close(self) -> None:
        """Close the database."""
        self._records.close()

    def _decoded(self, record: Record, item: int) -> tuple[Pixels, FloatArray]:
        """One record's pixels (C, H, W), untransformed, and its rows of labels. Raises BadRecord."""
        annotated = _parsed(record)
        if not self._image_shape:
            self._has_boxes = annotated.HasField("type") or self._param.HasField("anno_type")
        whole = self._transform.whole(annotated.datum)
        pixels = self._transform.centre(whole)
        if pixels.shape != self._image_shape and self._image_shape:
            raise BadRecord(
                f"gives {times(pixels.shape)} values where the first record gives {times(self._image_shape)}; "
                "set resize_param to make sizes equal, force_color for channels"
            )
        return pixels, self._labels(annotated, item, whole.shape)

    def _label_blob(self, found: Sequence[FloatArray]) -> FloatArray:
        """The labels of all images in their shape."""
        labels = np.concatenate(found)
        if not self._has_boxes:
            return labels.reshape(-1, 1, 1, 1)
        return (labels if len(labels) else np.full((1, 8), -1.0, np.float32)).reshape(1, 1, -1, 8)

    def _labels(self, annotated: Annotated, item: int, shape: tuple[int, ...]) -> FloatArray:
        """Rows for the objects of an image that was of `shape` (C, H, W) before it was cropped. Raises BadRecord."""
        if len(self.tops) < 2:
            return np.zeros((0, 8), np.float32)
        if not self._has_boxes:
            if not annotated.datum.HasField("label"):
                raise BadRecord("has neither boxes nor a label; write it again or leave it out")
            return np.array([annotated.datum.label], np.float32)
        if not annotated.HasField("type"):
            raise BadRecord("has no type of annotation, as others have; write it again or leave it out")
        window = crop_window((shape[1], shape[2]), self._transform.crop)
        return label_rows(annotated, item, self._transform.param, window)


def _parsed(record: Record) -> Annotated:
    """Raises BadRecord."""
    try:
        annotated = Annotated.FromString(bytes(record[1]))
    except DecodeError as error:
        raise BadRecord(f"is no AnnotatedDatum ({len(record[1])} bytes); write it again or leave it out") from error
    if not annotated.HasField("datum"):
        if len(record[1]) and _is_datum(record[1]):
            raise Mismatch('is a Datum, an image without boxes; write type: "Data"')
        raise BadRecord("has no datum; it is no AnnotatedDatum, or one without an image: write it again")
    return annotated


def _is_datum(value: bytes | memoryview) -> bool:
    try:
        datum = caffe_pb2.Datum.FromString(bytes(value))
    except DecodeError:
        return False
    return bool(datum.data) or len(datum.float_data) > 0
