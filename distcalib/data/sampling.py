"""What batch_sampler of an AnnotatedData layer takes of an image, as far as that is not drawn at random.

A sampler with a scale of 1, which is the default, takes the whole image, whatever its aspect ratio: Caffe clips that to
scale² .. 1/scale² (sampler.cpp).  It gives a sample unless it is not for the original image, has no trials or samples,
or has a constraint that the image does not meet.  One that draws counts as if it had drawn the whole image.  The boxes
are those of the record, compared in float32 and in the order of SatisfySampleConstraint, which takes an object for
enough as soon as it meets the first kind of constraint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from distcalib.caffe import caffe_pb2

Box = caffe_pb2.NormalizedBBox
_PROBABILITIES = ("brightness_prob", "contrast_prob", "saturation_prob", "hue_prob", "random_order_prob")


def is_sampled(annotated: caffe_pb2.AnnotatedDatum, samplers: Sequence[caffe_pb2.BatchSampler]) -> bool:
    """Whether Caffe takes a sample of the image, and so makes a new record of it."""
    giving = [one for one in samplers if _gives(one)]
    if not giving:
        return False
    boxes = [one.bbox for group in annotated.annotation_group for one in group.annotation]
    return any(_is_met(one.sample_constraint, boxes) for one in giving)


def random_parts(layer: caffe_pb2.LayerParameter) -> list[str]:
    """The parameters of a layer whose images are transformed with which Caffe draws at random in TEST, too."""
    transform, parts = layer.transform_param, []
    if layer.type == "AnnotatedData":
        parts += _random_annotated(layer)
    if transform.mirror:
        parts.append("mirror")
    return parts


def is_shuffled(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether Caffe draws another order of the records each time: they are read in their own order here, which over all
    of them gives the same score.
    """
    params = (layer.data_param, layer.image_data_param, layer.hdf5_data_param, layer.dense_image_data_param)
    return any(param.shuffle for param in params)


def _random_annotated(layer: caffe_pb2.LayerParameter) -> list[str]:
    transform, parts = layer.transform_param, []
    if any(_gives(one) and _draws(one.sampler) for one in layer.annotated_data_param.batch_sampler):
        parts.append("batch_sampler")
    if any(getattr(transform.distort_param, name) > 0.0 for name in _PROBABILITIES):
        parts.append("distort_param")
    if transform.HasField("expand_param") and transform.expand_param.prob > 0.0:
        parts.append("expand_param")
    return parts


def sampler_faults(layer: caffe_pb2.LayerParameter) -> Iterator[str]:
    """What Caffe aborts at, each with its remedy."""
    for one in layer.annotated_data_param.batch_sampler:
        s = one.sampler
        scales, aspects = (s.min_scale, s.max_scale), (s.min_aspect_ratio, s.max_aspect_ratio)
        if _gives(one) and not (0.0 < scales[0] <= scales[1] <= 1.0 and 0.0 < aspects[0] <= aspects[1] < np.inf):
            yield (
                f"batch_sampler has scales of {scales[0]:g} to {scales[1]:g} and aspect ratios of {aspects[0]:g} to "
                f"{aspects[1]:g}, at which Caffe aborts; scales go from above 0 to 1, and the least stands first"
            )
    if layer.transform_param.HasField("expand_param") and layer.transform_param.expand_param.max_expand_ratio <= 1.0:
        yield "expand_param needs a max_expand_ratio above 1, else Caffe aborts; take it out"


def _gives(one: caffe_pb2.BatchSampler) -> bool:
    has_room = not one.HasField("max_sample") or one.max_sample > 0
    return bool(one.use_original_image and one.max_trials > 0 and has_room)


def _draws(sampler: caffe_pb2.Sampler) -> bool:
    return (sampler.min_scale, sampler.max_scale) != (1.0, 1.0)


def _is_met(c: caffe_pb2.SampleConstraint, boxes: Sequence[Box]) -> bool:
    """Whether the whole image is a sample that meets the constraint on some box."""
    kinds = [name for name in _OVERLAPS if c.HasField(f"min_{name}") or c.HasField(f"max_{name}")]
    if not kinds:
        return True
    return any(_passes(c, kinds[0], box) for box in boxes)


def _passes(c: caffe_pb2.SampleConstraint, name: str, box: Box) -> bool:
    value = _overlap(name, box)
    least, most = f"min_{name}", f"max_{name}"
    return not ((c.HasField(least) and value < getattr(c, least)) or (c.HasField(most) and value > getattr(c, most)))


_OVERLAPS = ("jaccard_overlap", "sample_coverage", "object_coverage")
"""In the order in which Caffe looks at them."""


def _overlap(name: str, box: Box) -> float:
    """One of _OVERLAPS of the whole image with a box, in float32."""
    low = np.array([box.xmin, box.ymin], np.float32)
    high = np.array([box.xmax, box.ymax], np.float32)
    zero, one = np.float32(0.0), np.float32(1.0)
    if (low > one).any() or (high < zero).any():
        return 0.0
    extent = np.minimum(high, one) - np.maximum(low, zero)
    shared = extent[0] * extent[1] if (extent > zero).all() else zero
    if not shared > zero:
        return 0.0
    if box.HasField("size"):
        size = np.float32(box.size)
    else:
        size = (high[0] - low[0]) * (high[1] - low[1])
    if name == "jaccard_overlap":
        return float(shared / (one + size - shared))
    return float(shared if name == "sample_coverage" else shared / size)
