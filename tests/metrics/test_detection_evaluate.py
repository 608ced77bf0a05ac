from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter, ResizeParameter
from distcalib.errors import DataError, UnsupportedError
from distcalib.metrics import Detections, check_layer, read_sizes
from distcalib.metrics.boxes import scaled
from distcalib.metrics.detection_evaluate import detection_evaluate, in_pixels
from tests.metrics.boxes import jaccard, random_boxes

Array = npt.NDArray[Any]
f = np.float32
N_ITEMS = 4


def layer(text: str = "") -> LayerParameter:
    """A DetectionEvaluate of four classes."""
    proto = LayerParameter(name="eval", type="DetectionEvaluate", bottom=["out", "label"], top=["map"])
    return text_format.Parse(f"detection_evaluate_param {{ num_classes: 4 {text} }}", proto)


def inputs(seed: int) -> tuple[Array, Array]:
    """Detections (1, 1, R, 7) near and far from objects (1, 1, N, 8); item 2 has none of the former, 3 of the latter.

    Classes are 1 to 3, scores of few values.
    """
    rng = np.random.default_rng(seed)
    objects = np.zeros((14, 8), f)
    objects[:, 0] = rng.choice([0, 1, 2], 14)
    objects[:, 1] = rng.integers(1, 4, 14)
    objects[:, 3:7] = random_boxes(14, seed)
    objects[:, 7] = rng.random(14) < 0.3
    near = objects[rng.integers(0, 14, 60)]
    found = np.zeros((60, 7), f)
    found[:, 0] = np.where(rng.random(60) < 0.15, 3, near[:, 0])
    found[:, 1] = np.where(rng.random(60) < 0.15, rng.integers(1, 4, 60), near[:, 1])
    found[:, 2] = rng.integers(1, 9, 60) / 8
    found[:, 3:] = near[:, 3:7] + 0.06 * rng.standard_normal((60, 4))
    found = found[found[:, 0] != 2]
    order = np.lexsort((-found[:, 2], found[:, 1], found[:, 0]))
    return found[order][None, None], objects[np.argsort(objects[:, 0], kind="stable")][None, None]


def stated(proto: LayerParameter, found: Array, labels: Array, sizes: list[tuple[int, int]]) -> list[list[float]]:
    """Rows (label, score, tp, fp), one detection at a time, as detection_evaluate_layer.cpp fills them."""
    p = proto.detection_evaluate_param
    rows: list[list[float]] = []
    for item in range(N_ITEMS):
        for label in range(4):
            wanted = [row for row in labels.reshape(-1, 8) if row[0] == item and row[1] == label]
            boxes = [row for row in found.reshape(-1, 7) if row[0] == item and row[1] == label]
            visited: set[int] = set()
            for row in sorted(boxes, key=lambda row: -row[2]):
                best, nearest = -1.0, -1
                for j, one in enumerate(wanted):
                    a, b = row[3:], one[3:7]
                    if sizes:
                        h, w = sizes[item]
                        scale = np.array([w, h, w, h], f)
                        a, b = np.clip(a, 0, 1) * scale, np.clip(b, 0, 1) * scale
                    overlap = jaccard(a, b, pixels=bool(sizes))
                    if overlap > best:
                        best, nearest = overlap, j
                if best < f(p.overlap_threshold):
                    rows.append([label, row[2], 0, 1])
                elif p.evaluate_difficult_gt or not wanted[nearest][7]:
                    hit = nearest not in visited
                    visited.add(nearest)
                    rows.append([label, row[2], hit, not hit])
                # else neither: it is counted as nothing
    return rows


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "text", ["", "evaluate_difficult_gt: false", "overlap_threshold: 0.7", "overlap_threshold: 0.3", "sizes"]
)
def test_detection_evaluate_is_what_caffe_states(tmp_path: Path, text: str, seed: int) -> None:
    sizes: list[tuple[int, int]] = []
    if text == "sizes":
        sizes = [(20, 30), (45, 10), (8, 8), (70, 60)]
        path = tmp_path / f"sizes{seed}.txt"
        path.write_text("".join(f"name{i} {h} {w}\n" for i, (h, w) in enumerate(sizes)))
        text = f'name_size_file: "{path}" overlap_threshold: 0.4'
    proto = layer(text)
    found, labels = inputs(seed)
    made = detection_evaluate(proto, found, labels)
    rows = stated(proto, found, labels, sizes)
    assert made.labels.tolist() == [row[0] for row in rows]
    assert made.scores.tolist() == [row[1] for row in rows]
    assert made.hits.tolist() == [bool(row[2]) for row in rows]
    counted = labels[0, 0] if "false" not in text else labels[0, 0][labels[0, 0, :, 7] == 0]
    assert dict(made.positives) == {label: int((counted[:, 1] == label).sum()) for label in (1, 2, 3)}
    assert len(rows) > 30
    assert made.hits.any() or "0.7" in text


def evaluated(
    found: list[list[float]], labels: list[list[float]], text: str = "", records: Sequence[int] = ()
) -> Detections:
    return detection_evaluate(
        layer(text), np.array(found, f).reshape(1, 1, -1, 7), np.array(labels, f).reshape(1, 1, -1, 8), records
    )


BOX = [0.1, 0.1, 0.4, 0.4]


