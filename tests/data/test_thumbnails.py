"""Where a record is found, and a small picture of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import numpy.typing as npt
import pytest

from distcalib.data import NamingSource, PickingSource, Source, open_source, thumbnail
from distcalib.errors import DataError
from tests.data import test_image_cache
from tests.data.databases import PROTOTXT, data_layer, layer, noise, raw_datum, write_datums

Array = npt.NDArray[np.uint8]


def shown(source: Source, number: int) -> tuple[str, Array]:
    """The media type, and the picture as a browser has it: (H, W), or (H, W, 3) BGR."""
    made = thumbnail(source, number)
    assert made is not None
    kind, encoded = made
    return kind, np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)


def opened(folder: Path, *pixels: npt.NDArray[np.generic]) -> Source:
    """A database of these images, two a batch."""
    return open_source(data_layer(write_datums(folder / "db", map(raw_datum, pixels)), 2), PROTOTXT)


@pytest.mark.parametrize("kind", test_image_cache.KINDS)
def test_a_record_is_the_same_by_its_number_as_in_its_batch(kind: test_image_cache.Opened, tmp_path: Path) -> None:
    source = kind(tmp_path, None)
    assert isinstance(source, NamingSource)
    keys = [source.key(number) for number in range(5)]
    assert len(set(keys)) == 5
    assert source.key(8) == keys[3]  # on past the end of the data, as iterations are
    whole = [image for i in range(2) for image in source._images(i, None)]  # type: ignore[attr-defined]
    for number in range(4):
        np.testing.assert_array_equal(source.image(number), whole[number])  # type: ignore[attr-defined]
    assert thumbnail(source, 8) == thumbnail(source, 3) != thumbnail(source, 2)


def test_keys_are_those_of_messages(tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    images = test_image_cache.images(tmp_path / "list", None)
    assert isinstance(images, NamingSource)
    assert images.key(2) == "line 3: '2.png'"
    records = opened(tmp_path, noise(1, 8, 8))
    assert isinstance(records, NamingSource)
    assert records.key(0) == "'00000000'"


def test_an_hdf5_record_is_a_row_of_its_file(tmp_path: Path) -> None:
    values = np.arange(5 * 8 * 8, dtype=np.float32).reshape(5, 1, 8, 8)
    parts = {"a.h5": {"data": values[:3]}, "sub/b.h5": {"data": values[3:]}}
    for name, arrays in parts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("data", data=arrays["data"])
    (tmp_path / "list.txt").write_text("\n".join(str(tmp_path / name) for name in parts))
    text = f'top: "data" hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 2 }}'
    source = open_source(layer(text, "HDF5Data"), PROTOTXT)
    assert isinstance(source, NamingSource)
    assert [source.key(number) for number in (2, 3, 5)] == ["'a.h5' row 2", "'sub/b.h5' row 0", "'a.h5' row 0"]
    kind, picture = shown(source, 3)
    assert kind == "image/png"
    np.testing.assert_array_equal(picture, np.rint(np.arange(64) * 255 / 63).reshape(8, 8))


@pytest.mark.parametrize(
    ("shape", "is_image"),
    [((3, 8, 8), True), ((1, 8, 8), True), ((4, 8, 8), False), ((3, 1, 64), False), ((64,), False)],
)
def test_arrays_are_shown_where_they_are_images(shape: tuple[int, ...], is_image: bool) -> None:
    values = noise(5, *shape).astype(np.float32)
    dims = " ".join(f"dim: {n}" for n in (2, *shape))
    source = open_source(
        layer(f'top: "x" input_param {{ shape {{ {dims} }} }}', "Input"), PROTOTXT, arrays={"x": values}
    )
    assert isinstance(source, PickingSource)
    assert isinstance(source, NamingSource)
    assert source.key(6) == "row 1 of 'x'"
    assert (thumbnail(source, 6) is not None) is is_image


def test_a_small_picture_has_every_pixel(tmp_path: Path) -> None:
    gray, color = noise(1, 28, 20), noise(3, 28, 20)
    kind, picture = shown(opened(tmp_path, gray), 0)
    assert kind == "image/png"
    np.testing.assert_array_equal(picture, gray[0])
    (tmp_path / "color").mkdir()
    np.testing.assert_array_equal(shown(opened(tmp_path / "color", color), 0)[1], color.transpose(1, 2, 0))


def test_a_large_picture_is_made_small(tmp_path: Path) -> None:
    image = np.zeros((3, 400, 600), np.uint8)
    image[2, :, 300:] = 255  # the right half is red
    kind, picture = shown(opened(tmp_path, image), 0)
    assert kind == "image/jpeg"
    assert picture.shape == (64, 96, 3)
    assert picture[32, 90].argmax() == 2
    assert picture[32, 90, 2] > 200 > 50 > picture[32, 5].max()


def test_fifty_of_the_worst_pictures_have_room_in_a_page(tmp_path: Path) -> None:
    made = thumbnail(opened(tmp_path, noise(3, 600, 600)), 0)
    assert made is not None
    assert 50 * len(made[1]) * 4 / 3 < 2**20


def test_a_constant_image_is_black(tmp_path: Path) -> None:
    source = opened(tmp_path, np.full((1, 8, 8), 0.25, np.float32))
    assert shown(source, 0)[1].max() == 0


def test_a_record_that_is_gone_is_an_error(tmp_path: Path) -> None:
    source = test_image_cache.images(tmp_path, None)
    (tmp_path / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png"):
        thumbnail(source, 2)
