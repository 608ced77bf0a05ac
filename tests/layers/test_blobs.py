"""Where weights come from, and what is said when they do not fit."""

import numpy as np
import openvino.opset13 as ops
import pytest

from distcalib.caffe import caffe_pb2, shared_params
from distcalib.errors import WeightsError
from distcalib.layers import Blobs, FileBlobs, Layer, RandomBlobs, ZeroBlobs, convert
from tests.layers.harness import make_layer

FILE = FileBlobs(
    {"conv1": (np.ones((4, 3, 1, 1), np.float32), np.ones((1, 1, 1, 4), np.float32)), "relu1": ()}, "a.caffemodel"
)


def test_file_blobs_gives_what_is_stored() -> None:
    assert FILE.get("conv1", 0, (4, 3, 1, 1)).shape == (4, 3, 1, 1)
    assert FILE.count("conv1") == 2
    assert FILE.count("conv2") == 0


def test_file_blobs_reads_the_legacy_form() -> None:
    assert FILE.get("conv1", 1, (4,)).shape == (4,)
    assert FILE.get("conv1", 1, (1, 4)).shape == (1, 4)


@pytest.mark.parametrize(
    ("layer", "index", "shape", "says"),
    [
        pytest.param(
            "conv2",
            0,
            (4,),
            "a.caffemodel: layer 'conv2' is not there ('conv1' is); give the caffemodel that belongs to this prototxt",
            id="no_layer",
        ),
        pytest.param(
            "relu1", 0, (4,), "a.caffemodel: layer 'relu1' has no blobs there but needs some; give", id="no_blobs"
        ),
        pytest.param(
            "conv1", 2, (4,), "a.caffemodel: layer 'conv1' has 2 of the blobs, and blob 2 of shape (4)", id="index"
        ),
        pytest.param(
            "conv1",
            0,
            (4, 3, 3, 3),
            "a.caffemodel: layer 'conv1': blob 0 has shape (4, 3, 1, 1) but the prototxt needs (4, 3, 3, 3); correct",
            id="shape",
        ),
        pytest.param("conv1", 0, (12,), "blob 0 has shape (4, 3, 1, 1) but the prototxt needs (12)", id="same_count"),
        pytest.param(
            "conv1", 1, (4, 1), "blob 1 has shape (1, 1, 1, 4) but the prototxt needs (4, 1)", id="legacy_elsewhere"
        ),
    ],
)
def test_file_blobs_refuses(layer: str, index: int, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(WeightsError) as caught:
        FILE.get(layer, index, shape)
    assert str(caught.value).startswith(says) or says in str(caught.value)


def test_random_blobs_depend_on_seed_name_and_index_alone() -> None:
    first = RandomBlobs(1).get("a", 0, (2, 3))
    RandomBlobs(1).get("b", 0, (5,))
    assert (RandomBlobs(1).get("a", 0, (2, 3)) == first).all()
    assert (RandomBlobs(2).get("a", 0, (2, 3)) != first).all()
    assert (RandomBlobs(1).get("b", 0, (2, 3)) != first).all()
    assert (RandomBlobs(1).get("a", 1, (2, 3)) != first).all()


def test_random_blobs_are_the_same_everywhere() -> None:
    values = RandomBlobs(0).get("conv1", 0, (2, 2))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [[-0.12666111, -1.3052641], [-0.79333943, 1.3639016]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (1000, 2048)], ids=str)
def test_random_weights_keep_the_energy_of_relu_nets(shape: tuple[int, ...]) -> None:
    weight = RandomBlobs(0).get("conv", 0, shape)
    fan_in = np.prod(shape[1:])
    np.testing.assert_allclose(weight.var() * fan_in, 2.0, rtol=0.05)


def test_random_batch_norm_and_scale_fit_their_roles() -> None:
    layer = Layer(make_layer('type: "BatchNorm"').proto, RandomBlobs(3))
    assert layer.n_blobs is None
    assert (layer.blob(1, (100,)) > 0.4).all()
    assert layer.blob(2, (1,)) == 1
    assert (layer.blob(3, (100,)) > 0.5).all()
    assert (Layer(make_layer('type: "Scale"').proto, RandomBlobs(3)).blob(0, (100,)) > 0.5).all()
    assert Layer(make_layer('type: "Scale"').proto, RandomBlobs(3)).blob(0, ()).shape == ()


@pytest.mark.parametrize("blobs", [RandomBlobs(0), ZeroBlobs()], ids=["random", "zero"])
def test_stand_ins_have_as_many_blobs_as_are_asked_for(blobs: Blobs) -> None:
    assert blobs.count("conv1") is None
    assert Layer(make_layer('type: "Scale"').proto, blobs).n_blobs is None


def test_zero_blobs_take_no_memory() -> None:
    zeros = ZeroBlobs().get("fc6", 0, (4096, 25088))
    assert zeros.shape == (4096, 25088)
    assert zeros.strides == (0, 0)


@pytest.mark.parametrize("blobs", [RandomBlobs(0), ZeroBlobs()], ids=["random", "zero"])
@pytest.mark.parametrize(
    "text", ['type: "BatchNorm"', 'type: "Scale" scale_param { bias_term: true }', 'type: "PReLU"', 'type: "Bias"']
)
def test_stand_ins_serve_every_layer_with_blobs(text: str, blobs: Blobs) -> None:
    x = ops.parameter([1, 3, 2, 2], np.float32).output(0)
    [y] = convert(Layer(make_layer(text).proto, blobs), [x])
    assert list(y.get_shape()) == [1, 3, 2, 2]


def shared_blobs(mode: str) -> FileBlobs:
    specs = [caffe_pb2.ParamSpec(name="w"), caffe_pb2.ParamSpec(name="w", share_mode=mode)]
    layers = [caffe_pb2.LayerParameter(name=name, param=[spec]) for name, spec in zip("ab", specs, strict=True)]
    blob = np.arange(6, dtype=np.float32).reshape(2, 3, 1, 1)
    return FileBlobs({"a": (blob,), "b": (blob,)}, "w.caffemodel", shared_params(layers))


def test_file_blobs_shares_values_in_another_shape_where_the_net_permits_it() -> None:
    assert shared_blobs("PERMISSIVE").get("b", 0, (3, 2, 1, 1)).tolist()[2] == [[[4.0]], [[5.0]]]


@pytest.mark.parametrize(
    ("mode", "layer", "shape", "says"),
    [
        pytest.param("STRICT", "b", (3, 2, 1, 1), "layer 'b': blob 0, shared with layer 'a' (param 'w'), has", id="b"),
        pytest.param("PERMISSIVE", "b", (3, 3, 1, 1), "shared with layer 'a' (param 'w'), has shape (2, 3", id="count"),
        pytest.param("PERMISSIVE", "a", (3, 2, 1, 1), "layer 'a': blob 0 has shape (2, 3, 1, 1) but", id="owner"),
    ],
)
def test_file_blobs_names_both_layers_of_a_shared_blob(
    mode: str, layer: str, shape: tuple[int, ...], says: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        shared_blobs(mode).get(layer, 0, shape)
    assert says in str(caught.value)
