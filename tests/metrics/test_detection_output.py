from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import DetectionOutputParameter, LayerParameter, PriorBoxParameter
from distcalib.errors import UnsupportedError
from distcalib.metrics import check_layer, make_layer
from distcalib.metrics.detection_output import decoded, left_of_groups, suppressed
from tests.metrics.boxes import decode, greedy, random_boxes

Array = npt.NDArray[Any]
N_ITEMS, N_PRIORS, N_CLASSES = 3, 90, 4


def layer(text: str) -> LayerParameter:
    """A DetectionOutput of four classes."""
    proto = LayerParameter(name="out", type="DetectionOutput", bottom=["loc", "conf", "priors"], top=["out"])
    return text_format.Parse(f"detection_output_param {{ {text} }}", proto)


def inputs(n_loc: int = 1, seed: int = 0) -> tuple[Array, Array, Array]:
    """Boxes, confidences and priors of all items, in the shapes of an SSD."""
    rng = np.random.default_rng(seed)
    loc = rng.standard_normal((N_ITEMS, N_PRIORS * n_loc * 4)).astype(np.float32)
    logits = 3 * rng.standard_normal((N_ITEMS, N_PRIORS, N_CLASSES))
    conf = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    variances = np.tile(np.array([0.1, 0.15, 0.2, 0.25], np.float32), (N_PRIORS, 1))
    priors = np.stack([random_boxes(N_PRIORS, seed), variances]).reshape(1, 2, -1)
    return loc, conf.reshape(N_ITEMS, -1).astype(np.float32), priors


def stated_box(p: DetectionOutputParameter, loc: Array, corners: Array, variances: Array) -> Array:
    """A prediction as a box, in float64 and rounded once."""
    code = PriorBoxParameter.CodeType.Name(p.code_type)
    return np.array(decode(code, corners, variances, loc, p.variance_encoded_in_target), np.float32)


def decoded_box(p: DetectionOutputParameter, loc: Array, corners: Array, variances: Array) -> Array:
    """A prediction as a box, to the last bit as it is decoded among others."""
    [box] = decoded(p, loc[None], corners[None], variances[None])
    return np.asarray(box)


def stated(
    proto: LayerParameter,
    loc: Array,
    conf: Array,
    priors: Array,
    box_of: Callable[[DetectionOutputParameter, Array, Array, Array], Array] = stated_box,
) -> list[list[float]]:
    """The rows, one box at a time, as the comments of detection_output_layer.cpp have them."""
    p = proto.detection_output_param
    corners, variances = priors.reshape(2, -1, 4)
    n_items, n_priors = len(loc), len(corners)
    boxes = loc.reshape(n_items, n_priors, -1, 4)
    scores = conf.reshape(n_items, n_priors, p.num_classes)
    least = p.confidence_threshold if p.HasField("confidence_threshold") else -np.inf
    rows = []
    for item in range(n_items):
        of_item: list[tuple[float, int, list[float]]] = []
        for label in range(p.num_classes):
            if label == p.background_label_id:
                continue
            which = 0 if p.share_location else label
            passing = [i for i in range(n_priors) if scores[item, i, label] > least]
            passing.sort(key=lambda i, item=item, label=label: -scores[item, i, label])  # type: ignore[misc]
            if p.nms_param.HasField("top_k") and p.nms_param.top_k > -1:
                passing = passing[: p.nms_param.top_k]
            made = [box_of(p, boxes[item, i, which], corners[i], variances[i]) for i in passing]
            kept = greedy(made, p.nms_param.nms_threshold, p.nms_param.eta)
            of_item += [(float(scores[item, passing[k], label]), label, made[k].tolist()) for k in kept]
        if -1 < p.keep_top_k < len(of_item):
            of_item = sorted(of_item, key=lambda row: -row[0])[: p.keep_top_k]
            of_item.sort(key=lambda row: row[1])
        rows += [[item, label, score, *box] for score, label, box in of_item]
    return rows or [[item, *[-1] * 6] for item in range(n_items)]


