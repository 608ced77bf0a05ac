"""ROIPooling and PSROIPooling against their definitions in NumPy: bins, roundings, boxes beyond the image."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from tests.layers.harness import random, refused, run

Array = npt.NDArray[np.float32]
SIDE = 16 * 14
"""Of the image whose map is 14 pixels wide."""


def away(value: np.float32) -> int:
    """C's round: halves away from zero."""
    return int(np.trunc(value + np.copysign(np.float32(0.5), value)))


def clipped(start: int, end: int, size: int) -> slice:
    return slice(min(max(start, 0), size), min(max(end, 0), size))


def roi_pooling(x: Array, rois: Array, height: int, width: int, scale: float) -> Array:
    out = np.zeros((len(rois), x.shape[1], height, width), np.float32)
    for r, (image, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (away(np.float32(corner) * np.float32(scale)) for corner in corners)
        h, w = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j in np.ndindex(height, width):
            rows = clipped(y1 + i * h // height, y1 - (-(i + 1) * h // height), x.shape[2])
            columns = clipped(x1 + j * w // width, x1 - (-(j + 1) * w // width), x.shape[3])
            inside = x[int(image), :, rows, columns]
            out[r, :, i, j] = inside.max(axis=(1, 2)) if inside.size else 0.0
    return out


def psroi_pooling(x: Array, rois: Array, group: int, dim: int, scale: float) -> Array:
    f = np.float32
    out = np.zeros((len(rois), dim, group, group), np.float32)
    for r, (image, *corners) in enumerate(rois):
        x1, y1 = (f(away(corner)) * f(scale) for corner in corners[:2])
        x2, y2 = (f(away(corner) + 1) * f(scale) for corner in corners[2:])
        h, w = max(y2 - y1, f(0.1)) / f(group), max(x2 - x1, f(0.1)) / f(group)
        for d, i, j in np.ndindex(dim, group, group):
            rows = clipped(int(np.floor(f(i) * h + y1)), int(np.ceil(f(i + 1) * h + y1)), x.shape[2])
            columns = clipped(int(np.floor(f(j) * w + x1)), int(np.ceil(f(j + 1) * w + x1)), x.shape[3])
            inside = x[int(image), (d * group + i) * group + j, rows, columns]
            out[r, d, i, j] = inside.mean(dtype=np.float64) if inside.size else 0.0
    return out


def drawn(n: int, low: float, high: float, step: float | None = None, ordered: bool = True) -> Array:
    """Boxes in two images, their corners within [low, high]; on multiples of `step`."""
    rng = np.random.default_rng(3)
    boxes = rng.uniform(low, high, (n, 4))
    if ordered:
        boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], 1)
    if step is not None:
        boxes = np.rint(boxes / step) * step
    return np.concatenate([rng.integers(0, 2, (n, 1)), boxes], axis=1).astype(np.float32)


BOXES = [
    pytest.param(lambda: drawn(40, 0, SIDE - 1), id="inside"),
    pytest.param(lambda: drawn(40, -SIDE / 2, 1.5 * SIDE), id="beyond_the_image"),
    pytest.param(lambda: drawn(40, -SIDE, 2 * SIDE, ordered=False), id="ends_before_it_begins"),
    pytest.param(lambda: drawn(40, -SIDE / 4, SIDE, step=8), id="halves_of_a_pixel_of_the_map"),
    pytest.param(lambda: drawn(40, -20, SIDE, step=0.5), id="halves_of_a_pixel_of_the_image"),
    pytest.param(lambda: np.array([[1, 5, 5, 5, 5], [0, 0, 0, 0, 0], [1, 900, 900, 990, 990]], "f4"), id="points"),
]


@pytest.mark.parametrize("boxes", BOXES)
@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        pytest.param(7, 7, 1 / 16, id="vgg16"),
        pytest.param(3, 5, 1 / 16, id="not_square"),
        pytest.param(1, 1, 1 / 16, id="one_bin"),
        pytest.param(6, 2, 0.1, id="odd_scale"),
    ],
)
def test_roi_pooling_takes_the_largest_of_each_bin(
    height: int, width: int, scale: float, boxes: Callable[[], Array]
) -> None:
    x, rois = random(2, 3, 14, 17), boxes()
    fields = f"pooled_h: {height} pooled_w: {width} spatial_scale: {scale!r}"
    [y] = run(f'type: "ROIPooling" roi_pooling_param {{ {fields} }}', x, rois)
    assert y.shape == (len(rois), 3, height, width)
    assert (y == roi_pooling(x, rois, height, width, scale)).all()


def test_roi_pooling_scales_by_one_unless_told() -> None:
    x, rois = random(1, 2, 6, 6), np.array([[0, 1, 2, 4, 5]], np.float32)
    [y] = run('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }', x, rois)
    assert (y == roi_pooling(x, rois, 2, 2, 1.0)).all()


@pytest.mark.parametrize("boxes", BOXES)
@pytest.mark.parametrize(
    ("group", "dim", "scale"),
    [
        pytest.param(7, 3, 1 / 16, id="r_fcn"),
        pytest.param(3, 2, 1 / 16, id="three"),
        pytest.param(1, 4, 1 / 8, id="one_bin"),
        pytest.param(4, 1, 0.1, id="odd_scale"),
    ],
)
def test_psroi_pooling_means_each_bin_of_its_own_channel(
    group: int, dim: int, scale: float, boxes: Callable[[], Array]
) -> None:
    x, rois = random(2, dim * group**2, 14, 17), boxes()
    fields = f"output_dim: {dim} group_size: {group} spatial_scale: {scale!r}"
    [y] = run(f'type: "PSROIPooling" psroi_pooling_param {{ {fields} }}', x, rois)
    assert y.shape == (len(rois), dim, group, group)
    np.testing.assert_allclose(y, psroi_pooling(x, rois, group, dim, scale), rtol=0, atol=2e-6)


