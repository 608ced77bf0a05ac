import tracemalloc
from math import sqrt

import numpy as np
import numpy.typing as npt
import openvino.opset13 as ops
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import PriorBoxParameter
from distcalib.errors import UnsupportedError
from distcalib.layers import convert
from tests.layers.harness import make_layer, random, refused, run

f = np.float32


def stated(text: str, features: tuple[int, int], image: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The boxes, one at a time, as prior_box_layer.cpp makes them."""
    p = text_format.Parse(text, PriorBoxParameter())
    ratios = [1.0]
    for ratio in p.aspect_ratio:
        if all(abs(ratio - known) >= 1e-6 for known in ratios):
            ratios += [ratio, 1 / ratio] if p.flip else [ratio]
    image_h, image_w = (p.img_h, p.img_w) if p.HasField("img_h") else (p.img_size, p.img_size)
    image_h, image_w = (image_h, image_w) if image_h else image
    step_h, step_w = (p.step_h, p.step_w) if p.HasField("step_h") else (p.step, p.step)
    step_h, step_w = (step_h, step_w) if step_h else (image_h / features[0], image_w / features[1])
    boxes = []
    for row in range(features[0]):
        for column in range(features[1]):
            x, y = (column + p.offset) * step_w, (row + p.offset) * step_h
            for number, size in enumerate(map(int, p.min_size)):
                sides = [(float(size), float(size))]
                if p.max_size:
                    sides.append((sqrt(size * int(p.max_size[number])),) * 2)
                sides += [(size * sqrt(r), size / sqrt(r)) for r in ratios if abs(r - 1) >= 1e-6]
                for w, h in sides:
                    boxes += [
                        (x - w / 2) / image_w,
                        (y - h / 2) / image_h,
                        (x + w / 2) / image_w,
                        (y + h / 2) / image_h,
                    ]
    found = np.array(boxes)
    if p.clip:
        found = np.clip(found, 0, 1)
    variance = list(p.variance) or [0.1]
    return np.stack([found, np.resize(variance, len(found))])[None].astype(f)


@pytest.mark.parametrize(
    "text",
    [
        "min_size: 26 max_size: 30 flip: false variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2",
        "min_size: 30",
        "min_size: 30.9 max_size: 60.9",  # cut to whole pixels
        "min_size: 10 min_size: 20 min_size: 31",
        "min_size: 10 min_size: 20 max_size: 20 max_size: 44 aspect_ratio: 2",
        "min_size: 12 aspect_ratio: 2 aspect_ratio: 3 flip: true",
        "min_size: 12 aspect_ratio: 2 aspect_ratio: 3 flip: false",
        "min_size: 12 aspect_ratio: 1 aspect_ratio: 2 aspect_ratio: 2 aspect_ratio: 0.5",
        "min_size: 40 clip: true",
        "min_size: 20 variance: 0.3",
        "min_size: 20 step: 8 offset: 0.25",
        "min_size: 20 step_h: 7.5 step_w: 9 offset: 0",
        "min_size: 20 img_size: 100",
        "min_size: 20 img_h: 90 img_w: 110 step: 8",
    ],
)
def test_prior_box_is_what_caffe_states(text: str) -> None:
    features, image = np.zeros((2, 5, 3, 4), f), np.zeros((2, 3, 37, 50), f)
    [found] = run(f'type: "PriorBox" prior_box_param {{ {text} }}', features, image)
    expected = stated(text, (3, 4), (37, 50))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "min_size []; give some above zero"),
        ("min_size: 0", "min_size [0.0]; give some above zero"),
        ("min_size: 9 max_size: 9", "max_size [9.0] for min_size [9.0]; give none, or a larger one for each"),
        ("min_size: 9 min_size: 10 max_size: 20", "give none, or a larger one for each"),
        ("min_size: 9 aspect_ratio: 0", "aspect_ratio [0.0]; must be above 0"),
        ("min_size: 9 variance: 0.1 variance: 0.2", "variance [0.1, 0.2]; give one or four above zero"),
        ("min_size: 9 variance: -0.1", "variance [-0.1]; give one or four above zero"),
        ("min_size: 9 step: 8 step_h: 8", "step and step_h, step_w are given; one of them must go"),
        ("min_size: 9 step_h: 8", "step_h=8, step_w=0; both must be above zero"),
        ("min_size: 9 step: 0", "step=0; it must be above zero"),
        ("min_size: 9 max_size: inf", "max_size [inf]; numbers with an end are needed"),
        ("min_size: 9 aspect_ratio: 2 aspect_ratio: inf", "aspect_ratio [2.0, inf]; numbers with an end are needed"),
        ("min_size: 9 offset: nan", "offset [nan]; numbers with an end are needed"),
        ("min_size: 9 step: inf", "step [inf]; numbers with an end are needed"),
        ("min_size: 9 variance: inf", "variance [inf]; numbers with an end are needed"),
        ("min_size: 9 img_size: 9 img_h: 8", "img_size and img_h, img_w are given; one of them must go"),
    ],
)
def test_prior_box_refuses(text: str, said: str) -> None:
    message = refused(f'type: "PriorBox" prior_box_param {{ {text} }}', (1, 2, 3, 3), (1, 3, 9, 9))
    assert message.startswith("net.prototxt: layer 'it' (PriorBox): ")
    assert message.endswith(said)


def test_prior_box_refuses_blobs_without_height_and_width() -> None:
    assert "4 axes are converted" in refused('type: "PriorBox" prior_box_param { min_size: 9 }', (1, 2), (1, 3, 9, 9))


def test_prior_box_clustered_has_a_box_of_each_size() -> None:
    fields = "width: 9.4 width: 25.1 height: 15.0 height: 39.6 step: 16 offset: 0.5 clip: false"
    fields += " variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2"
    [y] = run(f'type: "PriorBoxClustered" prior_box_param {{ {fields} }}', random(1, 4, 2, 3), random(1, 3, 32, 48))
    expected = []
    for row in range(2):
        for column in range(3):
            for width, height in ((9.4, 15.0), (25.1, 39.6)):
                x, y_ = (column + 0.5) * 16, (row + 0.5) * 16
                expected += [(x - width / 2) / 48, (y_ - height / 2) / 32, (x + width / 2) / 48, (y_ + height / 2) / 32]
    assert y.shape == (1, 2, 48)
    np.testing.assert_allclose(y[0, 0], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(y[0, 1], [0.1, 0.1, 0.2, 0.2] * 12)
    shapes = ((1, 4, 2, 3), (1, 3, 32, 48))
    assert "as many of each" in refused('type: "PriorBoxClustered" prior_box_param { width: 1 }', *shapes)
    assert "those of a PriorBoxClustered" in refused(
        'type: "PriorBox" prior_box_param { min_size: 1 width: 1 height: 1 }', *shapes
    )


@pytest.mark.parametrize(
    ("kind", "sizes", "n_values"),
    [("PriorBox", "min_size: 3", 4 * 46000**2), ("PriorBoxClustered", "width: 3 height: 3 step: 16", 4 * 46000**2)],
)
def test_more_boxes_than_a_blob_holds_are_refused_before_they_are_worked_out(
    kind: str, sizes: str, n_values: int
) -> None:
    features = ops.parameter([1, 1, 46000, 46000], np.float32).output(0)
    image = ops.parameter([1, 1, 9, 9], np.float32).output(0)
    layer = make_layer(f'type: "{kind}" prior_box_param {{ {sizes} }}')
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedError, match=rf"its top is 1 x 2 x {n_values}, and a blob has less than 2\^31"):
            convert(layer, [features, image])
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
