"""ProposalLayer of rpn.proposal_layer against its definition in NumPy; any other Python layer is refused."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.layers.harness import random, refused, run

Array = npt.NDArray[np.float32]
USUAL: dict[str, Any] = {
    "feat_stride": 16,
    "scales": (8.0, 16.0, 32.0),
    "ratios": (0.5, 1.0, 2.0),
    "base_size": 16,
    "min_size": 16,
    "pre_nms_topn": 6000,
    "post_nms_topn": 300,
    "nms_thresh": 0.7,
}


def layer(param_str: str, tops: str = 'top: "rois"') -> str:
    where = 'module: "rpn.proposal_layer" layer: "ProposalLayer"'
    return f'type: "Python" {tops} python_param {{ {where} param_str: "{param_str}" }}'


def anchors(base: int, ratios: tuple[float, ...], scales: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Corners (A, 4) of boxes around the middle of a square of side `base`, scales running fastest."""
    middle, found = (base - 1) / 2, []
    for ratio in ratios:
        w = np.rint(np.sqrt(base * base / ratio))
        h = np.rint(w * ratio)
        for scale in scales:
            half_w, half_h = (w * scale - 1) / 2, (h * scale - 1) / 2
            found.append((middle - half_w, middle - half_h, middle + half_w, middle + half_h))
    return np.array(found)


def suppressed(boxes: Array, threshold: float) -> list[int]:
    """The boxes, in descending order of score, that overlap none before them by more than the threshold."""
    kept: list[int] = []
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    for i, box in enumerate(boxes):
        w = np.maximum(np.minimum(box[2], boxes[kept, 2]) - np.maximum(box[0], boxes[kept, 0]) + 1, 0)
        h = np.maximum(np.minimum(box[3], boxes[kept, 3]) - np.maximum(box[1], boxes[kept, 1]) + 1, 0)
        if (w * h / (area[i] + area[kept] - w * h) <= threshold).all():
            kept.append(i)
    return kept


def propose(scores: Array, deltas: Array, info: Array, **given: Any) -> tuple[Array, Array]:
    """Rois (R, 5) and scores (R, 1), as many as are found."""
    p = {**USUAL, **given}
    base = anchors(p["base_size"], p["ratios"], p["scales"])
    height, width = scores.shape[2:]
    score = scores[0, len(base) :].transpose(1, 2, 0).ravel()
    d = deltas[0].transpose(1, 2, 0).reshape(-1, 4)
    y, x = (np.indices((height, width)) * p["feat_stride"]).reshape(2, -1, 1)
    box = (np.stack([x, y, x, y], axis=-1) + base).reshape(-1, 4).astype(np.float32)
    size = box[:, 2:] - box[:, :2] + 1
    center = d[:, :2] * size + box[:, :2] + np.float32(0.5) * size
    half = np.exp(d[:, 2:]) * size * np.float32(0.5)
    low = np.clip(center - half, 0, info[0, 1::-1] - 1)
    high = np.clip(center + half, 0, info[0, 1::-1] - 1)
    large = (high - low + 1 >= p["min_size"] * info[0, 2]).all(axis=1)
    box, score = np.concatenate([low, high], axis=1)[large], score[large]
    order = np.argsort(-score, kind="stable")[: p["pre_nms_topn"]]
    kept = order[suppressed(box[order], p["nms_thresh"])][: p["post_nms_topn"]]
    return np.concatenate([np.zeros((len(kept), 1), np.float32), box[kept]], axis=1), score[kept, None]


