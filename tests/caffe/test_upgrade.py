"""V1 nets and net-level inputs in today's format, as BVLC Caffe upgrades them."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, read_net
from distcalib.caffe.upgrade import V1_TYPES, upgrade_inputs, upgrade_v1_layer
from distcalib.errors import FormatError


def v1(text: str) -> caffe_pb2.V1LayerParameter:
    return text_format.Parse(text, caffe_pb2.V1LayerParameter())


def v2(text: str) -> caffe_pb2.LayerParameter:
    return text_format.Parse(text, caffe_pb2.LayerParameter())


def net(text: str) -> caffe_pb2.NetParameter:
    return text_format.Parse(text, caffe_pb2.NetParameter())


def test_v1_types_cover_the_enum() -> None:
    assert set(V1_TYPES) == set(caffe_pb2.V1LayerParameter.LayerType.keys())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            'name: "c" type: CONVOLUTION bottom: "x" top: "y" convolution_param { num_output: 3 pad: 1 }',
            'name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 3 pad: 1 }',
            id="parameters",
        ),
        pytest.param(
            'type: SOFTMAX_LOSS include { phase: TEST } exclude { stage: "s" } loss_weight: 2 '
            "loss_param { normalize: 0 }",
            'type: "SoftmaxWithLoss" include { phase: TEST } exclude { stage: "s" } loss_weight: 2 '
            "loss_param { normalize: 0 }",
            id="rules_and_loss",
        ),
        pytest.param(
            'param: "w" blobs_lr: 1 blobs_lr: 2 weight_decay: 3 blob_share_mode: PERMISSIVE',
            'param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 3 } param { lr_mult: 2 }',
            id="param_specs",
        ),
        pytest.param("blobs { num: 1 data: 5 }", "blobs { num: 1 data: 5 }", id="blobs"),
        pytest.param(
            'type: DATA data_param { source: "s" scale: 0.5 mean_file: "m" crop_size: 3 mirror: true }',
            'type: "Data" data_param { source: "s" } '
            'transform_param { scale: 0.5 mean_file: "m" crop_size: 3 mirror: true }',
            id="transformation_of_data",
        ),
        pytest.param(
            "type: IMAGE_DATA image_data_param { crop_size: 3 } transform_param { crop_size: 4 scale: 2 }",
            'type: "ImageData" image_data_param { } transform_param { crop_size: 3 scale: 2 }',
            id="transformation_of_image_data",
        ),
        pytest.param(
            "type: HDF5_DATA data_param { crop_size: 3 }",
            'type: "HDF5Data" data_param { crop_size: 3 }',
            id="no_transformation_of_other_types",
        ),
        pytest.param("type: NONE", 'type: ""', id="type_none"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_upgrade_v1_layer_makes(old: str, new: str) -> None:
    assert upgrade_v1_layer(v1(old)) == v2(new)


def test_read_net_leaves_ignored_fields_of_todays_data_layers(tmp_path: Path) -> None:
    text = 'layer { type: "Data" data_param { scale: 0.5 } }'  # Caffe ignores it there too
    (tmp_path / "net").write_text(text)
    assert read_net(tmp_path / "net") == net(text)


def test_read_net_refuses_layer_beside_layers(tmp_path: Path) -> None:
    (tmp_path / "net").write_text('layer { type: "ReLU" } layers { type: RELU } layers { type: RELU }')
    with pytest.raises(FormatError, match=r"net: has 1 `layer` and 2 `layers` messages.*write all of them as `layer`"):
        read_net(tmp_path / "net")


@pytest.mark.parametrize(
    ("inputs", "layer"),
    [
        pytest.param(
            'input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4',
            'top: "x" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 4 } }',
            id="dims",
        ),
        pytest.param(
            'input: "x" input: "y" input_shape { dim: 1 } input_shape { dim: 2 dim: 3 }',
            'top: "x" top: "y" input_param { shape { dim: 1 } shape { dim: 2 dim: 3 } }',
            id="shapes",
        ),
    ],
)
def test_upgrade_inputs_puts_an_input_layer_first(inputs: str, layer: str) -> None:
    old = net(inputs + ' layer { name: "a" } layer { name: "b" }')
    upgrade_inputs(old)
    assert old == net(f'layer {{ name: "input" type: "Input" {layer} }} layer {{ name: "a" }} layer {{ name: "b" }}')
    upgrade_inputs(old)
    assert len(old.layer) == 3


@pytest.mark.parametrize(
    ("inputs", "given"),
    [
        pytest.param('input: "x" input_dim: 1 input_dim: 2', "1 `input` and 2 input_dim", id="two_dims"),
        pytest.param('input: "x" input: "y" input_shape { }', "2 `input` and 1 input_shape", id="one_shape_of_two"),
        pytest.param("input_dim: 1", "0 `input` and 1 input_dim", id="no_input"),
    ],
)
def test_read_net_refuses_inputs_without_their_shapes(tmp_path: Path, inputs: str, given: str) -> None:
    (tmp_path / "net").write_text(inputs + ' layer { name: "a" }')
    with pytest.raises(FormatError, match=f"net: the net has {given}; give one input_shape an input"):
        read_net(tmp_path / "net")
