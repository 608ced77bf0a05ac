"""The `AnnotatedData` layer of SSD: a database of images with the boxes of their objects.

The images go through the transform of a Data layer.  What Caffe draws at random even in TEST is left out: parts of the
image for a batch_sampler, colors for distort_param, margins for expand_param; else no score would come twice.  What is
not random about them is done.  SSD's own test nets have an empty batch_sampler, whose sample is the whole image: Caffe
crops it, and an encoded image is then encoded again, as JPEG, before it is resized (data_transformer.cpp, CropImage and
EncodeCVMatToDatum; golden_ssd_jpeg: mAP 0.124648 with it, 0.116994 without).  distort_param encodes once more.
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
from distcalib.data.image_cache import Decoded, KeepingSource, MemoryBudget
from distcalib.data.left_out import Bad
from distcalib.data.records import Record
from distcalib.data.sampling import is_sampled, sampler_faults
from distcalib.data.shipped import Shipped, files_of
from distcalib.data.source import VARIES, FloatArray, Index
from distcalib.data.transform import Whole
from distcalib.errors import DataError

Annotated = caffe_pb2.AnnotatedDatum
FIT_SMALL = caffe_pb2.ResizeParameter.FIT_SMALL_SIZE


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
        skip_bad: bool = False,
        shipped: Shipped | None = None,
        room: MemoryBudget | None = None,
    ) -> None:
        where = f"{prototxt}: layer '{layer.name}' ({layer.type})"
        super().__init__(where, room)
        faults = database_faults(layer)
        if layer.transform_param.HasField("random_resize_param"):
            faults.append("random_resize_param does not move the boxes; use resize_param")
        if layer.transform_param.resize_param.resize_mode == FIT_SMALL and layer.data_param.batch_size > 1:
            faults.append("resize_mode: FIT_SMALL_SIZE goes with a batch_size of 1 only, else Intel Caffe aborts")
        faults += sampler_faults(layer)
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

    def _decode(self, iteration: int, bad: Bad | None, rows: Sequence[int] | None = None) -> Decoded:
        """A bad record has no boxes.  Rows depend on their places: `rows` are not asked for."""
        assert rows is None, "what is drawn of an image depends on its place in the batch"
        first = iteration * self.batch_size
        decoded = self._reading.rows(first, self._records.read(first, self.batch_size), bad)
        without = (bad or {}) if self._has_boxes else {}
        labels = [rows[:0] if item in without else rows for item, (_, rows) in enumerate(decoded)]
        return Decoded(stacked([pixels for pixels, _ in decoded]), self._label_blob(labels), bad or {})

    def key(self, number: int) -> str:
        """See NamingSource."""
        return self._reading.named(self._records.read(number, 1)[0])

    def close(self) -> None:
        """Close the database."""
        self._records.close()

    def _images(self, iteration: int, bad: Bad | None, rows: Sequence[int] | None = None) -> list[Pixels]:
        first = iteration * self.batch_size
        reading = self._reading.making(lambda record, item: self._read(record, item)[0].image)
        return reading.rows(first, self._records.read(first, self.batch_size), bad, rows)

    def _decoded(self, record: Record, item: int) -> tuple[Pixels, FloatArray]:
        """One record's pixels (C, H, W), untransformed, and its rows of labels. Raises BadRecord."""
        _, pixels, labels = self._read(record, item)
        return pixels, labels

    def _read(self, record: Record, item: int) -> tuple[Whole, Pixels, FloatArray]:
        """One record before and after it is cropped, and its rows of labels. Raises BadRecord."""
        annotated = _parsed(record)
        if not self._image_shape:
            self._has_boxes = annotated.HasField("type") or self._param.HasField("anno_type")
        sampled = is_sampled(annotated, self._param.batch_sampler)
        whole = self._whole(annotated.datum, sampled, item)
        pixels = self._transform.centre(whole)
        if pixels.shape != self._image_shape and self._image_shape:
            raise BadRecord(
                f"gives {times(pixels.shape)} values where the first record gives {times(self._image_shape)}; "
                "set resize_param to make sizes equal, force_color for channels"
            )
        return whole, pixels, self._labels(annotated, item, whole, sampled)

    def _whole(self, datum: caffe_pb2.Datum, sampled: bool, item: int) -> Whole:
        """The image before it is cropped, encoded again where Caffe does that. Raises BadRecord."""
        if sampled and not datum.encoded and not datum.data:
            raise BadRecord(
                "holds floats, of which Intel Caffe makes garbage with a batch_sampler; write bytes, or take that out"
            )
        n_encodings = sampled + self._transform.param.HasField("distort_param")
        whole = self._transform.whole(datum, n_encodings)
        if n_encodings and datum.encoded and item == 0 and self._transform.n_channels(datum) != whole.shape[0]:
            raise BadRecord(
                f"has {self._transform.n_channels(datum)} channels, of which JPEG keeps {whole.shape[0]}, where Intel "
                "Caffe encodes it again and aborts; set force_color, or write it without them"
            )
        return whole

    def _label_blob(self, labels_by_image: Sequence[FloatArray]) -> FloatArray:
        """The labels of all images in their shape."""
        labels = np.concatenate(labels_by_image)
        if not self._has_boxes:
            return labels.reshape(-1, 1, 1, 1)
        return (labels if len(labels) else np.full((1, 8), -1.0, np.float32)).reshape(1, 1, -1, 8)

    def _labels(self, annotated: Annotated, item: int, whole: Whole, sampled: bool) -> FloatArray:
        """Rows for the objects of an image that was `whole` before it was cropped. Raises BadRecord.

        A sampled one is a new datum, with a label and a type whether the record has them or not, and the size of its
        image in place of what the record says of it.
        """
        if len(self.tops) < 2:
            return np.zeros((0, 8), np.float32)
        if not self._has_boxes:
            if not (annotated.datum.HasField("label") or sampled):
                raise BadRecord("has neither boxes nor a label; write it again or leave it out")
            return np.array([annotated.datum.label], np.float32)
        if not (annotated.HasField("type") or sampled):
            raise BadRecord("has no type of annotation, as others have; write it again or leave it out")
        is_new = whole.is_encoded and (sampled or self._transform.param.HasField("distort_param"))
        window = crop_window(whole.size, self._transform.crop)
        size = whole.before if is_new else None
        return label_rows(annotated, item, self._transform.param, window, size=size, sampled=sampled)


def _parsed(record: Record) -> Annotated:
    """Raises BadRecord."""
    try:
        annotated = Annotated.FromString(bytes(record[1]))
    except DecodeError as error:
        raise BadRecord(f"is not an AnnotatedDatum ({len(record[1])} bytes); write it again or leave it out") from error
    if not annotated.HasField("datum"):
        if len(record[1]) and _is_datum(record[1]):
            raise Mismatch('is a Datum, an image without boxes; write type: "Data"')
        raise BadRecord("has no datum; it is not an AnnotatedDatum, or one without an image: write it again")
    return annotated


def _is_datum(value: bytes | memoryview) -> bool:
    try:
        datum = caffe_pb2.Datum.FromString(bytes(value))
    except DecodeError:
        return False
    return bool(datum.data) or len(datum.float_data) > 0