CASES = [
    pytest.param({}, (6, 8), (96, 128, 1.0), id="as_tested_by_faster_rcnn"),
    pytest.param({"scales": (2, 4)}, (9, 7), (144, 112, 1.0), id="scales"),
    pytest.param({"scales": (1,), "ratios": (0.3, 1.0, 3.0, 1.7)}, (9, 7), (144, 112, 1.0), id="ratios"),
    pytest.param({"scales": (2, 4), "pre_nms_topn": 60}, (9, 7), (144, 112, 1.0), id="few_before_suppression"),
    pytest.param({"scales": (2, 4), "post_nms_topn": 5}, (9, 7), (144, 112, 1.0), id="few_after_suppression"),
    pytest.param({"scales": (2, 4), "nms_thresh": 0.3}, (9, 7), (144, 112, 1.0), id="strict"),
    pytest.param({"scales": (2, 4), "min_size": 30}, (9, 7), (144, 112, 1.6), id="large_in_the_resized_image"),
    pytest.param({"scales": (2, 4), "feat_stride": 8, "base_size": 8}, (9, 7), (70, 50, 1.0), id="stride_and_base"),
    pytest.param({"min_size": 500}, (4, 4), (64, 64, 1.0), id="none_is_found"),
    pytest.param({"scales": (2,), "base_size": 15}, (6, 6), (96, 96, 1.0), id="sides_of_a_half"),
    pytest.param({"scales": (2,)}, (2, 1), (30, 17, 1.0), id="fewer_places_than_rows"),
]


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "equal_scores"])
@pytest.mark.parametrize(("settings", "places", "info"), CASES)
def test_proposal_finds_the_boxes(
    settings: dict[str, Any], places: tuple[int, int], info: tuple[float, ...], ties: bool
) -> None:
    p = {**USUAL, **settings}
    n = len(p["ratios"]) * len(p["scales"])
    scores = np.random.default_rng(4).uniform(0.01, 1.0, (1, 2 * n, *places)).astype(np.float32)
    if ties:
        scores = np.ceil(scores * np.float32(8)) / np.float32(8)
    deltas, image = random(1, 4 * n, *places) * np.float32(0.4), np.array([info], np.float32)
    rois, found = run(layer(str(settings)), scores, deltas, image)[0], propose(scores, deltas, image, **settings)[0]
    assert rois.shape == (p["post_nms_topn"], 5)
    np.testing.assert_allclose(rois[: len(found)], found, rtol=0, atol=1e-3)
    assert (rois[len(found) :] == 0.0).all()


def test_proposal_gives_scores_as_a_second_top() -> None:
    scores, deltas = random(1, 12, 5, 6) ** 2 + np.float32(0.1), random(1, 24, 5, 6) * np.float32(0.3)
    info = np.array([[80, 96, 1]], np.float32)
    settings = {"scales": (2, 4), "post_nms_topn": 40, "nms_thresh": 0.3}
    rois, likely = run(layer(str(settings), 'top: "rois" top: "scores"'), scores, deltas, info)
    expected_rois, expected = propose(scores, deltas, info, **settings)
    assert 3 < len(expected) < 40
    np.testing.assert_allclose(rois[: len(expected)], expected_rois, rtol=0, atol=1e-3)
    assert likely.shape == (40, 1)
    assert (likely[: len(expected)] == expected).all()
    assert (likely[len(expected) :] == 0.0).all()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("'feat_stride': 16", id="as_in_the_models"),
        pytest.param("{'feat_stride': 16, 'scales': !!python/tuple [8, 16, 32]}", id="yaml"),
        pytest.param("'feat_stride': 16 \\n'scales': !!python/tuple [8, 16, 32]", id="an_entry_a_line"),
        pytest.param("'feat_stride': 16,\\n'scales': [8,\\n16, 32]", id="a_list_over_lines"),
        pytest.param("", id="defaults"),
    ],
)
def test_proposal_reads_param_str(text: str) -> None:
    scores, deltas = random(1, 18, 4, 4) ** 2, random(1, 36, 4, 4) * np.float32(0.1)
    info = np.array([[64, 64, 1]], np.float32)
    assert (run(layer(text), scores, deltas, info)[0] == run(layer(""), scores, deltas, info)[0]).all()