@pytest.mark.parametrize(
    ("found", "labels", "hits", "n_positives"),
    [
        ([[0, -1, -1, -1, -1, -1, -1]], [[0, 1, 0, *BOX, 0]], [], 1),  # nothing was detected
        ([[0, 1, 0.9, *BOX]], [[-1] * 8], [False], 0),  # nothing was there
        ([[0, 1, 0.9, *BOX]], [[0, 1, 0, *BOX, 0], [-1] * 8, [0, 1, 0, *BOX, 0]], [True], 1),  # ends at -1
        ([[0, 1, 0.9, *BOX], [0, 1, 0.9, *BOX]], [[0, 1, 0, *BOX, 0]], [True, False], 1),
        ([[1, 1, 0.9, *BOX]], [[0, 1, 0, *BOX, 0]], [False], 1),
        ([[0, 1, 0.9, *BOX[:3], np.nan]], [[0, 1, 0, *BOX, 0]], [False], 1),
        ([[0, 1, 0.9, *BOX], [0, 1, 0.8, *BOX]], [[0, 1, 0, *BOX, 0]] * 2, [True, False], 2),  # both are at the first
        ([[0, 1, 0.9, *BOX]], [[0, 2, 0, *BOX, 0], [1, 1, 0, *BOX, 0]], [False], 1),
    ],
    ids=["no_detections", "no_objects", "end", "twice", "other_image", "nan", "equal_objects", "other_class"],
)
def test_detection_evaluate_of_little(
    found: list[list[float]], labels: list[list[float]], hits: list[bool], n_positives: int
) -> None:
    made = evaluated(found, labels)
    assert made.hits.tolist() == hits
    assert made.positives[1] == n_positives
    assert made.denominator == 1


def test_detection_evaluate_takes_the_size_of_the_record(tmp_path: Path) -> None:
    path = tmp_path / "sizes.txt"
    path.write_text("a 100 100\nb 2 2\nc 100 100\n")
    text = f'name_size_file: "{path}" overlap_threshold: 0.5'
    # Halves of an object overlap it by 0.5 and less; in images of few pixels the last one makes it more.
    found, labels = [[0, 1, 0.9, 0.0, 0.0, 0.49, 1.0]], [[0, 1, 0, 0.0, 0.0, 1.0, 1.0, 0]]
    hits = [bool(evaluated(found, labels, text, [record]).hits[0]) for record in range(5)]
    assert hits == [False, True, False, False, True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resize_mode: WARP height: 10 width: 10", [-0.0, 0.2, 0.5, 1.0]),
        ("resize_mode: FIT_SMALL_SIZE height: 10 width: 10", [0.0, 0.2, 0.5, 1.0]),
        (
            "resize_mode: FIT_SMALL_SIZE height: 10 width: 10 height_scale: 30 width_scale: 20",
            [0.0, 0.2 * 30 / 40, 0.5 * 20 / 80, 1.2 * 30 / 40],
        ),
        ("resize_mode: FIT_LARGE_SIZE_AND_PAD height: 10 width: 10", [0.0, 0.0, 0.5, 1.0]),
        ("resize_mode: FIT_LARGE_SIZE_AND_PAD height: 10 width: 40", [0.0, 0.2, 0.5, 1.0]),
    ],
)
def test_in_pixels_undoes_the_resizing(text: str, expected: list[float]) -> None:
    box = np.array([[-0.25, 0.2, 0.5, 1.2]], f)
    found = in_pixels(box, (40, 80), text_format.Parse(text, ResizeParameter()))
    np.testing.assert_allclose(found, scaled(np.array([expected], f), 40, 80), atol=1e-4)


@pytest.mark.parametrize("label", [0.0, 4.0, -2.0])
def test_detection_evaluate_refuses_labels_that_are_no_class(label: float) -> None:
    with pytest.raises(DataError, match="1 of 2 objects have a label that is not one of the 4 classes, or the"):
        evaluated([], [[0, 1, 0, *BOX, 0], [0, label, 0, *BOX, 0]])


def test_detection_evaluate_refuses_other_shapes() -> None:
    with pytest.raises(UnsupportedError, match=r"shapes \(2, 3\) and \(1, 1, 1, 8\); rows of 7"):
        detection_evaluate(layer(), np.zeros((2, 3), f), np.zeros((1, 1, 1, 8), f))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no num_classes; give the number of classes, background included"),
        ("overlap_threshold: 0", "overlap_threshold=0; it must be above 0 and at most 1"),
        ("overlap_threshold: nan", "overlap_threshold=nan; it must be above 0 and at most 1"),
        ("overlap_threshold: 1.5", "overlap_threshold=1.5; it must be above 0 and at most 1"),
        (
            'name_size_file: "a" resize_param { resize_mode: FIT_LARGE_SIZE_AND_PAD height: 30 }',
            "resize_param needs the height and the width that images were padded to",
        ),
    ],
)
def test_check_layer_refuses_a_detection_evaluate(text: str, said: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        proto = layer(text)
        if not text:
            proto.detection_evaluate_param.ClearField("num_classes")
        check_layer(proto)
    assert str(caught.value) == f"layer 'eval' (DetectionEvaluate): {said}"


@pytest.mark.parametrize("text", ["", "a 3", "a 3 x", "a 0 4", "a 3 4\nb 3"])
def test_read_sizes_refuses_another_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sizes.txt"
    path.write_text(text)
    with pytest.raises(DataError, match="is not a name_size_file; its lines are `name height width`"):
        read_sizes(str(path))
    with pytest.raises(DataError, match=r"cannot be read \(No such file or directory\)"):
        read_sizes(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"cannot be read \(embedded null byte\)"):
        read_sizes(f"{tmp_path}/a\0b")
    path.write_bytes("a 3 4\n".encode("utf-16"))
    read_sizes.cache_clear()
    with pytest.raises(DataError, match="the name_size_file is text in UTF-16; save it as UTF-8"):
        read_sizes(str(path))
