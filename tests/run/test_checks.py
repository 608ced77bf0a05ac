"""What is said before any actor starts: all at once."""

from pathlib import Path

import numpy as np
import pytest

from distcalib.data import REFUSED_DATA
from distcalib.engine.checking import checked_shapes
from distcalib.errors import DataError, UnsupportedError, WeightsError
from distcalib.run.checks import (
    file_stamp,
    net_problems,
    refuse_changed,
    refuse_in_place,
    refuse_no_numbers,
    refuse_other_images,
    refuse_unrunnable,
)
from distcalib.run.net import open_net
from tests.run.tiny import Tiny, make_tiny

INPUT = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 8 dim: 3 dim: 8 dim: 8 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 8 } } }
"""


def with_input_layers(text: str) -> str:
    return INPUT + text[text.index('layer { name: "conv1"') :]


def test_net_problems_of_a_good_net_are_none(tiny: Tiny) -> None:
    net = open_net(tiny.prototxt)
    assert net_problems(net) == []
    refuse_unrunnable(net)


def test_refuse_unrunnable_names_everything_at_once(tmp_path: Path) -> None:
    def spoil(text: str) -> str:
        text = with_input_layers(text).replace('"InnerProduct"', '"Frobnicate"').replace("top_k: 2", "top_k: 0")
        return text.replace('name: "conv2" type', 'name: "conv2" quantization_param { scale_in: 1 } type')

    net = open_net(make_tiny(tmp_path, edit=spoil).prototxt)
    with pytest.raises(UnsupportedError) as caught:
        refuse_unrunnable(net)
    for said in (
        "net.prototxt: layer 'fc' (Frobnicate): is not a layer type",
        "net.prototxt: layer 'top2' (Accuracy): top_k=0; it must be at least 1",
        "net.prototxt: layer 'conv2': quantization_param has 0 scale_out; one positive number is needed",
        "net.prototxt: layer 'data', 'label' (Input) has no data; give its arrays with --data FILE.npz",
    ):
        assert said in str(caught.value)


def test_net_problems_name_a_missing_data_layer(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text('layer { name: "s" type: "Silence" }')
    [said] = net_problems(open_net(file))
    assert (
        said == "net.prototxt: has no data layer in the TEST phase; "
        "add one (AnnotatedData, Data, DummyData, HDF5Data, ImageData, Input)"
    )


def test_net_problems_name_who_would_take_the_frame_for_pixels(tmp_path: Path) -> None:
    def pad(text: str) -> str:
        return text.replace("transform_param {", "transform_param { pad: 1")

    def force(text: str) -> str:
        param = "quantization_param { scale_in: 1 scale_out: 1 scale_params: 1 force_u8_input: true }"
        return pad(text).replace('name: "conv1" type', f'name: "conv1" {param} type')

    assert net_problems(open_net(make_tiny(tmp_path / "plain", edit=pad).prototxt)) == [
        "net.prototxt: layer 'data' (Data): transform_param.pad frames the image with 128, which is zero with "
        "force_u8_input only, and 'conv1' (Convolution) has none; pad there instead"
    ]
    assert net_problems(open_net(make_tiny(tmp_path / "forced", edit=force).prototxt)) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuse_no_numbers_names_the_layers_of_the_net(tiny: Tiny, bad: float) -> None:
    net = open_net(tiny.prototxt)
    good = {"conv1": (np.ones(3, np.float32),)}
    refuse_no_numbers({**good, "not in the net": (np.full(1, bad, np.float32),)}, Path("w.caffemodel"), net)
    spoilt = {name: (np.array([1, bad], np.float32),) for name in ("fc", "conv2")}
    with pytest.raises(WeightsError, match=r"w\.caffemodel: layer 'conv2', 'fc': has weights that are NaN or infinite"):
        refuse_no_numbers({**good, **spoilt}, Path("w.caffemodel"), net)


@pytest.mark.parametrize(("kind", "said"), sorted(REFUSED_DATA.items()))
def test_net_problems_refuse_other_data_layers_by_name(tmp_path: Path, kind: str, said: str) -> None:
    net = open_net(make_tiny(tmp_path, edit=lambda text: text.replace('type: "Data"', f'type: "{kind}"')).prototxt)
    problems = net_problems(net)
    assert f"net.prototxt: layer 'data' ({kind}): {said if kind != 'AnnotatedData' else ''}" in problems[0]
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((8, 1, 8, 8), r"'data' \(Data\): gives images of 1 channel\(s\), and the weights of 'conv1' are for 3; "
         "set force_color: true in its transform_param"),
        ((8, 4, 8, 8), r"gives images of 4 channel\(s\).*force_color: true .* \(the fourth is alpha\)"),
        ((8, 3, 9, 8), r"gives images of 3 x 9 x 8, of which 336 values reach 'fc' \(InnerProduct\), and its "
         "weights are for 288; is crop_size"),
    ],
    ids=["gray", "alpha", "size"],
)  # fmt: skip
def test_refuse_other_images_blames_the_data(
    tiny: Tiny, data: tuple[int, ...], said: str
) -> None:
    net = open_net(tiny.prototxt)
    shapes = {"data": data, "label": data[:1]}
    found = checked_shapes(net.graph, shapes, net.name)
    with pytest.raises(DataError, match=said):
        refuse_other_images(net, shapes, found, net.weights(tiny.weights))


def test_refuse_other_images_lets_good_ones_pass(tiny: Tiny) -> None:
    net = open_net(tiny.prototxt)
    shapes = {"data": (8, 3, 8, 8), "label": (8,)}
    refuse_other_images(net, shapes, checked_shapes(net.graph, shapes, net.name), net.weights(tiny.weights))


def test_open_net_names_a_stage_that_nothing_sets(tmp_path: Path) -> None:
    def in_stage(text: str) -> str:
        return text.replace("include { phase: TEST }", 'include { phase: TEST stage: "val" }', 1)

    path = make_tiny(tmp_path, edit=in_stage).prototxt
    with pytest.raises(UnsupportedError, match=r'\(stage: "val"\); take the stage out of its include, or add `state'):
        open_net(path)
    path.write_text('state { stage: "val" }\n' + path.read_text())
    assert net_problems(open_net(path)) == []


def test_open_net_names_layers_that_lack_bottoms(tmp_path: Path) -> None:
    def spoil(text: str) -> str:
        return text.replace('bottom: "conv1" top: "conv2"', 'top: "conv2"').replace('bottom: "conv4" top: "fc"', "")

    path = make_tiny(tmp_path, edit=spoil).prototxt
    with pytest.raises(UnsupportedError) as refused:
        open_net(path)
    assert "layer 'conv2' (Convolution): 0 bottoms are given; 1 can be converted; " in str(refused.value)
    assert "layer 'fc' (InnerProduct): 0 bottoms are given; 1 can be converted" in str(refused.value)


def test_refuse_in_place_asks_for_a_flag(tmp_path: Path) -> None:
    def flatten(text: str) -> str:
        extra = 'layer { name: "f" type: "Flatten" bottom: "conv4" top: "f" }'
        extra += 'layer { name: "n" type: "TanH" bottom: "f" top: "f" }'
        return text.replace('layer { name: "fc"', extra + 'layer { name: "fc"')

    with pytest.raises(UnsupportedError, match=r"layer 'n' \(TanH\): works in place .* give --allow-overwritten$"):
        refuse_in_place(open_net(make_tiny(tmp_path, edit=flatten).prototxt))


SHAPES = {
    "stride 0": ("kernel_size: 1 pad: 0", "kernel_size: 1 stride: 0", r"'conv3' \(Convolution\): stride is"),
    "group": ("num_output: 6 kernel_size: 3", "num_output: 6 group: 4 kernel_size: 3", "'conv2' .*group=4 does"),
    "group 0": ("num_output: 6 kernel_size: 3", "num_output: 6 group: 0 kernel_size: 3", "'conv2' .*group=0"),
    "kernel": ("num_output: 8 kernel_size: 3", "num_output: 8 kernel_size: 30", "'conv4' "),
    "dilation": ("num_output: 8 kernel_size: 3", "num_output: 8 dilation: 4294967295 kernel_size: 3", "'conv4' "),
    "no outputs": ("num_output: 8 kernel_size: 3", "kernel_size: 3", "'conv4' .*num_output is missing"),
    "many outputs": ("num_output: 8 kernel_size: 3", "num_output: 2147483647 kernel_size: 3", "'conv4'.* does not go"),
    "huge pad": ("num_output: 8 kernel_size: 3", "num_output: 8 pad: 2147483647 kernel_size: 3", "'conv4' "),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), SHAPES.values(), ids=list(SHAPES))
def test_checked_shapes_names_the_layer(old: str, new: str, said: str, tmp_path: Path) -> None:
    def spoil(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    net = open_net(make_tiny(tmp_path, edit=spoil).prototxt)
    with pytest.raises((UnsupportedError, WeightsError), match=said):
        checked_shapes(net.graph, {"data": (8, 3, 8, 8), "label": (8,)}, net.name)


def test_refuse_changed_sees_a_file_that_was_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "w"
    file.write_bytes(bytes(100))
    stamp = file_stamp(file)
    refuse_changed(file, stamp)
    file.write_bytes(bytes(10))
    with pytest.raises(WeightsError, match="was changed while the run started"):
        refuse_changed(file, stamp)