SHAPES = ((1, 18, 4, 4), (1, 36, 4, 4), (1, 3))


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        pytest.param("feat_stride 16", SHAPES, "param_str 'feat_stride 16' is not understood", id="syntax"),
        pytest.param("'stride': 16", SHAPES, "param_str sets 'stride'; feat_stride, scales, ratios, base", id="name"),
        pytest.param("'min_size': 1.5", SHAPES, "param_str sets min_size to 1.5; a positive int would do", id="type"),
        pytest.param("'scales': []", SHAPES, "sets scales to []; positive numbers would do", id="empty"),
        pytest.param("'feat_stride': 0", SHAPES, "sets feat_stride to 0; a positive int", id="zero"),
        pytest.param("", ((2, 18, 4, 4), *SHAPES[1:]), "one image at a time is known", id="batch"),
        pytest.param("", ((1, 6, 4, 4), *SHAPES[1:]), "9 anchors need (1, 18, 4, 4) and (1, 36, 4, 4)", id="anchors"),
        pytest.param("", (*SHAPES[:2], (1, 5)), "im_info has shape (1, 5); (1, 3), height, width and", id="info"),
        pytest.param("", SHAPES[:2], "2 bottoms are given; scores, deltas and im_info are needed", id="bottoms"),
    ],
)
def test_proposal_refuses(text: str, shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    assert message in refused(layer(text), *shapes)


def test_python_layers_are_refused_by_name() -> None:
    said = refused('type: "Python" bottom: "x" python_param { module: "my.layers" layer: "Crop" }', (1, 2))
    assert said == (
        "net.prototxt: layer 'it' (Python): runs my.layers.Crop, code from outside the prototxt, which cannot be "
        "compiled; of Python layers rpn.proposal_layer.ProposalLayer alone is known"
    )


def in_cpp(scores: Array, deltas: Array, info: Array, **p: Any) -> tuple[Array, Array]:
    """What PVANET's layer finds: a box that is too small has a score of 0, and halves are rounded up."""
    base = []
    for ratio in p["ratios"]:
        w = np.floor(np.sqrt(p["base_size"] ** 2 / ratio) + 0.5)
        h = np.floor(w * ratio + 0.5)
        middle = (p["base_size"] - 1) / 2
        for scale in p["scales"]:
            half = ((w * scale - 1) / 2, (h * scale - 1) / 2)
            base.append((middle - half[0], middle - half[1], middle + half[0], middle + half[1]))
    found = []
    for row, column in np.ndindex(scores.shape[2:]):
        for k, corners in enumerate(base):
            x1, y1, x2, y2 = np.array(corners) + np.tile([column, row], 2) * p["feat_stride"]
            dx, dy, dw, dh = deltas[0, 4 * k : 4 * k + 4, row, column]
            w, h = x2 - x1 + 1, y2 - y1 + 1
            x, y = dx * w + x1 + w / 2, dy * h + y1 + h / 2
            half_w, half_h = np.exp(dw) * w / 2, np.exp(dh) * h / 2
            box = [x - half_w, y - half_h, x + half_w, y + half_h]
            box = [min(max(v, 0), info[0, 1 - i % 2] - 1) for i, v in enumerate(box)]
            large = (
                box[3] - box[1] + 1 >= p["min_size"] * info[0, 2] and box[2] - box[0] + 1 >= p["min_size"] * info[0, -1]
            )
            found.append((*box, scores[0, len(base) + k, row, column] if large else 0.0))
    boxes = np.array(found, np.float32)
    order = np.argsort(-boxes[:, 4], kind="stable")[: p["pre_nms_topn"]]
    kept = order[suppressed(boxes[order, :4], p["nms_thresh"])][: p["post_nms_topn"]]
    return boxes[kept, :4], boxes[kept, 4]


@pytest.mark.parametrize("info", [(140, 110, 1.0), (140, 110, 1.5, 0.7)], ids=["one_scale", "two_scales"])
def test_proposal_in_cpp(info: tuple[float, ...]) -> None:
    p = {"feat_stride": 16, "base_size": 15, "min_size": 20, "scales": (1.0, 2.5), "ratios": (0.36, 1.0, 2.669)}
    p |= {"pre_nms_topn": 370, "post_nms_topn": 300, "nms_thresh": 0.6}
    text = " ".join([f"scale: {s}" for s in (1.0, 2.5)] + [f"ratio: {r}" for r in (0.36, 1.0, 2.669)])
    text += " feat_stride: 16 base_size: 15 min_size: 20 pre_nms_topn: 370 post_nms_topn: 300 nms_thresh: 0.6"
    scores = np.random.default_rng(4).uniform(0.01, 1.0, (1, 12, 9, 7)).astype(np.float32)
    deltas, image = random(1, 24, 9, 7) * np.float32(0.3), np.array([info], np.float32)
    text = f'type: "Proposal" top: "rois" top: "scores" proposal_param {{ {text} }}'
    rois, likely = run(text, scores, deltas, image)
    boxes, wanted = in_cpp(scores, deltas, image, **p)
    assert (wanted == 0.0).any()
    assert likely.shape == (300,)
    np.testing.assert_allclose(rois[: len(boxes), 1:], boxes, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(likely[: len(wanted)], wanted)
    assert not rois[len(boxes) :].any()


def test_proposal_in_cpp_needs_its_anchors() -> None:
    said = refused('type: "Proposal" proposal_param { ratio: 1 }', (1, 18, 4, 4), (1, 36, 4, 4), (1, 3))
    assert "1 ratio and 0 scale; both are needed" in said
