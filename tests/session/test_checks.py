"""What is said before any actor starts: all at once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import read_weights, write_weights
from distcalib.caffe.phase import State
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.data import REFUSED_DATA
from distcalib.engine.checking import checked_shapes
from distcalib.engine.net import open_net
from distcalib.errors import DataError, EngineError, UnsupportedError, WeightsError
from distcalib.session.checks import (
    data_warnings,
    load_warnings,
    net_problems,
    refuse_no_numbers,
    refuse_other_images,
    refuse_unrunnable,
)
from tests.session.tiny import Tiny, make_tiny

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
        "add one (AnnotatedData, Data, DenseImageData, DummyData, HDF5Data, ImageData, ImageSegData, Input)"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", []),
        ("crop_size: 8", []),
        ("resize_param { height: 8 width: 8 }", []),
        (
            "pad: 1",
            [
                "net.prototxt: layer 'data' (Data): transform_param.pad frames encoded images with pixels of 0, to "
                "which neither mean nor scale is applied, and leaves raw records without a frame; let the first "
                "convolution pad"
            ],
        ),
        (
            "crop_size: 8 resize_param { height: 8 width: 8 }",
            [
                "net.prototxt: layer 'data' (Data): Intel Caffe cuts the crop out of the image before resize_param, "
                "which has no other effect than to move it; take resize_param or crop_size out"
            ],
        ),
    ],
    ids=["nothing", "crop", "resize", "pad", "resize_and_crop"],
)
def test_data_warnings_tell_what_intel_caffe_does_with_images(tmp_path: Path, given: str, said: list[str]) -> None:
    tiny = make_tiny(tmp_path, edit=lambda text: text.replace("transform_param {", f"transform_param {{ {given}"))
    net = open_net(tiny.prototxt)
    assert data_warnings(net) == said
    assert net_problems(net) == []


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
    ("old", "new", "said"),
    [
        ("scale: 0.01", "scale: nan", "layer 'data' (Data): transform_param.scale is nan; give a number"),
        ("mean_value: 127", "mean_value: 1 mean_value: inf", "layer 'data' (Data): transform_param.mean_value is inf"),
        ('type: "ReLU"', 'type: "ReLU" relu_param { negative_slope: nan }', "relu_param.negative_slope is nan"),
        (
            'type: "SoftmaxWithLoss"',
            'type: "SoftmaxWithLoss" loss_weight: inf',
            "layer 'loss' (SoftmaxWithLoss): loss_w",
        ),
        ('type: "ReLU"', 'type: "ReLU" batch_norm_param { eps: -1 }', "eps is -1; give a number from 0 on"),
        ("kernel_size: 3", 'weight_filler { type: "constant" value: nan } kernel_size: 3', None),
    ],
    ids=["scale", "mean_value", "slope", "loss_weight", "eps", "filler"],
)
def test_net_problems_name_parameters_that_are_no_numbers(tmp_path: Path, old: str, new: str, said: str | None) -> None:
    problems = net_problems(open_net(make_tiny(tmp_path, edit=lambda text: text.replace(old, new, 1)).prototxt))
    assert len(problems) == (said is not None)
    assert said is None or said in problems[0]


BN = 'layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "conv1" }'


@pytest.mark.parametrize(
    ("variance", "factor", "said"),
    [
        ([1.0, 0.0], 1.0, None),
        ([-9.99e-6, 1.0], 1.0, None),  # of a published MobileNet
        ([1.0, -5.0], 1.0, r"variance \+ eps is not above 0 in channel 1 \(-5 with eps 1e-05\)"),
        ([-1e-3, -1e-3], 100.0, r"in channel 0, 1 \("),
        ([-1e-3, 1.0], 1000.0, None),
        ([1.0, 1.0], 1e-45, r"mean or variance divided by the factor of 1\.4013e-45 is infinite"),
        ([-1e-3, 1.0], 0.0, "in channel 0"),  # a factor of 0 counts as 1 where the layer is folded
    ],
)
def test_refuse_no_numbers_names_variances_without_a_root(
    tmp_path: Path, variance: list[float], factor: float, said: str | None
) -> None:
    text = lambda given: given.replace('layer { name: "conv1_relu"', BN + '\nlayer { name: "conv1_relu"')  # noqa: E731
    net = open_net(make_tiny(tmp_path, edit=text).prototxt)
    blobs = {"bn": (np.ones(2, np.float32), np.array(variance, np.float32), np.array([factor], np.float32))}
    if said is None:
        refuse_no_numbers(blobs, Path("w.caffemodel"), net)
        return
    with pytest.raises(WeightsError, match=rf"^w\.caffemodel: layer 'bn' \(BatchNorm\): .*{said}.*; train or copy it"):
        refuse_no_numbers(blobs, Path("w.caffemodel"), net)


@pytest.mark.usefixtures("actors")
@pytest.mark.parametrize("quantize_only", [False, True], ids=["measured", "quantized_only"])
def test_calibrate_refuses_a_net_that_overflows_behind_a_relu(tmp_path: Path, quantize_only: bool) -> None:
    made = make_tiny(tmp_path / "net")
    blobs = dict(read_weights(made.weights))
    for name in ("conv1", "conv2"):
        blobs[name] = (blobs[name][0] * np.float32(1e22), blobs[name][1])
    write_weights(made.weights, "tiny", open_net(made.prototxt).test.layer, blobs)
    options = CalibrationOptions(iterations=2, sampling_iterations=1, n_actors=1, quantize_model=quantize_only)
    with pytest.raises(
        EngineError, match=r"layer 'conv2' \(Convolution\) makes values in FP32 that are NaN or infinite"
    ):
        calibrate(made.prototxt, made.weights, replace(options, out=tmp_path / "out"))
    assert list((tmp_path / "out").glob("*.prototxt")) == []


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
def test_refuse_other_images_blames_the_data(tiny: Tiny, data: tuple[int, ...], said: str) -> None:
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
    with pytest.raises(UnsupportedError, match="a stage that is not set; give --stage val"):
        open_net(path)
    net = open_net(path, state=State(("val",)))
    assert net_problems(net) == []
    assert list(net.full.state.stage) == ["val"]  # it stands in what is written
    path.write_text('state { stage: "val" }\n' + path.read_text())
    assert net_problems(open_net(path, state=State(("val",)))) == []


def test_open_net_names_layers_that_lack_bottoms(tmp_path: Path) -> None:
    def spoil(text: str) -> str:
        return text.replace('bottom: "conv1" top: "conv2"', 'top: "conv2"').replace('bottom: "conv4" top: "fc"', "")

    path = make_tiny(tmp_path, edit=spoil).prototxt
    with pytest.raises(UnsupportedError) as refused:
        open_net(path)
    assert "layer 'conv2' (Convolution): 0 bottoms are given; 1 can be converted; " in str(refused.value)
    assert "layer 'fc' (InnerProduct): 0 bottoms are given; 1 can be converted" in str(refused.value)


def test_load_warnings_name_what_intel_caffe_ends_at(tmp_path: Path) -> None:
    norm = 'layer { name: "n" type: "BatchNorm" bottom: "conv1" top: "n" batch_norm_param { use_global_stats: true } }'
    scale = 'layer { name: "s" type: "Scale" bottom: "n" top: "n" }'

    def without_bias(text: str) -> str:
        return text.replace('layer { name: "fc"', norm + scale + 'layer { name: "fc"')

    [said] = load_warnings(open_net(make_tiny(tmp_path, edit=without_bias).prototxt))
    assert said.startswith("net.prototxt: layer 's' (Scale)")
    assert "Intel Caffe cannot run the net" in said
    assert load_warnings(open_net(make_tiny(tmp_path, name="sound").prototxt)) == []


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


def test_data_warnings_tell_of_a_state_that_caffe_keeps(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        """layer { name: "in" type: "Input" top: "x" top: "cont"
          input_param { shape { dim: 2 dim: 1 dim: 3 } shape { dim: 2 dim: 1 } } }
        layer { name: "l" type: "LSTM" bottom: "x" bottom: "cont" top: "h" recurrent_param { num_output: 2 } }"""
    )
    [told] = data_warnings(open_net(path))
    assert "layer 'l' (LSTM): Caffe begins an iteration with the state at the end of the one before" in told
