"""Caffe's DetectionEvaluate on arrays: which detections of an iteration found an object of the data.

One thing differs, on purpose: with a name_size_file Caffe counts the images that anything was detected in, and takes
their sizes in turn; here image k of the data has the size of line k, so that an image without a detection shifts
nothing, and any iteration can be evaluated by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from distcalib.caffe.caffe_pb2 import DetectionEvaluateParameter, LayerParameter, ResizeParameter
from distcalib.errors import DataError, UnsupportedError
from distcalib.metrics.boxes import clipped, overlaps, scaled
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
) -> Detections:
    """Rows found (.., R, 7) of DetectionOutput against labels (.., N, 8) of AnnotatedData.

    labels are (item, label, instance, xmin, ymin, xmax, ymax, difficult); item is -1 in a row for nothing.
    `records`: the number in the data of each item, for the sizes of images; none: the item's own.
    `files`: contents of files that would be read otherwise, by path.  Raises DataError for labels that are no class,
    UnsupportedError for shapes that do not fit.
    """
    p = layer.detection_evaluate_param
    if found.shape[-1:] != (7,) or labels.shape[-1:] != (8,):
        raise UnsupportedError(
            f"layer '{layer.name}' ({layer.type}): its bottoms have shapes {found.shape} and {labels.shape}; rows of 7 "
            "as DetectionOutput makes them and of 8 as AnnotatedData does are needed"
        )
    rows, objects = found.reshape(-1, 7), _objects(layer, labels.reshape(-1, 8))
    rows = rows[(rows[:, 0] != -1) & (rows[:, 1] != -1)]  # of an iteration without detections
    is_hit, counts = np.zeros(len(rows), np.bool_), np.ones(len(rows), np.bool_)
    image_sizes = read_sizes(p.name_size_file, (files or {}).get(p.name_size_file)) if p.name_size_file else ()
    order: list[Array] = []
    for item, label, group in _groups(rows):
        group = group[np.argsort(-rows[group, 2], kind="stable")]
        order.append(group)
        wanted = objects[(objects[:, 0] == item) & (objects[:, 1] == label)]
        if len(wanted):
            size = image_sizes[(records[item] if records else item) % len(image_sizes)] if image_sizes else None
            is_hit[group], counts[group] = _matched(p, rows[group, 3:], wanted[:, 3:7], wanted[:, 7] != 0.0, size)
    ranked = np.concatenate([np.zeros(0, np.int64), *order])
    ranked = ranked[counts[ranked]]
    return Detections(
        rows[ranked, 1].astype(np.int32), rows[ranked, 2].astype(np.float32), is_hit[ranked], _positives(p, objects)
    )


def check_detection_evaluate(layer: LayerParameter) -> None:
    """UnsupportedError for what detection_evaluate cannot do, whatever the bottoms are."""
    p = layer.detection_evaluate_param
    where = f"layer '{layer.name}' ({layer.type})"
    if not p.num_classes:
        raise UnsupportedError(f"{where}: has no num_classes; give the number of classes, background included")
    if p.overlap_threshold <= 0.0:
        raise UnsupportedError(f"{where}: overlap_threshold={p.overlap_threshold:g}; it must be above 0")


@lru_cache(maxsize=4)
def read_sizes(path: str, content: bytes | None = None) -> tuple[Size, ...]:
    """The sizes in a name_size_file, lines of `name height width`; it is not read where its `content` is given.

    Raises DataError.
    """
    try:
        words = (Path(path).read_bytes() if content is None else content).decode("utf-8", "surrogateescape").split()
        found = tuple((int(h), int(w)) for h, w in zip(words[1::3], words[2::3], strict=True))
    except OSError as error:
        raise DataError(f"{path}: the name_size_file cannot be read ({error.strerror}); correct its path") from None
    except ValueError:
        found = ()
    if not found or len(words) % 3 or min(min(size) for size in found) < 1:
        raise DataError(f"{path}: is no name_size_file; its lines are `name height width`, in the order of the data")
    return found


def _objects(layer: LayerParameter, labels: Array) -> Array:
    """The rows of `labels` before the first that says nothing.  Raises DataError for labels that are no class."""
    p = layer.detection_evaluate_param
    nothing = np.flatnonzero(labels[:, 0] == -1)
    objects = labels[: nothing[0]] if len(nothing) else labels
    classes = objects[:, 1]
    wrong = classes[(classes < 0) | (classes >= p.num_classes) | (classes == p.background_label_id)]
    if len(wrong):
        shown = ", ".join(f"{label:g}" for label in np.unique(wrong)[:5])
        raise DataError(
            f"layer '{layer.name}' ({layer.type}): {len(wrong)} of {len(classes)} objects have a label that is none of "
            f"the {p.num_classes} classes, or the background (such as {shown}); correct num_classes or the data set"
        )
    return objects


def _groups(rows: Array) -> Iterator[tuple[int, int, Array]]:
    """Item, label and the numbers of the rows that have both, in their order."""
    order = np.lexsort((rows[:, 1], rows[:, 0]))  # stable
    keys = rows[order, :2]
    begins = np.flatnonzero(np.any(np.diff(keys, axis=0, prepend=np.nan) != 0, axis=1)).tolist()
    for begin, end in zip(begins, [*begins[1:], len(rows)][: len(begins)], strict=True):
        yield int(keys[begin, 0]), int(keys[begin, 1]), order[begin:end]


def _matched(
    p: DetectionEvaluateParameter, boxes: Array, objects: Array, difficult: Array, size: Size | None
) -> tuple[Array, Array]:
    """Of boxes (n, 4), the best first, whether each is a hit, and whether it counts at all.

    An object is hit once, by the first of those that overlap it most.  One that is difficult may not count.
    """
    if size is None:
        shared = overlaps(boxes, objects)
    else:
        resize = p.resize_param if p.HasField("resize_param") else None
        shared = overlaps(in_pixels(boxes, size, resize), in_pixels(objects, size, resize), pixels=True)
    nearest = shared.argmax(axis=1)
    close = shared.max(axis=1) >= np.float32(p.overlap_threshold)
    ignored = close & difficult[nearest] & (not p.evaluate_difficult_gt)
    return first_hits(nearest, close & ~ignored), ~ignored


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