ROI, PSROI = 'type: "ROIPooling" roi_pooling_param', 'type: "PSROIPooling" psroi_pooling_param'


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        pytest.param(f"{ROI} {{ pooled_h: 2 }}", [(1, 2, 6, 6), (3, 5)], "pooled_h=2, pooled_w=0; both", id="no_width"),
        pytest.param(f"{ROI} {{ pooled_size: 2 }}", [(1, 2, 6, 6), (3, 5)], "pooled_size is not", id="pooled_size"),
        pytest.param(
            f"{ROI} {{ pooled_h: 2 pooled_w: 2 }}", [(1, 2, 6, 6), (3, 4)], "second input has shape (3, 4)", id="rois"
        ),
        pytest.param(f"{ROI} {{ pooled_h: 2 pooled_w: 2 }}", [(6, 6), (3, 5)], "first input has 2 axes", id="map"),
        pytest.param(
            f"{ROI} {{ pooled_h: 2 pooled_w: 2 spatial_scale: 0 }}",
            [(1, 2, 6, 6), (3, 5)],
            "spatial_scale=0; it must be above zero",
            id="scale",
        ),
        pytest.param(
            f"{PSROI} {{ spatial_scale: 1 output_dim: 2 group_size: 3 }}",
            [(1, 9, 6, 6), (3, 5)],
            "its input has 9 channels; output_dim=2 times group_size=3 squared, 18, are needed",
            id="channels",
        ),
        pytest.param(
            f"{PSROI} {{ spatial_scale: 1 output_dim: 0 group_size: 3 }}",
            [(1, 9, 6, 6), (3, 5)],
            "output_dim=0, group_size=3; both must be above zero",
            id="no_outputs",
        ),
    ],
)
def test_pooling_over_rois_refuses(text: str, shapes: list[tuple[int, ...]], message: str) -> None:
    assert message in refused(text, *shapes)


def test_roi_pooling_takes_boxes_with_axes_of_one_and_widens_them() -> None:
    x = random(1, 2, 12, 12)
    rois = np.array([[0, 3, 2, 6, 8], [0, 5, 5, 8, 6]], np.float32)
    fields = "pooled_h: 2 pooled_w: 2 spatial_scale: 0.5"
    [plain] = run(f'type: "ROIPooling" roi_pooling_param {{ {fields} }}', x, rois)
    [same] = run(f'type: "ROIPooling" roi_pooling_param {{ {fields} pad_ratio: 0 }}', x, rois.reshape(2, 5, 1, 1))
    np.testing.assert_array_equal(plain, same)
    [wide] = run(f'type: "ROIPooling" roi_pooling_param {{ {fields} pad_ratio: 0.25 }}', x, rois)
    margin = (rois[:, 3:] - rois[:, 1:3] + 1) * np.float32(0.25)
    grown = np.concatenate([rois[:, :1], rois[:, 1:3] - margin, rois[:, 3:] + margin], axis=1)
    [expected] = run(f'type: "ROIPooling" roi_pooling_param {{ {fields} }}', x, grown)
    np.testing.assert_array_equal(wide, expected)
    assert not np.array_equal(wide, plain)


def bin_corners(x: Array, rois: Array, n: int, scale: float, pad: float) -> Array:
    height, width = x.shape[2:]
    out = np.zeros((len(rois), x.shape[1], n + 1, n + 1), np.float32)
    for r, (_, x1, y1, x2, y2) in enumerate(rois):
        pad_x, pad_y = (x2 - x1 + 1) * pad, (y2 - y1 + 1) * pad
        starts = [(y1 - pad_y) * scale - 0.5, (x1 - pad_x) * scale - 0.5]
        ends = [(y2 + pad_y) * scale - 0.5, (x2 + pad_x) * scale - 0.5]
        if ends[0] <= starts[0] or ends[1] <= starts[1]:
            continue
        for i, j in np.ndindex(n + 1, n + 1):
            y, x_at = (starts[k] + step * (ends[k] - starts[k]) / n for k, step in enumerate((i, j)))
            if not (-0.5 <= y <= height - 0.5 and -0.5 <= x_at <= width - 0.5):
                continue
            y, x_at = min(max(y, 0), height - 1), min(max(x_at, 0), width - 1)
            above, before = int(y), int(x_at)
            below, behind = min(above + 1, height - 1), min(before + 1, width - 1)
            b, a = y - above, x_at - before
            out[r, :, i, j] = (1 - b) * ((1 - a) * x[0, :, above, before] + a * x[0, :, above, behind]) + b * (
                (1 - a) * x[0, :, below, before] + a * x[0, :, below, behind]
            )
    return out


@pytest.mark.parametrize("pad", [0.0, 0.25])
def test_roi_align_takes_the_corners_of_bins(pad: float) -> None:
    x = random(1, 3, 6, 9)
    rois = np.array(
        [(0, 5.5, 7, 60, 40), (0, 0, 0, 71, 47), (0, -31, -20, 30, 90), (0, 20, 20, 20, 40), (0,) * 5], np.float32
    )
    text = f'type: "ROIAlign" roi_pooling_param {{ pooled_w: 3 pooled_h: 3 spatial_scale: 0.125 pad_ratio: {pad} }}'
    [made] = run(text, x, rois)
    np.testing.assert_allclose(made, bin_corners(x, rois, 3, 0.125, pad), atol=2e-5)


def test_roi_align_refuses_a_batch() -> None:
    text = 'type: "ROIAlign" roi_pooling_param { pooled_w: 3 pooled_h: 3 }'
    assert "one image at a time" in refused(text, (2, 3, 6, 9), (4, 5))
