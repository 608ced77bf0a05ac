"""Scenes of handwritten digits with their boxes, and the priors of an SSD: composition, matching, encoding.

NumPy and OpenCV alone, so that they can be tested without PyTorch. Priors, matching and code are those of Caffe's SSD
(PriorBox; MultiBoxLoss with PER_PREDICTION and CENTER_SIZE): DetectionOutput decodes what a net learns from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from distcalib.caffe import caffe_pb2

Array = npt.NDArray[np.float32]
Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

SIDE = 64  # pixels of the canvas
MIN_DIGIT, MAX_DIGIT = 14, 30  # side of the enlarged 8x8 digit
MIN_DIGITS, MAX_DIGITS = 2, 5
N_TRIES = 40  # places that are tried before a scene stays with fewer digits, but never below MIN_DIGITS
MAX_OVERLAP = 0.05  # intersection over union of two digits of a scene
VARIANCES = (0.1, 0.1, 0.2, 0.2)
MATCH_OVERLAP = 0.5


@dataclass(frozen=True)
class Scene:
    """image (1, SIDE, SIDE) u8; boxes (N, 4): xmin, ymin, xmax, ymax, fractions of SIDE; labels (N,): digit + 1."""

    image: Images
    boxes: Array
    labels: Labels


@dataclass(frozen=True)
class Priors:
    """A PriorBox layer of side·side cells with boxes of min_size, sqrt(min_size·max_size), and min_size by aspect."""

    side: int
    min_size: float
    max_size: float
    aspect: float = 0.6  # digits are taller than wide

    def boxes(self) -> Array:
        """(side·side·3, 4) as fractions, cells row by row, as PriorBox orders them."""
        root = math.sqrt(self.aspect)
        mean = math.sqrt(self.min_size * self.max_size)
        shapes = [(self.min_size, self.min_size), (mean, mean), (self.min_size * root, self.min_size / root)]
        step = SIDE / self.side
        out = [
            ((x + 0.5) * step - w / 2, (y + 0.5) * step - h / 2, (x + 0.5) * step + w / 2, (y + 0.5) * step + h / 2)
            for y in range(self.side)
            for x in range(self.side)
            for w, h in shapes
        ]
        return (np.array(out) / SIDE).astype(np.float32)


def overlaps(a: Array, b: Array) -> Array:
    """Intersection over union of boxes a (N, 4) and b (M, 4): (N, M)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    area_a, area_b = (np.prod(box[:, 2:] - box[:, :2], axis=1) for box in (a, b))
    return np.asarray(shared / (area_a[:, None] + area_b[None] - shared), np.float32)


def compose(digits: Images, labels: Labels, rng: np.random.Generator) -> Scene:
    """MIN_DIGITS to MAX_DIGITS of digits (N, 8, 8) u8 at random places and sizes on a noisy canvas; boxes fit ink."""
    level, contrast = rng.uniform(20, 70), rng.uniform(0.6, 1.0)
    canvas = rng.normal(level, rng.uniform(6, 18), (SIDE, SIDE)).astype(np.float32)
    boxes: list[tuple[float, float, float, float]] = []
    chosen: list[int] = []
    wanted, tries = int(rng.integers(MIN_DIGITS, MAX_DIGITS + 1)), 0
    while len(boxes) < wanted and (tries < N_TRIES or len(boxes) < MIN_DIGITS):
        tries += 1
        side, index = int(rng.integers(MIN_DIGIT, MAX_DIGIT + 1)), int(rng.integers(len(digits)))
        x, y = (int(at) for at in rng.integers(0, SIDE - side + 1, 2))
        ink = cv2.resize(digits[index], (side, side), interpolation=cv2.INTER_LINEAR)
        rows, columns = np.flatnonzero((ink > 64).any(1)), np.flatnonzero((ink > 64).any(0))
        box = (x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1)
        scaled = tuple(float(at) / SIDE for at in box)
        if boxes and overlaps(np.array([scaled], np.float32), np.array(boxes, np.float32)).max() > MAX_OVERLAP:
            continue  # no room here
        patch = canvas[y : y + side, x : x + side]
        patch += ink.astype(np.float32) * (contrast * (255 - level) / 255)
        boxes.append((scaled[0], scaled[1], scaled[2], scaled[3]))
        chosen.append(int(labels[index]) + 1)
    image = canvas.round().clip(0, 255).astype(np.uint8)[None]
    return Scene(image, np.array(boxes, np.float32), np.array(chosen, np.int64))


def scenes(digits: Images, labels: Labels, n: int, seed: int) -> list[Scene]:
    """`n` scenes; the same for the same digits and seed."""
    rng = np.random.default_rng(seed)
    return [compose(digits, labels, rng) for _ in range(n)]


def match(priors: Array, boxes: Array) -> Labels:
    """For each prior (P, 4) the index of its box of (N, 4), or -1: the best prior of each box, then every one of
    overlap MATCH_OVERLAP or more."""
    table = overlaps(priors, boxes)
    matched = np.where(table.max(1) >= MATCH_OVERLAP, table.argmax(1), -1)
    left = table.copy()
    for _ in range(len(boxes)):
        prior, box = np.unravel_index(int(left.argmax()), left.shape)
        matched[prior] = box
        left[prior], left[:, box] = -1, -1
    return np.asarray(matched, np.int64)


def encode(priors: Array, boxes: Array) -> Array:
    """CENTER_SIZE: what DetectionOutput decodes to boxes (P, 4), one a prior; variances divide."""
    size, prior_size = boxes[:, 2:] - boxes[:, :2], priors[:, 2:] - priors[:, :2]
    shift = (boxes[:, 2:] + boxes[:, :2] - priors[:, 2:] - priors[:, :2]) / 2
    code = np.concatenate([shift / prior_size, np.log(size / prior_size)], axis=1)
    return np.asarray(code / np.array(VARIANCES, np.float32), np.float32)


def targets(priors: Array, scene: Scene) -> tuple[Array, Labels]:
    """What loc (P, 4) and class (P,) a prior should answer; class 0 is background."""
    matched = match(priors, scene.boxes)
    return encode(priors, scene.boxes[matched]), np.where(matched >= 0, scene.labels[matched], 0)


def annotated(scene: Scene) -> caffe_pb2.AnnotatedDatum:
    """The record of `scene`: an annotation group a label, in their order."""
    record = caffe_pb2.AnnotatedDatum(type=caffe_pb2.AnnotatedDatum.BBOX)
    record.datum.channels, record.datum.height, record.datum.width = scene.image.shape
    record.datum.data = scene.image.tobytes()
    for label in sorted(set(scene.labels.tolist())):
        group = record.annotation_group.add(group_label=label)
        for instance, box in enumerate(scene.boxes[scene.labels == label].tolist()):
            bbox = group.annotation.add(instance_id=instance).bbox
            bbox.xmin, bbox.ymin, bbox.xmax, bbox.ymax = box
            bbox.difficult = False
    return record


def all_priors(layers: Sequence[Priors]) -> Array:
    """Boxes of all layers, one behind the other as Concat puts them."""
    return np.concatenate([layer.boxes() for layer in layers])
