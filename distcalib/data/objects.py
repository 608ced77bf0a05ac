"""A look at the boxes of an AnnotatedData layer as they are stored, for what scores cannot tell.

Boxes in pixels lie outside the image, 0 to 1, and are dropped or cut down to nothing by the transform, without a word
in Caffe: a net is then scored by a few objects, or by none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.database import open_records
from distcalib.data.source import Index
from distcalib.errors import DataError

MOST_RECORDS = 256
PIXELS = 2.0
"""A corner beyond this is in no image's coordinates: boxes a little outside are common."""


@dataclass(frozen=True)
class Objects:
    """Of the first records of the database `path`."""

    path: Path
    n_records: int = 0
    n_boxes: int = 0
    n_difficult: int = 0
    n_beyond: int = 0
    largest: float = 0.0

    @property
    def pixels(self) -> str:
        """That the boxes look like pixels; "" if they do not."""
        if not self.n_beyond:
            return ""
        return (
            f"{self.path}: {self.n_beyond} of {self.n_boxes} boxes of the first {self.n_records} records lie outside 0 "
            f"to 1 (such as {self.largest:g}), so they are in pixels; write them divided by width and height"
        )

    @property
    def reason(self) -> str:
        """Why none of them counts; "" if that is not seen."""
        if self.pixels:
            return self.pixels
        if self.n_records and not self.n_boxes:
            return f"{self.path}: the first {self.n_records} records have no boxes; give a database with annotations"
        if self.n_boxes and self.n_difficult == self.n_boxes:
            return (
                f"{self.path}: all {self.n_boxes} boxes of the first {self.n_records} records are difficult; set "
                "evaluate_difficult_gt, or correct the annotations"
            )
        return ""


def look_at_objects(layer: caffe_pb2.LayerParameter, prototxt: Path, index: Index | None) -> Objects:
    """What the first records say; nothing where they cannot be read here."""
    path = resolve_path(layer.data_param.source, prototxt)
    try:
        records = open_records(layer.data_param, prototxt, index)
    except DataError:
        return Objects(path)
    n_records = n_boxes = n_difficult = n_beyond = 0
    largest = 0.0
    try:
        for record in records.read(0, min(MOST_RECORDS, records.n_records)):
            annotated = caffe_pb2.AnnotatedDatum.FromString(bytes(record[1]))
            n_records += 1
            for box in (one.bbox for group in annotated.annotation_group for one in group.annotation):
                n_boxes += 1
                n_difficult += box.difficult
                corner = max(abs(box.xmin), abs(box.ymin), abs(box.xmax), abs(box.ymax))
                n_beyond += corner > PIXELS
                largest = max(largest, corner)
    except (DataError, DecodeError):
        return Objects(path)
    finally:
        records.close()
    return Objects(path, n_records, n_boxes, n_difficult, n_beyond, largest)
