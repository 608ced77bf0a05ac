"""What is kept is what would be read again, to the bit, and no more of it than there is room for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distcalib.data import Bad, KeepingSource, MemoryBudget, PickingSource, Pixels, Source, open_source
from distcalib.errors import DataError
from tests.data import test_annotated, test_images
from tests.data.databases import PROTOTXT, data_layer, encoded_datum, layer, noise, raw_datum, write_datums, write_lmdb

BATCH, N_ITERATIONS = 2, 3  # of 5 records: the last iteration wraps around
TRANSFORM = "mean_value: 100 scale: 0.017 crop_size: 6"


def raw(folder: Path, room: MemoryBudget | None) -> Source:
    records = [raw_datum(noise(3, 8, 8, seed=i), label=i) for i in range(5)]
    return open_source(data_layer(write_datums(folder / "db", records), BATCH, TRANSFORM), PROTOTXT, room=room)


def floats(folder: Path, room: MemoryBudget | None) -> Source:
    records = [raw_datum(noise(3, 8, 8, seed=i) / np.float32(3), label=i) for i in range(5)]
    return open_source(data_layer(write_datums(folder / "db", records), BATCH, TRANSFORM), PROTOTXT, room=room)


def encoded(folder: Path, room: MemoryBudget | None) -> Source:
    records = [encoded_datum(noise(9, 12, 3, seed=i), label=i) for i in range(5)]
    made = data_layer(write_datums(folder / "db", records), BATCH, f"{TRANSFORM} resize_param {{ height: 7 width: 8 }}")
    return open_source(made, PROTOTXT, room=room)


def annotated(folder: Path, room: MemoryBudget | None) -> Source:
    records = [test_annotated.annotated(raw_datum(noise(3, 8, 8, seed=i)), i % 3, i + 1) for i in range(5)]
    made = test_annotated.layer(write_lmdb(folder / "db", test_annotated.entries(records)), BATCH)
    return open_source(made, PROTOTXT, room=room)


def images(folder: Path, room: MemoryBudget | None) -> Source:
    source = test_images.write_list(folder, {f"{i}.png": test_images.smooth(8, 8, i) for i in range(5)})
    text = f'top: "data" top: "label" image_data_param {{ source: "{source}" root_folder: "{folder}/" batch_size: 2 }}'
    return open_source(layer(text, "ImageData"), PROTOTXT, room=room)


KINDS = [raw, floats, encoded, annotated, images]
Opened = Callable[[Path, MemoryBudget | None], Source]


def forget(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the source reads nothing."""

    def refuse(*given: object) -> None:
        raise DataError("was read again")

    monkeypatch.setattr(source._list if hasattr(source, "_list") else source._records, "read", refuse)  # type: ignore[attr-defined]


@pytest.mark.parametrize("opened", KINDS)
def test_kept_batches_are_those_that_would_be_read(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("plain", "keeping")]
    for folder in folders:
        folder.mkdir()
    plain, keeping = opened(folders[0], None), opened(folders[1], MemoryBudget(1 << 20))
    expected = [plain.batch(i) for i in range(N_ITERATIONS)]
    for i in range(N_ITERATIONS):
        for values in keeping.batch(i).values():
            values.fill(-7.0)  # whoever has a batch may do with it what he likes
    forget(keeping, monkeypatch)
    forget(plain, monkeypatch)
    for i in (1, 0, 2, 1):
        made = keeping.batch(i)
        assert made.keys() == expected[i].keys() == set(plain.tops)
        for top, values in made.items():
            np.testing.assert_array_equal(values, expected[i][top])
            assert values.dtype == np.float32
            values.fill(-7.0)
    with pytest.raises(DataError, match="was read again"):
        keeping.batch(N_ITERATIONS)
    with pytest.raises(DataError, match="was read again"):
        plain.batch(0)


@pytest.mark.parametrize("n_kept", [0, 1, N_ITERATIONS])
@pytest.mark.parametrize("room", [0, 300, 1 << 20])
@pytest.mark.parametrize("opened", [raw, floats, encoded, images])
def test_images_by_number_are_those_of_their_batches(opened: Opened, room: int, n_kept: int, tmp_path: Path) -> None:
    """Whatever is kept, twice and in any order, and beyond the end of the data."""
    folders = [tmp_path / name for name in ("plain", "by_number")]
    for folder in folders:
        folder.mkdir()
    source, fresh = opened(folders[0], None), opened(folders[1], MemoryBudget(room))
    batches = [source.batch(i) for i in range(N_ITERATIONS)]
    assert isinstance(fresh, PickingSource)
    for i in range(n_kept):
        fresh.batch(i)
    whole = {top: np.concatenate([batch[top] for batch in batches]) for top in source.tops}
    for numbers in ([5, 0, 3, 4, 1], [2, 2, 5], [0]):
        for values, top in zip(fresh.pick(numbers).values(), fresh.tops, strict=True):
            np.testing.assert_array_equal(values, whole[top][numbers])
            assert values.dtype == np.float32
            values.fill(-7.0)


def test_images_that_have_room_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = raw(tmp_path, MemoryBudget(1 << 20))
    assert isinstance(source, PickingSource)
    expected = source.pick([4, 1])["data"]
    forget(source, monkeypatch)
    np.testing.assert_array_equal(source.pick([1, 4])["data"], expected[::-1])
    with pytest.raises(DataError, match="was read again"):
        source.pick([0])


