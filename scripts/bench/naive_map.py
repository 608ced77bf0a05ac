"""mAP of an SSD, told naively in NumPy: what the maker prints; distcalib is held against it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scripts.examples.digit_scenes import VARIANCES, Array, Scene, overlaps

NMS_OVERLAP, MIN_SCORE, KEEP = 0.45, 0.01, 50  # as in the DetectionOutput of the example
Detection = tuple[float, int, Array]  # score, class, box (4,)


def decode(priors: Array, code: Array) -> Array:
    """Boxes (P, 4) of CENTER_SIZE code (P, 4)."""
    size = priors[:, 2:] - priors[:, :2]
    code = code * np.array(VARIANCES, np.float32)
    centre, extent = (priors[:, 2:] + priors[:, :2]) / 2 + code[:, :2] * size, np.exp(code[:, 2:]) * size
    return np.concatenate([centre - extent / 2, centre + extent / 2], axis=1)


def detections(priors: Array, code: Array, scores: Array) -> list[Detection]:
    """The KEEP best of an image after suppression within each class: code (P, 4), scores (P, C), class 0 background."""
    boxes = decode(priors, code)
    found: list[Detection] = []
    for label in range(1, scores.shape[1]):
        kept: list[int] = []
        for at in np.argsort(-scores[:, label], kind="stable").tolist():
            if scores[at, label] <= MIN_SCORE:
                break
            if not kept or overlaps(boxes[[at]], boxes[kept]).max() <= NMS_OVERLAP:
                kept.append(at)
        found += [(float(scores[at, label]), label, boxes[at]) for at in kept]
    return sorted(found, key=lambda one: -one[0])[:KEEP]


def average_precision(found: Sequence[tuple[float, int, Array]], truth: Sequence[Array]) -> float:
    """11-point AP of one class: found (score, image, box), truth (N, 4) an image; a box counts once, at overlap 0.5."""
    seen = [np.zeros(len(boxes), bool) for boxes in truth]
    right = []
    for _, image, box in sorted(found, key=lambda one: -one[0]):
        shared = overlaps(box[None], truth[image])[0] if len(truth[image]) else np.zeros(0)
        best = int(shared.argmax()) if len(shared) else -1
        hit = best >= 0 and bool(shared[best] >= 0.5) and not seen[image][best]
        if hit:
            seen[image][best] = True
        right.append(hit)
    n_right = np.cumsum(right)
    recall, precision = n_right / sum(map(len, truth)), n_right / np.arange(1, len(right) + 1)
    return float(np.mean([precision[recall >= i / 10].max(initial=0) for i in range(11)]))


def mean_average_precision(all_found: Sequence[Sequence[Detection]], some: Sequence[Scene]) -> float:
    """Mean over the classes that occur in `some`; all_found has the detections of each of its scenes."""
    classes = sorted({int(label) for scene in some for label in scene.labels})
    scores = []
    for label in classes:
        found = [(s, i, box) for i, one in enumerate(all_found) for s, k, box in one if k == label]
        scores.append(average_precision(found, [scene.boxes[scene.labels == label] for scene in some]))
    return float(np.mean(scores))