@pytest.mark.parametrize(
    "text",
    [
        "nms_param { nms_threshold: 0.45 top_k: 400 } keep_top_k: 200 confidence_threshold: 0.01 "
        "code_type: CENTER_SIZE",
        "",
        "keep_top_k: 20",
        "keep_top_k: 0",
        "nms_param { top_k: 7 } confidence_threshold: 0.2",
        "nms_param { top_k: -1 nms_threshold: 0 } confidence_threshold: 0.05",
        "nms_param { nms_threshold: 0.7 eta: 0.9 } code_type: CENTER_SIZE confidence_threshold: 0.02",
        "nms_param { nms_threshold: 0.4 eta: 0.5 } code_type: CENTER_SIZE",
        "code_type: CORNER variance_encoded_in_target: true",
        "code_type: CENTER_SIZE variance_encoded_in_target: true",
        "code_type: CORNER_SIZE",
        "code_type: CORNER_SIZE variance_encoded_in_target: true keep_top_k: 10",
        "share_location: false code_type: CENTER_SIZE keep_top_k: 30",
        "share_location: false background_label_id: 2",
        "background_label_id: 3 confidence_threshold: 0.3",
        "share_location: false background_label_id: -1 confidence_threshold: 0.3 keep_top_k: 50",
        "confidence_threshold: 1.0",
    ],
)
def test_detection_output_is_what_caffe_states(text: str) -> None:
    proto = layer(f"num_classes: {N_CLASSES} {text}")
    check_layer(proto)
    loc, conf, priors = inputs(1 if proto.detection_output_param.share_location else N_CLASSES)
    found = make_layer(proto, [loc, conf, priors])
    expected = np.array(stated(proto, loc, conf, priors), np.float32)
    assert found.shape == (1, 1, len(expected), 7)
    np.testing.assert_array_equal(found[0, 0, :, :3], expected[:, :3])
    np.testing.assert_allclose(found[0, 0, :, 3:], expected[:, 3:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", range(60))
def test_detection_output_is_that_of_each_image_and_class_alone_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def one_of(*texts: str) -> str:
        return texts[rng.integers(len(texts))]

    proto = layer(
        f"num_classes: {N_CLASSES} code_type: {one_of('CORNER', 'CENTER_SIZE', 'CENTER_SIZE', 'CORNER_SIZE')} "
        + one_of("", "share_location: false ")
        + one_of("", "variance_encoded_in_target: true ")
        + one_of("", "keep_top_k: 0 ", "keep_top_k: 12 ", "keep_top_k: 60 ")
        + one_of("", "confidence_threshold: 0.05 ", "confidence_threshold: 0.4 ", "confidence_threshold: 0.9 ")
        + one_of("", "background_label_id: 0 ", "background_label_id: 2 ")
        + f"nms_param {{ nms_threshold: {one_of('0', '0.3', '0.45', '0.8', '1')} "
        + one_of("", "", "eta: 0.9 ", "eta: 0.99 ")
        + one_of("", "top_k: -1 ", "top_k: 0 ", "top_k: 10 ", "top_k: 40 ")
        + "}"
    )
    loc, conf, priors = inputs(1 if proto.detection_output_param.share_location else N_CLASSES, seed)
    conf = np.round(conf * 2**10) / np.float32(2**10) if seed % 2 else np.round(conf * 8) / np.float32(8)
    for values in (loc, conf):
        values[rng.random(values.shape) < 0.02] = one_of("nan", "inf", "-inf", "0", "0")
    found = make_layer(proto, [loc, conf, priors])
    with np.errstate(all="ignore"):  # of boxes without end
        expected = np.array(stated(proto, loc, conf, priors, decoded_box), np.float32)
    np.testing.assert_array_equal(found, expected[None, None])


def test_detection_output_orders_equal_scores_by_class_then_prior() -> None:
    proto = layer("num_classes: 3 nms_param { nms_threshold: 0.99 } keep_top_k: 4")
    priors = np.stack([random_boxes(3), np.ones((3, 4), np.float32)]).reshape(1, 2, -1)
    conf = np.full((1, 9), 0.25, np.float32)
    conf[0, 8] = 0.5  # prior 2, class 2
    rows = make_layer(proto, [np.zeros((1, 12), np.float32), conf, priors])[0, 0]
    assert rows[:, 1].tolist() == [1, 1, 1, 2]
    np.testing.assert_array_equal(rows[:, 3:], priors.reshape(2, 3, 4)[0][[0, 1, 2, 2]])


def test_detection_output_of_nans_is_nothing_and_a_box_of_nans_suppresses_none() -> None:
    proto = layer("num_classes: 2 nms_param { nms_threshold: 0.1 }")
    priors = np.stack([random_boxes(2), np.ones((2, 4), np.float32)]).reshape(1, 2, -1)
    loc = np.zeros((2, 8), np.float32)
    conf = np.full((2, 4), np.nan, np.float32)
    assert make_layer(proto, [loc, conf, priors]).tolist() == [[[[i, *[-1] * 6] for i in (0.0, 1.0)]]]
    loc[0, :4] = np.nan
    conf[:] = 0.5
    rows = make_layer(proto, [loc, conf, priors])[0, 0]
    assert rows[:, 0].tolist()[:2] == [0, 0]


def test_suppressed_goes_on_over_many_blocks() -> None:
    boxes = random_boxes(500, seed=3)
    for threshold, eta in ((0.3, 1.0), (0.9, 0.97), (0.0, 1.0)):
        assert suppressed(boxes, threshold, eta).tolist() == greedy(boxes, threshold, eta)
    assert suppressed(boxes[:0], 0.5).tolist() == []


@pytest.mark.parametrize("eta", [1.0, 0.97])
def test_left_of_groups_is_what_suppressed_leaves_of_each(eta: float) -> None:
    counts = np.array([0, 1, 16, 17, 700, 0, 90, 1, 400, 2, 0])
    boxes = random_boxes(int(counts.sum()), seed=5)
    for threshold in (0.0, 0.3, 0.9, 1.0):
        left = left_of_groups(boxes, counts, threshold, eta)
        for own, is_left in zip(*(np.split(a, np.cumsum(counts)[:-1]) for a in (boxes, left)), strict=True):
            assert np.flatnonzero(is_left).tolist() == greedy(own, threshold, eta)
    assert left_of_groups(boxes[:0], 0 * counts, 0.5, eta).tolist() == []


@pytest.mark.parametrize(
    ("text", "bottoms", "said"),
    [
        ("", ["a", "b", "c"], "has no num_classes; give the number of classes, background included"),
        ("num_classes: 3", ["a", "b"], "it takes loc, conf and priors, and makes one top"),
        (
            "num_classes: 3 nms_param { nms_threshold: -1 }",
            ["a", "b", "c"],
            "nms_threshold=-1; it must not be negative",
        ),
        (
            "num_classes: 3 nms_param { nms_threshold: nan }",
            ["a", "b", "c"],
            "nms_threshold=nan; it must not be negative",
        ),
        ("num_classes: 3 confidence_threshold: nan", ["a", "b", "c"], "confidence_threshold=nan; it must be a number"),
        ("num_classes: 3 nms_param { eta: 0 }", ["a", "b", "c"], "eta=0; it must be above 0 and at most 1"),
        (
            "num_classes: 3 background_label_id: -1",
            ["a", "b", "c"],
            "background_label_id=-1 with share_location: true, for which Caffe aborts (could not find location "
            "predictions for label -1); give the number of the background, usually 0",
        ),
    ],
)
def test_check_layer_refuses_a_detection_output(text: str, bottoms: Sequence[str], said: str) -> None:
    proto = layer(text)
    del proto.bottom[:]
    proto.bottom.extend(bottoms)
    with pytest.raises(UnsupportedError) as caught:
        check_layer(proto)
    assert str(caught.value) == f"layer 'out' (DetectionOutput): {said}"


def test_detection_output_refuses_counts_that_do_not_fit() -> None:
    loc, conf, priors = inputs()
    with pytest.raises(UnsupportedError, match="360 and 360 values an image for 90 priors, 5 classes"):
        make_layer(layer("num_classes: 5"), [loc, conf, priors])


def test_detection_output_refuses_priors_that_are_none() -> None:
    loc, conf, priors = inputs()
    with pytest.raises(UnsupportedError, match=r"its priors have shape \(1, 2, 359\), not \(1, 2, 4n\)"):
        make_layer(layer("num_classes: 5"), [loc, conf, priors[..., :-1]])


@pytest.mark.parametrize("top_k", [0, 1, 5, 30, 60, 200])
def test_detection_output_takes_the_first_of_equal_scores(top_k: int) -> None:
    proto = layer(f"num_classes: {N_CLASSES} nms_param {{ nms_threshold: 0.6 top_k: {top_k} }} keep_top_k: 25")
    loc, conf, priors = inputs(seed=7)
    conf = np.round(conf * 4) / 4
    found = make_layer(proto, [loc, conf, priors])
    expected = np.array(stated(proto, loc, conf, priors), np.float32)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5, atol=1e-6)
