"""V0 nets, as BVLC Caffe upgrades them; read_net brings them to today's format in one go."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, read_net
from distcalib.caffe.upgrade_v0 import MOVED, PARAM_OF_TYPE, TRANSFORM, V0_TYPES, ignored_parameters
from distcalib.errors import FormatError


def read(folder: Path, text: str) -> caffe_pb2.NetParameter:
    (folder / "net").write_text(text)
    return read_net(folder / "net")


def test_tables_name_fields_that_exist() -> None:
    v0, v1 = (message.DESCRIPTOR.fields_by_name for message in (caffe_pb2.V0LayerParameter, caffe_pb2.V1LayerParameter))
    assert set(V0_TYPES.values()) <= set(caffe_pb2.V1LayerParameter.LayerType.keys())
    for old, (new, types) in MOVED.items():
        assert old in v0
        for type_name in types:
            message = v1[PARAM_OF_TYPE[type_name]].message_type
            assert message is not None
            assert new in message.fields_by_name
    assert set(TRANSFORM) <= set(v0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            'name: "c" type: "conv" num_output: 3 kernelsize: 5 stride: 2 pad: 1 group: 3 biasterm: false '
            'weight_filler { type: "xavier" } bias_filler { value: 1 } blobs_lr: 1 blobs_lr: 2 weight_decay: 0.5',
            'name: "c" type: "Convolution" convolution_param { num_output: 3 kernel_size: 5 stride: 2 pad: 1 group: 3 '
            'bias_term: false weight_filler { type: "xavier" } bias_filler { value: 1 } } '
            "param { lr_mult: 1 decay_mult: 0.5 } param { lr_mult: 2 }",
            id="conv",
        ),
        pytest.param(
            'type: "pool" pool: AVE kernelsize: 3 stride: 2 pad: 1',
            'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }',
            id="pool",
        ),
        pytest.param(
            'type: "data" source: "db" batchsize: 10 rand_skip: 2 scale: 0.5 meanfile: "m" cropsize: 3 mirror: true',
            'type: "Data" data_param { source: "db" batch_size: 10 rand_skip: 2 } '
            'transform_param { scale: 0.5 mean_file: "m" crop_size: 3 mirror: true }',
            id="data",
        ),
        pytest.param(
            'type: "images" source: "list" batchsize: 1 new_height: 2 new_width: 3 shuffle_images: true',
            'type: "ImageData" '
            'image_data_param { source: "list" batch_size: 1 new_height: 2 new_width: 3 shuffle: true }',
            id="images",
        ),
        pytest.param(
            'type: "lrn" local_size: 3 alpha: 1 beta: 2 k: 3',
            'type: "LRN" lrn_param { local_size: 3 alpha: 1 beta: 2 k: 3 }',
            id="lrn",
        ),
        pytest.param(
            'type: "window_data" source: "w" det_fg_threshold: 0.1 det_bg_threshold: 0.2 det_fg_fraction: 0.3 '
            'det_context_pad: 4 det_crop_mode: "square"',
            'type: "WindowData" window_data_param { source: "w" fg_threshold: 0.1 bg_threshold: 0.2 fg_fraction: 0.3 '
            'context_pad: 4 crop_mode: "square" }',
            id="window_data",
        ),
        pytest.param('type: "softmax_loss"', 'type: "SoftmaxWithLoss"', id="no_parameters"),
        pytest.param(
            'type: "hdf5_output" hdf5_output_param { file_name: "f" }',
            'type: "HDF5Output" hdf5_output_param { file_name: "f" }',
            id="hdf5_output",
        ),
        pytest.param('type: "concat" concat_dim: 0', 'type: "Concat" concat_param { concat_dim: 0 }', id="concat"),
        pytest.param(
            'type: "innerproduct" num_output: 3 blobs { num: 1 data: 5 }',
            'type: "InnerProduct" inner_product_param { num_output: 3 } blobs { num: 1 data: 5 }',
            id="blobs",
        ),
    ],
)
def test_read_net_upgrades_v0(tmp_path: Path, old: str, new: str) -> None:
    net = read(tmp_path, f'layers {{ layer {{ {old} }} bottom: "x" top: "y" }}')
    assert list(net.layer) == [text_format.Parse(f'{new} bottom: "x" top: "y"', caffe_pb2.LayerParameter())]


def test_read_net_folds_padding_layers(tmp_path: Path) -> None:
    net = read(
        tmp_path,
        """
        input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
        layers { layer { name: "p" type: "padding" pad: 2 } bottom: "x" top: "padded" }
        layers { layer { name: "c" type: "conv" } bottom: "padded" top: "c" }
        layers { layer { name: "r" type: "relu" } bottom: "c" top: "c" }
        """,
    )
    assert [layer.name for layer in net.layer] == ["input", "c", "r"]
    assert list(net.layer[1].bottom) == ["x"]
    assert list(net.layer[1].convolution_param.pad) == [2]


def test_read_net_names_all_that_v0_cannot_say(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read(
            tmp_path,
            """
            layers { layer { name: "a" type: "convolution" } }
            layers { layer { name: "c" type: "tanh" } name: "d" }
            layers { layer { name: "p" type: "padding" pad: 1 } bottom: "x" top: "y" }
            layers { layer { name: "e" type: "relu" } bottom: "y" top: "y" }
            """,
        )
    message = str(caught.value)
    assert "layer 'a' (convolution): no such type in V0" in message
    assert "layer 'c' (tanh): name cannot stand beside `layer { }`" in message
    assert "layer 'e' (relu): reads a padding layer, which only a conv or pool" in message


def test_parameters_of_other_types_are_passed_over_with_a_word(tmp_path: Path) -> None:
    """Caffe logs "Unknown parameter num_output for layer type relu", and runs the net."""
    text = """
        layers { layer { name: "a" type: "data" source: "db" batchsize: 2 det_crop_mode: "warp" } top: "x" top: "y" }
        layers { layer { name: "b" type: "relu" num_output: 3 } bottom: "x" top: "z" }
        """
    net = read(tmp_path, text)
    assert [layer.type for layer in net.layer] == ["Data", "ReLU"]
    parsed = caffe_pb2.NetParameter()
    text_format.Parse(text, parsed)
    assert ignored_parameters(parsed) == ["layer 'a' (data): det_crop_mode", "layer 'b' (relu): num_output"]
