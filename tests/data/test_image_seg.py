"""ImageSegData: a list of images and labels, told with OpenCV and NumPy."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from distcalib.data.image_seg import ImageSegSource
from distcalib.data.opening import open_source
from distcalib.errors import DataError
from tests.data.databases import PROTOTXT, layer
from tests.data.test_dense_images import write_pairs

Image = npt.NDArray[np.uint8]
MEANS = np.array([10, 20, 30], np.float32)


def text_of(source: Path, param: str, transform: str = "", tops: str = 'top: "data" top: "label"') -> str:
    text = f'source: "{source}" root_folder: "{source.parent}/" {param}'
    return f"{tops} transform_param {{ {transform} }} image_data_param {{ {text} }}"


def opened(source: Path, param: str, transform: str = "", tops: str = 'top: "data" top: "label"') -> ImageSegSource:
    found = open_source(layer(text_of(source, param, transform, tops), "ImageSegData"), PROTOTXT)
    assert isinstance(found, ImageSegSource)
    return found


def expected(
    image: Image, labels: Image, crop: tuple[int, int], ignored: int = 255
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.generic]]:
    """TransformImgAndSeg as its source has it: a mean around the image, ignore_label around the labels."""
    down, right = (max(crop[i] - image.shape[i], 0) for i in (0, 1))
    wide = cv2.copyMakeBorder(
        image.astype(np.float64), 0, down, 0, right, cv2.BORDER_CONSTANT, value=[float(m) for m in MEANS]
    )
    seg = cv2.copyMakeBorder(labels, 0, down, 0, right, cv2.BORDER_CONSTANT, value=ignored)
    top, left = ((wide.shape[i] - crop[i]) // 2 for i in (0, 1))
    cut = np.s_[top : top + crop[0], left : left + crop[1]]
    return ((wide[cut].astype(np.float32) - MEANS) * np.float32(0.5)).transpose(2, 0, 1), seg[cut]


TRANSFORM = "mean_value: [10, 20, 30] scale: 0.5"


@pytest.mark.parametrize("crop", [(4, 4), (9, 9), (5, 12), (8, 6)], ids=str)
def test_what_is_smaller_than_the_crop_gets_a_frame(tmp_path: Path, crop: tuple[int, int]) -> None:
    path, images, labels = write_pairs(tmp_path)  # 6 x 8
    size = f"crop_height: {crop[0]} crop_width: {crop[1]}"
    source = opened(path, "batch_size: 2 label_type: PIXEL", f"{TRANSFORM} {size}")
    assert source.shapes == {"data": (2, 3, *crop), "label": (2, 1, *crop)}
    for iteration in range(3):
        found = source.batch(iteration)
        for row in range(2):
            at = (2 * iteration + row) % 3
            data, seg = expected(images[at], labels[at], crop)
            np.testing.assert_array_equal(found["data"][row], data)
            np.testing.assert_array_equal(found["label"][row, 0], seg)
    np.testing.assert_array_equal(source.pick([2, 0])["data"][1], expected(images[0], labels[0], crop)[0])


def test_a_square_crop_and_another_ignored_label(tmp_path: Path) -> None:
    path, images, labels = write_pairs(tmp_path)
    found = opened(path, "batch_size: 1 label_type: PIXEL ignore_label: 7", f"{TRANSFORM} crop_size: 10").batch(0)
    data, seg = expected(images[0], labels[0], (10, 10), 7)
    np.testing.assert_array_equal(found["data"][0], data)
    np.testing.assert_array_equal(found["label"][0, 0], seg)


def test_images_and_labels_are_resized_alike(tmp_path: Path) -> None:
    path, images, labels = write_pairs(tmp_path)
    found = opened(path, "batch_size: 1 label_type: PIXEL new_height: 3 new_width: 5").batch(0)
    np.testing.assert_array_equal(found["data"][0], cv2.resize(images[0], (5, 3)).transpose(2, 0, 1))
    np.testing.assert_array_equal(found["label"][0, 0], cv2.resize(labels[0], (5, 3)))


@pytest.mark.parametrize(
    ("kind", "line", "label"),
    [("IMAGE", "image{}.png 3", 3), ("NONE", "image{}.png", 255), ("NONE", "image{}.png label{}.png", 255)],
)
def test_one_label_for_all_pixels(tmp_path: Path, kind: str, line: str, label: int) -> None:
    write_pairs(tmp_path)
    path = tmp_path / "other.txt"
    path.write_text("".join(line.format(i, i) + "\n" for i in range(3)))
    found = opened(path, f"batch_size: 3 label_type: {kind}").batch(0)
    assert found["label"].shape == (3, 1, 6, 8)
    assert set(found["label"].ravel()) == {label}


@pytest.mark.parametrize(("crop", "size"), [("", (6, 8)), ("crop_size: 7", (6, 7))])
def test_a_third_top_has_the_sizes(tmp_path: Path, crop: str, size: tuple[int, int]) -> None:
    path, _, _ = write_pairs(tmp_path)
    source = opened(path, "batch_size: 2 label_type: PIXEL", crop, 'top: "data" top: "label" top: "dim"')
    assert source.shapes["dim"] == (2, 1, 1, 2)
    np.testing.assert_array_equal(source.batch(0)["dim"], np.array([size, size], np.float32).reshape(2, 1, 1, 2))
    assert source.pick([1])["dim"].shape == (1, 1, 1, 2)


def test_an_index_lets_another_process_begin(tmp_path: Path) -> None:
    path, _, _ = write_pairs(tmp_path)
    one = layer(text_of(path, "batch_size: 2 label_type: PIXEL"), "ImageSegData")
    first = open_source(one, PROTOTXT)
    again = open_source(one, PROTOTXT, pickle.loads(pickle.dumps(first.index)))
    np.testing.assert_array_equal(first.batch(1)["label"], again.batch(1)["label"])


@pytest.mark.parametrize(
    ("param", "transform", "said"),
    [
        ("batch_size: 0", "", "batch_size is 0"),
        ("batch_size: 1 new_height: 3", "", "new_height and new_width belong together"),
        ("batch_size: 1 rand_skip: 3", "", "rand_skip and scale_factors are drawn at random"),
        ("batch_size: 1", "scale_factors: 0.5", "rand_skip and scale_factors are drawn at random"),
        ("batch_size: 1", "crop_height: 3", "crop_height and crop_width belong together"),
        ("batch_size: 1", "crop_height: 2000000000 crop_width: 2000000000", "the crop: "),
        ("batch_size: 1", 'mean_file: "m"', "transform_param.mean_file has no effect"),
        ("batch_size: 1", "mean_value: [1, 2]", "2 mean_value are given"),
    ],
)
def test_what_is_not_done_is_refused(tmp_path: Path, param: str, transform: str, said: str) -> None:
    path, _, _ = write_pairs(tmp_path)
    with pytest.raises(DataError, match=said):
        opened(path, f"{param} label_type: PIXEL", transform)


def test_pairs_of_two_sizes_need_a_crop(tmp_path: Path) -> None:
    path, _, _ = write_pairs(tmp_path)
    (tmp_path / "image1.png").write_bytes(cv2.imencode(".png", np.zeros((7, 7, 3), np.uint8))[1].tobytes())
    with pytest.raises(DataError, match=r"image1\.png' is 7 x 7 and its labels are 6 x 8"):
        opened(path, "batch_size: 2 label_type: PIXEL").batch(0)
