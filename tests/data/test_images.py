from __future__ import annotations

import pickle
import random
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from distcalib.data.images import ImageSource
from distcalib.errors import DataError
from tests.data.databases import PROTOTXT, layer, noise

Image = npt.NDArray[np.uint8]


def smooth(height: int, width: int, seed: int = 0) -> Image:
    """A picture that JPEG keeps the look of."""
    return np.asarray(cv2.GaussianBlur(noise(height, width, 3, seed=seed), (5, 5), 2), np.uint8)


def write_list(folder: Path, images: Mapping[str, Image | bytes], label: int = 0) -> Path:
    """Image files, and the list of them with labels that count from `label`."""
    for name, image in images.items():
        data = image if isinstance(image, bytes) else cv2.imencode(Path(name).suffix, image)[1].tobytes()
        (folder / name).write_bytes(data)
    text = "".join(f"{name} {number}\n" for number, name in enumerate(images, label))
    (folder / "list.txt").write_text(text)
    return folder / "list.txt"


def opened(source: Path, param: str = "", transform: str = "") -> ImageSource:
    text = f'source: "{source}" root_folder: "{source.parent}/" {param}'
    tops = f'top: "data" top: "label" transform_param {{ {transform} }}'
    return ImageSource(layer(f"{tops} image_data_param {{ {text} }}", "ImageData"), PROTOTXT)


FORMATS = {
    "PNG": (".png", smooth(9, 12)),
    "JPEG": (".jpg", smooth(31, 45)),
    "gray JPEG": (".jpg", smooth(31, 45)[:, :, 1].copy()),
    "BMP": (".bmp", smooth(9, 12)),
    "PNG with alpha": (".png", noise(9, 12, 4)),
    "PNG of 16 bits": (".png", noise(9, 12, 3).astype(np.uint16) * 255),
}


@pytest.mark.parametrize(("suffix", "image"), FORMATS.values(), ids=list(FORMATS))
@pytest.mark.parametrize(
    ("is_color", "flag"), [("true", cv2.IMREAD_COLOR), ("false", cv2.IMREAD_GRAYSCALE)], ids=["colour", "gray"]
)
@pytest.mark.parametrize("size", [None, (20, 30), (5, 7), (8, 8)], ids=["as it is", "larger", "smaller", "square"])
def test_images_are_opencvs_to_the_bit(
    tmp_path: Path, suffix: str, image: Image, is_color: str, flag: int, size: tuple[int, int] | None
) -> None:
    source = write_list(tmp_path, {f"an image{suffix}": image})
    resized = f"new_height: {size[0]} new_width: {size[1]}" if size else ""
    got = opened(source, f"is_color: {is_color} {resized}").batch(0)["data"]
    expected = cv2.imread(str(tmp_path / f"an image{suffix}"), flag)
    assert expected is not None
    if size:
        expected = cv2.resize(expected, (size[1], size[0]))
    planes = expected.reshape(*expected.shape[:2], -1).transpose(2, 0, 1)
    np.testing.assert_array_equal(got, planes[None].astype(np.float32))


def test_images_ignore_the_exif_orientation(tmp_path: Path) -> None:
    image = smooth(8, 16)
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
    source = write_list(tmp_path, {"turned.jpg": turned, "plain.jpg": jpeg})
    seen = cv2.imread(str(tmp_path / "turned.jpg"))
    assert seen is not None
    assert seen.shape == (16, 8, 3)
    data = opened(source, "batch_size: 2").batch(0)["data"]
    np.testing.assert_array_equal(data[0], data[1])


def test_images_are_transformed_as_those_of_a_data_layer(tmp_path: Path) -> None:
    source = write_list(tmp_path, {"a.png": smooth(20, 30)})
    made = opened(source, "new_height: 10 new_width: 12", "crop_size: 4 scale: 0.5 mean_value: 100 mirror: true")
    resized = cv2.resize(smooth(20, 30), (12, 10))[3:7, 4:8].transpose(2, 0, 1)
    np.testing.assert_array_equal(made.batch(0)["data"][0], (resized.astype(np.float32) - 100) * np.float32(0.5))


def test_padded_images_have_the_shape_that_is_told(tmp_path: Path) -> None:
    image = noise(6, 8, 3)
    source = opened(write_list(tmp_path, {"a.png": image}), transform="pad: 2 scale: 2")
    got = source.batch(0)["data"]
    assert got.shape == source.shapes["data"] == (1, 3, 10, 12)
    pixels = image.transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(got[0], np.pad(pixels * 2, [(0, 0), (2, 2), (2, 2)]))


def test_colour_is_that_of_the_layer_not_of_the_transform(tmp_path: Path) -> None:
    source = write_list(tmp_path, {"a.png": smooth(4, 4)})
    assert opened(source, transform="force_gray: true").shapes["data"] == (1, 3, 4, 4)


