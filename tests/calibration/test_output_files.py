"""Where a calibration writes, and what it does not write over."""

from pathlib import Path

import pytest

from distcalib.calibration.output_files import Target
from distcalib.errors import OutputError


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("net.prototxt", "net_quantized.prototxt"),
        ("a/resnet-1.5.v2.prototxt", "resnet-1.5.v2_quantized.prototxt"),
        ("./resnet-1.5", "resnet-1.5_quantized.prototxt"),
        ("../x.y/net.pt", "net_quantized.prototxt"),
    ],
)
def test_target_keeps_dots_in_names(model: str, name: str) -> None:
    assert Target(Path(model), None).prototxt == Path(model).parent / name
    assert Target(Path(model), Path("out")).prototxt == Path("out") / name


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("w.caffemodel", "w_new.caffemodel"),
        ("a/vgg-1.5.caffemodel", "vgg-1.5_new.caffemodel"),
        ("w.bin", "w.bin_new.caffemodel"),
    ],
)
def test_target_names_the_files_of_force_u8(weights: str, name: str) -> None:
    target = Target(Path("a/net-1.5.prototxt"), None, weights=Path(weights))
    assert target.caffemodel == Path("a") / name
    assert target.forced_prototxt == Path("a/net-1.5_quantized_force_u8.prototxt")


@pytest.mark.parametrize("there", ["net_quantized_force_u8.prototxt", "w_new.caffemodel"])
def test_target_refuses_a_folder_in_the_place_of_the_files_of_force_u8(tmp_path: Path, there: str) -> None:
    (tmp_path / there).mkdir()
    Target(Path("net.prototxt"), tmp_path).check()
    with pytest.raises(OutputError, match=f"{there}: is a folder, and a file is to be"):
        Target(Path("net.prototxt"), tmp_path, weights=Path("w.caffemodel")).check()


def test_target_does_not_overwrite_the_caffemodel_given(tmp_path: Path) -> None:
    weights = tmp_path / "w.caffemodel"
    weights.write_text("mine")
    (tmp_path / "w_new.caffemodel").symlink_to(weights)
    with pytest.raises(OutputError, match=r"w_new\.caffemodel: is the caffemodel given, .* give --out"):
        Target(Path("net.prototxt"), tmp_path, weights=weights).check()


@pytest.mark.parametrize(
    ("make", "out", "said"),
    [
        pytest.param("file", "file", "cannot be written to .Not a directory.; give another folder", id="file"),
        pytest.param("file", "file/below", "cannot be written to .Not a directory.", id="below_a_file"),
        pytest.param("folder/net_quantized.prototxt/", "folder", "is a folder, and a file is to be", id="folder_there"),
        pytest.param("", "/proc/none", "cannot be written to", id="not_writable"),
    ],
)
def test_target_refuses_what_cannot_be_written(tmp_path: Path, make: str, out: str, said: str) -> None:
    if make.endswith("/"):
        (tmp_path / make).mkdir(parents=True)
    elif make:
        (tmp_path / make).write_text("mine")
    with pytest.raises(OutputError, match=said):
        Target(Path("net.prototxt"), tmp_path / out).check()


def test_target_check_leaves_no_trace(tmp_path: Path) -> None:
    Target(Path("net.prototxt"), tmp_path / "a" / "b").check()
    assert list(tmp_path.iterdir()) == []
