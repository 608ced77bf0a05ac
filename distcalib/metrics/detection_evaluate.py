"""Caffe's DetectionEvaluate on arrays: which detections of an iteration found an object of the data.

One thing differs, on purpose: with a name_size_file Caffe counts the images that anything was detected in, and takes
their sizes in turn; here image k of the data has the size of line k, so that an image without a detection shifts
nothing, and any iteration can be evaluated by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import DetectionEvaluateParameter, LayerParameter, ResizeParameter
from distcalib.caffe.paths import special
from distcalib.caffe.reading import in_utf16
from distcalib.errors import DataError, UnsupportedError
from distcalib.metrics.boxes import clipped, column_overlaps, scaled
from distcalib.metrics.detection_output import ranks
from distcalib.metrics.detections import Detections, first_hits

Array = npt.NDArray[Any]
Size = tuple[int, int]
"""Height and width of an image in pixels."""


def detection_evaluate(
    layer: LayerParameter,
    found: Array,
    labels: Array,
    records: Sequence[int] = (),
    files: Mapping[str, bytes] | None = None,
    image_sizes: Array | None = None,
) -> Detections:
    """Rows found (.., R, 7) of DetectionOutput against labels (.., N, 8) of AnnotatedData.

    With `image_sizes` (items, 2), height and width, boxes are in pixels of the images that the net reads, as those of a
    FrcnnOutput are (zhaoweicai/cascade-rcnn).

    labels are (item, label, instance, xmin, ymin, xmax, ymax, difficult); item is -1 in a row for nothing.
    `records`: the number in the data of each item, for the sizes of images; none: the item's own.
    `files`: contents of files that would be read otherwise, by path.  Raises DataError for labels that are not a class,
    UnsupportedError for shapes that do not fit.
    """
    p = layer.detection_evaluate_param
    check_rows(layer, found.shape, labels.shape)
    rows, objects = found.reshape(-1, 7), _objects(layer, labels.reshape(-1, 8))
    rows = rows[(rows[:, 0] != -1) & (rows[:, 1] != -1)]  # of an iteration without detections
    rows = rows[np.lexsort((-rows[:, 2], rows[:, 1], rows[:, 0]))]  # stable
    objects = objects[np.lexsort((objects[:, 1], objects[:, 0]))]
    if p.name_size_file:
        sizes = read_sizes(p.name_size_file, (files or {}).get(p.name_size_file))
        resize = p.resize_param if p.HasField("resize_param") else None
        for item in np.unique(rows[:, 0]).astype(np.int64).tolist():
            size = sizes[(records[item] if records else item) % len(sizes)]
            for of_item, boxes in ((rows[:, 0] == item, rows[:, 3:]), (objects[:, 0] == item, objects[:, 3:7])):
                if image_sizes is None:
                    boxes[of_item] = in_pixels(boxes[of_item], size, resize)
                else:
                    ratio = np.array(size, np.float32) / image_sizes.reshape(-1, 2)[item]
                    boxes[of_item] *= np.tile(ratio[::-1], 2)
    is_hit, counts = _matched(p, rows, objects)
    rows = rows[counts]
    return Detections(
        rows[:, 1].astype(np.int32), rows[:, 2].astype(np.float32), is_hit[counts], _positives(p, objects)
    )


def check_detection_evaluate(layer: LayerParameter) -> None:
    """UnsupportedError for what detection_evaluate cannot do, whatever the bottoms are."""
    p = layer.detection_evaluate_param
    where = f"layer '{layer.name}' ({layer.type})"
    if not p.num_classes:
        raise UnsupportedError(f"{where}: has no num_classes; give the number of classes, background included")
    if len(layer.bottom) == 3 and not p.name_size_file:
        raise UnsupportedError(f"{where}: reads sizes of images and has no name_size_file; give the sizes before them")
    if not 0.0 < p.overlap_threshold <= 1.0:
        raise UnsupportedError(f"{where}: overlap_threshold={p.overlap_threshold:g}; it must be above 0 and at most 1")
    resize = p.resize_param
    pads = resize.resize_mode == ResizeParameter.FIT_LARGE_SIZE_AND_PAD
    if p.name_size_file and p.HasField("resize_param") and pads and not (resize.height and resize.width):
        raise UnsupportedError(f"{where}: resize_param needs the height and the width that images were padded to")


def check_rows(layer: LayerParameter, found: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """UnsupportedError unless these are the shapes of rows of detections and of labels."""
    if found[-1:] != (7,) or labels[-1:] != (8,):
        raise UnsupportedError(
            f"layer '{layer.name}' ({layer.type}): its bottoms have shapes {found} and {labels}; rows of 7 "
            "as DetectionOutput makes them and of 8 as AnnotatedData does are needed"
        )


@lru_cache(maxsize=4)
def read_sizes(path: str, content: bytes | None = None) -> tuple[Size, ...]:
    """The sizes in a name_size_file, lines of `name height width`; it is not read where its `content` is given.

    Raises DataError.
    """
    if content is None and (kind := special(path)):
        raise DataError(f"{path}: the name_size_file is {kind}, not a file; correct its path")
    try:
        read = Path(path).read_bytes() if content is None else content
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: the name_size_file cannot be read ({reason}); correct its path") from None
    if in_utf16(read):
        raise DataError(f"{path}: the name_size_file is text in UTF-16; save it as UTF-8")
    words = read.decode("utf-8", "surrogateescape").split()
    try:
        sizes = tuple((int(h), int(w)) for h, w in zip(words[1::3], words[2::3], strict=True))
    except ValueError:
        sizes = ()
    if not sizes or len(words) % 3 or min(min(size) for size in sizes) < 1:
        raise DataError(f"{path}: is not a name_size_file; its lines are `name height width`, in the order of the data")
    return sizes


def _objects(layer: LayerParameter, labels: Array) -> Array:
    """The rows of `labels` before the first that says nothing.  Raises DataError for labels that are not a class."""
    p = layer.detection_evaluate_param
    nothing = np.flatnonzero(labels[:, 0] == -1)
    objects = labels[: nothing[0]] if len(nothing) else labels
    classes = objects[:, 1]
    wrong = classes[(classes < 0) | (classes >= p.num_classes) | (classes == p.background_label_id)]
    if len(wrong):
        shown = ", ".join(f"{label:g}" for label in np.unique(wrong)[:5])
        raise DataError(
            f"layer '{layer.name}' ({layer.type}): {len(wrong)} of {len(classes)} objects have a label that is not one "
            f"of the {p.num_classes} classes, or the background (such as {shown}); correct num_classes or the data set"
        )
    return objects


def _matched(p: DetectionEvaluateParameter, rows: Array, objects: Array) -> tuple[Array, Array]:
    """Of rows (n, 7) whether each is a hit, and whether it counts at all; both are sorted by item and class.

    An object is hit once, by the first of those that overlap it most.  One that is difficult may not count.
    """
    # All rows at once, each with the objects of its item and class: they are few, and a call of NumPy has its price.
    of_row, of_object = _keys(rows), _keys(objects)
    begin = np.searchsorted(of_object, of_row)
    n_objects = np.searchsorted(of_object, of_row, "right") - begin
    row = np.repeat(np.arange(len(rows)), n_objects)
    wanted = begin[row] + ranks(n_objects)
    shared = column_overlaps(rows[row, 3:].T, objects[wanted, 3:7].T, pixels=bool(p.name_size_file))
    has_any = np.flatnonzero(n_objects)
    highest, nearest = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int64)
    difficult = np.zeros(len(rows), np.bool_)
    if len(has_any):
        highest[has_any] = np.maximum.reduceat(shared, (np.cumsum(n_objects) - n_objects)[has_any])
        at = np.flatnonzero(shared == highest[row])
        nearest[has_any] = wanted[at[np.unique(row[at], return_index=True)[1]]]  # the first of them
        difficult[has_any] = objects[nearest[has_any], 7] != 0.0
    close = highest >= np.float32(p.overlap_threshold)
    ignored = close & difficult & (not p.evaluate_difficult_gt)
    return first_hits(nearest, close & ~ignored), ~ignored


def _keys(rows: Array) -> Array:
    """One number (n,) for item and class of rows (n, ..), in the order of both."""
    return (rows[:, 0].astype(np.int64) << 32) + rows[:, 1].astype(np.int64)


def in_pixels(boxes: Array, size: Size, resize: ResizeParameter | None) -> Array:
    """Normalized boxes (n, 4) of the resized image in pixels of the one before, of `size` (OutputBBox)."""
    height, width = size
    if resize is None or resize.resize_mode == ResizeParameter.WARP:
        return scaled(clipped(boxes), height, width)
    if resize.resize_mode == ResizeParameter.FIT_SMALL_SIZE:
        if not (resize.height_scale and resize.width_scale):
            return scaled(clipped(boxes), height, width)
        limits = np.array([width, height, width, height], np.float32)
        return np.clip(scaled(boxes, resize.height_scale, resize.width_scale), np.float32(0.0), limits)
    low = _padding(resize, size)
    low = np.tile(low, 2)
    projected = (boxes - low) / (np.float32(1.0) - low - low)
    return scaled(clipped(projected), height, width)


def _padding(resize: ResizeParameter, size: Size) -> Array:
    """The part (x, y) of a resized image that is padding at each side, with FIT_LARGE_SIZE_AND_PAD."""
    wanted_height, wanted_width = np.float32(resize.height), np.float32(resize.width)
    aspect = np.float32(size[1]) / np.float32(size[0])
    if aspect > wanted_width / wanted_height:
        pad = (wanted_height - wanted_width / aspect) / np.float32(2.0)
        return np.array([0.0, pad / wanted_height], np.float32)
    pad = (wanted_width - wanted_height * aspect) / np.float32(2.0)
    return np.array([pad / wanted_width, 0.0], np.float32)


def _positives(p: DetectionEvaluateParameter, objects: Array) -> dict[int, int]:
    """The number of objects by class that are to be found."""
    counted = objects if p.evaluate_difficult_gt else objects[objects[:, 7] == 0.0]
    counts = np.bincount(counted[:, 1].astype(np.int64), minlength=p.num_classes)
    return {label: int(n) for label, n in enumerate(counts) if label != p.background_label_id}
