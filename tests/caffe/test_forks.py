"""Fields and types of other forks: accepted at their default, refused otherwise, named."""

import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.forks import APPLIED, FIRST, FORK_TYPES, TRAINING, fork_faults, lower, of_other_forks
from distcalib.layers import CONVERTED


def layer(text: str) -> caffe_pb2.LayerParameter:
    return text_format.Parse(f"name: 'it' {text}", caffe_pb2.LayerParameter())


@pytest.mark.parametrize(
    "text",
    [
        "type: 'Pooling' pooling_param { ceil_mode: false }",
        "type: 'Dropout' dropout_param { sample_weights_test: false scale_train: false }",
        "type: 'BatchNorm' batch_norm_param { update_global_stats: true }",
        "type: 'InnerProduct' inner_product_param { normalize: false weight_filler { file: 'x' } }",
        "type: 'Data' transform_param { scale_factors: 0.5 scale_factors: 2 }",
        "type: 'BN' bn_param { eps: 0.1 }",
    ],
)
def test_fork_faults_passes_defaults_and_what_has_a_meaning(text: str) -> None:
    assert fork_faults([layer(text)]) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("type: 'Dropout' dropout_param { sqrt_scale: true }", "dropout_param.sqrt_scale is True"),
        ("type: 'Softmax' softmax_param { class_weight: 1 class_weight: 2 }", "softmax_param.class_weight is 1.0, 2.0"),
        ("type: 'Data' transform_param { crop_height: 3 }", "transform_param.crop_height is 3"),
        ("type: 'ReLU' relu_param { maximum: 4 }", "relu_param.maximum is 4.0"),
    ],
)
def test_fork_faults_names_layer_and_field(text: str, says: str) -> None:
    [said] = fork_faults([layer(text)])
    assert said.startswith("layer 'it' (")
    assert says in said


def test_fork_fields_that_are_listed_exist() -> None:
    listed = APPLIED | TRAINING
    assert len(listed) > 10
    for name in listed:
        message, field = name.split(".")
        assert caffe_pb2.DESCRIPTOR.message_types_by_name[message].fields_by_name[field].number >= FIRST


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("type: 'DepthwiseConvolution' convolution_param { num_output: 6 group: 3 }", 3),
        ("type: 'DepthwiseConvolution' convolution_param { num_output: 6 }", 1),
        ("type: 'ConvolutionDepthwise' convolution_param { num_output: 6 }", 6),
        ("type: 'Convolution' convolution_param { num_output: 6 group: 2 }", 2),
    ],
)
def test_lower_writes_depthwise_convolutions_as_convolutions(text: str, group: int) -> None:
    it = layer(text)
    lower(it)
    assert (it.type, it.convolution_param.group) == ("Convolution", group)


def test_of_other_forks_names_types_and_fields_once() -> None:
    layers = [
        layer("type: 'ReLU6'"),
        layer("type: 'ReLU6'"),
        layer("type: 'Pooling' pooling_param { ceil_mode: false }"),
        layer("type: 'ReLU' relu_param { negative_slope: 0 }"),
    ]
    assert of_other_forks(layers) == ["ReLU6", "ceil_mode"]
    assert of_other_forks(layers[3:]) == []


def test_types_of_forks_are_converted() -> None:
    elsewhere = {
        "DenseImageData",
        "ImageSegData",
        "NdConvolution",
        "DepthwiseConvolution",
        "ConvolutionDepthwise",
        "SegAccuracy",
        "Proposal",
        "FrcnnOutput",
        "YoloDetectionOutput",
        "Yolov3DetectionOutput",
    }
    assert FORK_TYPES - elsewhere - CONVERTED == set()


def test_lower_writes_a_relu_that_ends_at_six_as_such() -> None:
    it = layer("type: 'ReLU' relu_param { relu6: true negative_slope: 0.5 }")
    lower(it)
    assert (it.type, it.relu6_param.negative_slope) == ("ReLU6", 0.5)
    assert fork_faults([it]) == []
    plain = layer("type: 'ReLU' relu_param { relu6: false }")
    lower(plain)
    assert plain.type == "ReLU"


def test_of_other_forks_names_a_pooling_of_another() -> None:
    assert of_other_forks([layer("type: 'Pooling' pooling_param { pool: AVE_EXC_PAD }")]) == ["AVE_EXC_PAD"]


def test_lower_raises_the_eps_of_nvidia() -> None:
    it = layer("type: 'BatchNorm' batch_norm_param { scale_bias: true eps: 1e-7 }")
    lower(it)
    assert it.batch_norm_param.eps == pytest.approx(1e-5)
    assert fork_faults([it]) == []