@pytest.mark.parametrize(
    ("n", "batch", "iteration", "records"),
    [
        (6, 3, 1, [3, 4, 5]),
        (6, 3, 2, [0, 1, 2]),
        (5, 3, 1, [3, 4, 0]),
        (2, 5, 1, [1, 0, 1, 0, 1]),
        (7, 1, 1_000_003, [1_000_003 % 7]),
    ],
)
def test_batch_wraps_around_at_the_end_of_the_list(
    tmp_path: Path, n: int, batch: int, iteration: int, records: list[int]
) -> None:
    images: dict[str, Image | bytes] = {f"{i}.png": np.full((2, 2), i, np.uint8) for i in range(n)}
    source = opened(write_list(tmp_path, images, label=100), f"batch_size: {batch} is_color: false")
    got = source.batch(iteration)
    assert got["label"].dtype == np.float32
    assert got["label"].tolist() == [100 + record for record in records]
    assert got["data"][:, 0, 0, 0].tolist() == records
    assert {top: values.shape for top, values in got.items()} == source.shapes
    assert source.shapes == {"data": (batch, 1, 2, 2), "label": (batch,)}


def test_batches_are_the_same_in_any_order_with_and_without_index(tmp_path: Path) -> None:
    text = write_list(tmp_path, {f"{i}.jpg": smooth(6, 8, i) for i in range(11)})
    made = layer(
        f'top: "data" top: "label" image_data_param {{ source: "{text}" root_folder: "{tmp_path}/" batch_size: 4 }}',
        "ImageData",
    )
    in_order = ImageSource(made, PROTOTXT)
    expected = [in_order.batch(k) for k in range(9)]
    index = pickle.loads(pickle.dumps(in_order.index))
    for seed in range(3):
        for source in (ImageSource(made, PROTOTXT), ImageSource(made, PROTOTXT, index)):
            for iteration in random.Random(seed).sample(range(9), 9):
                for top, values in source.batch(iteration).items():
                    assert values.tobytes() == expected[iteration][top].tobytes()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist; correct the list or root_folder"),
        (b"\xff\xd8broken", "is not an image that can be decoded (8 bytes); write it again or leave it out"),
        (b"", "is not an image that can be decoded (0 bytes); write it again or leave it out"),
        (
            cv2.imencode(".png", noise(4, 5, 3))[1].tobytes(),
            "gives 3 x 4 x 5 values where the first image gives 3 x 4 x 4; set new_height and new_width, or crop_size,",
        ),
    ],
    ids=["missing", "broken", "empty", "another size"],
)
def test_bad_image_is_named_by_line_and_file(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    source = write_list(tmp_path, {"a.png": noise(4, 4, 3), "b c.png": content or b"", "d.png": noise(4, 4, 3)})
    if content is None:
        (tmp_path / "b c.png").unlink()
    made = opened(source, "batch_size: 3")
    with pytest.raises(DataError) as error:
        made.batch(0)
    assert str(error.value).startswith(f"{source}: line 2: image '{tmp_path}/b c.png' {sentence}")
    assert "\n" not in str(error.value)


def test_bad_first_image_is_named_when_opened(tmp_path: Path) -> None:
    source = write_list(tmp_path, {"a.png": b"x"})
    with pytest.raises(DataError, match=r"line 1: image '.*a.png' is not an image"):
        opened(source)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('top: "a" image_data_param { source: "l" }', "has 1 tops; give two, for the images and for the labels"),
        ("", "image_data_param has no source; name a list of paths and labels"),
        ("batch_size: 0", "batch_size is 0; give the number of images an iteration"),
        ("new_height: 3", "new_height and new_width belong together; give both or none"),
        ("min_height: 3 min_width: 3", "min_height and min_width size the blob but not the images in Intel Caffe; use"),
        ("rand_skip: 3", "rand_skip: 3 begins at a random image, so no score could be measured twice; take it out"),
        ("crop_size: 3", "image_data_param.crop_size is of an old format; write it in transform_param"),
        ("min_width: 1 rand_skip: 3", "min_height and min_width size the blob but not the images in Intel Caffe; use "
         "new_height and new_width; rand_skip: 3 begins"),
    ],
    ids=["tops", "source", "batch", "size", "least size", "rand_skip", "old format", "all at once"],
)  # fmt: skip
def test_layer_is_refused_in_one_sentence(text: str, sentence: str) -> None:
    if "top" not in text:
        source = 'source: "l"' if text else ""
        text = f'top: "a" top: "b" image_data_param {{ {source} {text} }}'
    with pytest.raises(DataError) as error:
        ImageSource(layer(text, "ImageData"), PROTOTXT)
    assert str(error.value).startswith(f"net.prototxt: layer 'data' (ImageData): {sentence}")
