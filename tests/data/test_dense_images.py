from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from distcalib.data.dense_images import DenseImageSource
from distcalib.data.opening import open_source
from distcalib.errors import DataError
from tests.data.databases import PROTOTXT, layer, noise

Image = npt.NDArray[np.uint8]


def write_pairs(folder: Path, n: int = 3, height: int = 6, width: int = 8) -> tuple[Path, list[Image], list[Image]]:
    """Images and label images as PNG files, and the list of them."""
    images = [noise(height, width, 3, seed=i) for i in range(n)]
    labels = [noise(height, width, seed=50 + i) % 5 for i in range(n)]
    for kind, group in (("image", images), ("label", labels)):
        for i, image in enumerate(group):
            (folder / f"{kind}{i}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    source = folder / "list.txt"
    source.write_text("".join(f"image{i}.png label{i}.png\n" for i in range(n)))
    return source, images, labels


def opened(source: Path, param: str = "batch_size: 2", transform: str = "") -> DenseImageSource:
    text = f'source: "{source}" root_folder: "{source.parent}/" {param}'
    tops = f'top: "data" top: "label" transform_param {{ {transform} }}'
    found = open_source(layer(f"{tops} dense_image_data_param {{ {text} }}", "DenseImageData"), PROTOTXT)
    assert isinstance(found, DenseImageSource)
    return found


def test_images_and_labels_come_in_pairs(tmp_path: Path) -> None:
    path, images, labels = write_pairs(tmp_path)
    source = opened(path, transform="mean_value: [1, 2, 3] scale: 0.5")
    assert source.shapes == {"data": (2, 3, 6, 8), "label": (2, 1, 6, 8)}
    for iteration in range(3):
        found = source.batch(iteration)
        for row in range(2):
            at = (2 * iteration + row) % 3
            expected = (images[at].astype(np.float32) - np.array([1, 2, 3], np.float32)) * np.float32(0.5)
            np.testing.assert_array_equal(found["data"][row], expected.transpose(2, 0, 1))
            np.testing.assert_array_equal(found["label"][row, 0], labels[at])
    np.testing.assert_array_equal(source.pick([2, 0])["label"], np.stack([labels[2], labels[0]])[:, None])


def test_labels_are_resized_to_the_nearest_pixel(tmp_path: Path) -> None:
    path, images, labels = write_pairs(tmp_path)
    found = opened(path, "batch_size: 1 new_height: 3 new_width: 5").batch(0)
    image = cv2.resize(images[0], (5, 3), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(found["data"][0], image.transpose(2, 0, 1))
    np.testing.assert_array_equal(found["label"][0, 0], cv2.resize(labels[0], (5, 3), interpolation=cv2.INTER_NEAREST))


def test_gray_images_have_one_channel(tmp_path: Path) -> None:
    path, _, _ = write_pairs(tmp_path)
    assert opened(path, "batch_size: 1 is_color: false").shapes["data"] == (1, 1, 6, 8)


def test_an_index_lets_another_process_begin(tmp_path: Path) -> None:
    path, _, _ = write_pairs(tmp_path)
    source = opened(path)
    text = f'source: "{path}" root_folder: "{path.parent}/" batch_size: 2'
    one = layer(f'top: "data" top: "label" dense_image_data_param {{ {text} }}', "DenseImageData")
    other = open_source(one, PROTOTXT, pickle.loads(pickle.dumps(source.index)))
    np.testing.assert_array_equal(other.batch(1)["label"], source.batch(1)["label"])


@pytest.mark.parametrize(
    ("param", "transform", "says"),
    [
        pytest.param("batch_size: 1 rand_skip: 2", "", "rand_skip: drawn at random", id="rand_skip"),
        pytest.param("batch_size: 1 crop_height: 2 crop_width: 2", "", "crop_height, crop_width: drawn", id="crop"),
        pytest.param("batch_size: 1", "crop_size: 3", "crop_size would move the image and not its labels", id="centre"),
        pytest.param("", "", "batch_size is 0", id="batch"),
        pytest.param("batch_size: 1 new_height: 3", "", "new_height and new_width belong together", id="height"),
    ],
)
def test_dense_images_refuse(tmp_path: Path, param: str, transform: str, says: str) -> None:
    path, _, _ = write_pairs(tmp_path)
    with pytest.raises(DataError) as caught:
        opened(path, param, transform)
    assert says in str(caught.value)


def test_a_line_of_one_path_is_named(tmp_path: Path) -> None:
    path, _, _ = write_pairs(tmp_path)
    path.write_text("image0.png label0.png\nimage1.png\n")
    with pytest.raises(DataError, match="line 2 is no two paths with a space between"):
        opened(path)


def test_labels_of_another_size_are_named(tmp_path: Path) -> None:
    path, _, _ = write_pairs(tmp_path)
    (tmp_path / "label1.png").write_bytes(cv2.imencode(".png", noise(4, 4))[1].tobytes())
    with pytest.raises(DataError, match=r"line 2: image '.*image1\.png' is 6 x 8 and its labels are 4 x 4"):
        opened(path).batch(0)


def test_a_label_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    path, _, _ = write_pairs(tmp_path)
    (tmp_path / "label1.png").unlink()
    with pytest.raises(DataError, match=r"line 2: image '.*label1\.png' does not exist"):
        opened(path).batch(0)