def test_a_bad_record_is_no_image_though_its_batch_is_kept(tmp_path: Path) -> None:
    values = [raw_datum(noise(3, 4, 4, seed=i), label=i).SerializeToString() for i in range(4)]
    values[2] = b"\xff"
    made = data_layer(write_lmdb(tmp_path / "db", ((b"k%d" % i, value) for i, value in enumerate(values))), 2)
    source = open_source(made, PROTOTXT, skip_bad=True, room=MemoryBudget(1 << 20))
    assert isinstance(source, PickingSource)
    source.batch(1, {})
    np.testing.assert_array_equal(source.pick([3, 0])["label"], [3, 0])
    with pytest.raises(DataError, match="'k2'"):
        source.pick([2])


def test_what_was_kept_first_stays_when_there_is_no_room_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = BATCH * (3 * 6 * 6 + 4)  # bytes of the pixels, a float32 label each
    room = MemoryBudget(2 * one + one // 2)
    source = raw(tmp_path, room)
    for i in range(N_ITERATIONS):
        source.batch(i)
    assert not room.take(one // 2 + 1)
    assert room.take(one // 2)
    forget(source, monkeypatch)
    source.batch(1)
    source.batch(0)
    with pytest.raises(DataError, match="was read again"):
        source.batch(2)


def test_bad_records_are_told_of_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [raw_datum(noise(3, 4, 4, seed=i), label=i).SerializeToString() for i in range(4)]
    values[2] = b"\xff"
    made = data_layer(write_lmdb(tmp_path / "db", ((b"k%d" % i, value) for i, value in enumerate(values))), 2)
    source = open_source(made, PROTOTXT, skip_bad=True, room=MemoryBudget(1 << 20))
    first: Bad = {}
    again: Bad = {}
    expected = source.batch(1, first)
    with pytest.raises(DataError, match="'k2'"):
        source.batch(1)  # whoever takes no bad ones gets none that were kept
    forget(source, monkeypatch)
    np.testing.assert_array_equal(source.batch(1, again)["data"], expected["data"])
    assert list(first) == [0]
    assert again == first
    again.clear()
    source.batch(1, again)
    assert again == first


def in_iteration(source: Source, iteration: int, bad: Bad | None = None) -> list[Pixels]:
    assert isinstance(source, KeepingSource)
    return source.images(iteration, bad)


def test_images_are_those_before_resizing_and_cropping(tmp_path: Path) -> None:
    sizes = [(9, 12), (20, 7), (9, 12), (31, 31), (6, 8)]
    records = [encoded_datum(noise(*size, 3, seed=i), label=i) for i, size in enumerate(sizes)]
    made = data_layer(write_datums(tmp_path / "db", records), BATCH, "resize_param { height: 7 width: 8 }")
    source = open_source(made, PROTOTXT)
    for iteration in range(N_ITERATIONS):
        numbers = [(iteration * BATCH + row) % len(sizes) for row in range(BATCH)]
        for image, number in zip(in_iteration(source, iteration), numbers, strict=True):
            assert np.array_equal(image, noise(*sizes[number], 3, seed=number).transpose(2, 0, 1))


def test_images_of_a_list_are_those_before_new_height(tmp_path: Path) -> None:
    files = {"a.png": test_images.smooth(8, 8, 0), "b.png": test_images.smooth(11, 5, 1)}
    listed = test_images.write_list(tmp_path, files)
    text = f'top: "data" top: "label" image_data_param {{ source: "{listed}" root_folder: "{tmp_path}/" batch_size: 2 '
    source = open_source(layer(text + "new_height: 4 new_width: 4 }", "ImageData"), PROTOTXT)
    assert source.batch(0)["data"].shape == (2, 3, 4, 4)
    found = in_iteration(source, 0)
    for image, original in zip(found, files.values(), strict=True):
        assert np.array_equal(image, original.transpose(2, 0, 1))


def test_images_of_boxes_are_encoded_again_where_caffe_does(tmp_path: Path) -> None:
    records = [test_annotated.annotated(encoded_datum(noise(8, 9, 3, seed=i)), 1, 1) for i in range(2)]
    database = write_lmdb(tmp_path / "db", test_annotated.entries(records))
    plain = open_source(test_annotated.layer(database, BATCH), PROTOTXT)
    made = test_annotated.layer(database, BATCH)
    made.annotated_data_param.batch_sampler.add()
    sampled = open_source(made, PROTOTXT)
    assert np.array_equal(in_iteration(plain, 0)[1], noise(8, 9, 3, seed=1).transpose(2, 0, 1))
    assert not np.array_equal(in_iteration(sampled, 0)[1], in_iteration(plain, 0)[1])


def test_images_fill_the_rows_of_bad_records_as_batches_do(tmp_path: Path) -> None:
    records = [encoded_datum(noise(6, 6, 3, seed=i), label=i) for i in range(4)]
    records[1].data = b"no image"
    source = open_source(data_layer(write_datums(tmp_path / "db", records), 4), PROTOTXT, skip_bad=True)
    bad: Bad = {}
    expected: Bad = {}
    found = in_iteration(source, 0, bad)
    source.batch(0, expected)
    assert bad == expected
    assert list(bad) == [1]
    assert np.array_equal(found[1], found[0])
    assert not np.array_equal(found[2], found[0])


def test_images_refuse_floats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"net.prototxt: layer 'data' .*has records of floats, not images"):
        in_iteration(floats(tmp_path, None), 0)
