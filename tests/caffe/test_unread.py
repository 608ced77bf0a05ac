"""Text that C++ protobuf reads and Python's does not, and fields that nothing needs."""

from pathlib import Path

import pytest

from distcalib.caffe import read_net
from distcalib.caffe.reading import left_unread
from distcalib.caffe.writing import net_text
from distcalib.errors import FormatError

INPUT = "layer { name: 'x' type: 'Input' top: 'x' input_param { shape { dim: 2 dim: 3 } } }\n"


def write(folder: Path, text: bytes | str) -> Path:
    path = folder / "net.prototxt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "comment", [b"# \xc8\xcb\xc1\xb3\n", b"# caf\xe9 'it\n", b"#\xff"], ids=["gbk", "latin", "byte"]
)
def test_comments_may_have_any_bytes(tmp_path: Path, comment: bytes) -> None:
    net = read_net(write(tmp_path, b"name: 'n\xc3\xa9' # \xff\n" + INPUT.encode() + comment))
    assert (net.name, net.layer[0].name) == ("né", "x")


def test_strings_must_be_utf8(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="line 2 is not UTF-8"):
        read_net(write(tmp_path, b"# \xff\nname: '\xff'\n" + INPUT.encode()))


def test_a_minus_may_stand_apart(tmp_path: Path) -> None:
    text = INPUT + "layer { name: 'p - 1' type: 'Power' bottom: 'x' top: 'p' power_param { shift: - 1 scale: -\n2 } }"
    layer = read_net(write(tmp_path, text)).layer[1]
    assert (layer.name, layer.power_param.shift, layer.power_param.scale) == ("p - 1", -1.0, -2.0)


LOSS = "layer {{ name: 'c' type: '{}' bottom: 'x' top: 'c' {} center_loss_param {{ num_output: 3 }} }}"


@pytest.mark.parametrize(
    "layer",
    [
        LOSS.format("CenterLoss", ""),
        LOSS.format("Special", "include { phase: TRAIN }"),
        "layer { name: 'd' type: 'MyData' top: 'd' my_data_param { a: 1 } }",
        "layer { name: 'd' type: 'Data' top: 'd' include { phase: TRAIN } transform_param { new_field: 1 } }",
    ],
    ids=["loss", "phase", "data", "train data"],
)
def test_fields_of_layers_that_a_test_does_without_are_passed_over(tmp_path: Path, layer: str) -> None:
    path = write(tmp_path, INPUT + layer)
    assert len(read_net(path).layer) == 2
    [said] = left_unread(path)
    assert said.startswith("line 2: unknown field")


@pytest.mark.parametrize(
    "layer",
    [
        LOSS.format("ReLU", ""),
        "layer { name: 'd' type: 'Data' top: 'd' my_field: 1 }",
        "layer { name: 'c' type: 'CenterLoss' bottom: 'x' top: 'c' loss_weight: x }",
        "layer { nam: 'd' }",
    ],
    ids=["needed", "data", "value", "misspelt"],
)
def test_other_faults_are_refused(tmp_path: Path, layer: str) -> None:
    with pytest.raises(FormatError, match="line 2: "):
        read_net(write(tmp_path, INPUT + layer))


def test_only_the_faults_that_matter_are_named(tmp_path: Path) -> None:
    text = INPUT + LOSS.format("CenterLoss", "") + "\nlayer { name: 'r' type: 'ReLU' bottom: 'x' top: 'r' odd: 1 }"
    with pytest.raises(FormatError) as caught:
        read_net(write(tmp_path, text))
    assert "line 3: unknown field 'odd'" in str(caught.value)
    assert "center_loss_param" not in str(caught.value)


def test_a_sound_text_has_nothing_unread(tmp_path: Path) -> None:
    assert left_unread(write(tmp_path, INPUT)) == []


TWICE = (
    "layer {{ name: 'd' type: 'Data' top: 'd' {} transform_param {{ resize_param {{ prob: 1 }} resize_param {{ }} }} }}"
)


def test_a_field_may_stand_twice_in_a_layer_of_training(tmp_path: Path) -> None:
    path = write(tmp_path, INPUT + TWICE.format("include { phase: TRAIN }"))
    assert len(read_net(path).layer) == 2
    [said] = left_unread(path)
    assert "'resize_param' stands twice" in said


def test_a_field_must_not_stand_twice_in_a_layer_of_the_test(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="'resize_param' stands twice"):
        read_net(write(tmp_path, INPUT + TWICE.format("")))


FED = 'layer { name: "d" type: "ImageData" top: "x" image_data_param { source: "l.txt" batch_size: 2\nnew_dim: 9 } }\n'


def test_a_data_layer_with_fields_of_a_fork_must_be_fed(tmp_path: Path) -> None:
    net = read_net(write(tmp_path, FED + 'layer { name: "s" type: "ReLU" bottom: "x" top: "y" }'))
    assert net.layer[0].type == "ImageData of another Caffe"
    assert net.layer[0].image_data_param.batch_size == 2
    assert 'type: "ImageData"\n' in net_text(net)
    [said] = left_unread(write(tmp_path, FED))
    assert "unknown field 'new_dim'" in said


def test_a_typing_error_in_a_data_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="'batch_size' is meant"):
        read_net(write(tmp_path, FED.replace("new_dim", "batchsize")))
