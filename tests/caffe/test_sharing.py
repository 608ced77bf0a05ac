"""Blobs that layers share by a param's name, as Caffe loads them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from google.protobuf import text_format

from distcalib.caffe import Weights, caffe_pb2, read_weights, share, shared_params
from distcalib.caffe.sharing import Share
from distcalib.errors import WeightsError

Array = npt.NDArray[np.float32]


def layer(name: str, *params: str, mode: str = "") -> str:
    specs = " ".join(f'param {{ name: "{param}" {mode} }}' if param else "param { lr_mult: 1 }" for param in params)
    return f'layer {{ name: "{name}" type: "Convolution" {specs} }}'


def layers(*texts: str) -> list[caffe_pb2.LayerParameter]:
    return list(text_format.Parse("\n".join(texts), caffe_pb2.NetParameter()).layer)


def full(value: float, *shape: int) -> Array:
    return np.full(shape or (2, 1, 1, 1), value, np.float32)


def firsts(weights: Weights, *texts: str) -> dict[str, list[float]]:
    """The first value of each blob of each layer."""
    return {name: [float(b.flat[0]) for b in blobs] for name, blobs in share(layers(*texts), weights, "w").items()}


A, B = layer("a", "w", "b"), layer("b", "w", "b")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param({"a": (1, 2)}, {"a": [1, 2], "b": [1, 2]}, id="first_only"),
        pytest.param({"b": (3, 4)}, {"a": [3, 4], "b": [3, 4]}, id="last_only"),
        pytest.param({"a": (1, 2), "b": (1, 2)}, {"a": [1, 2], "b": [1, 2]}, id="both_identical"),
        pytest.param({"a": (1, 2), "b": (3, 4)}, {"a": [3, 4], "b": [3, 4]}, id="last_of_the_file_wins"),
        pytest.param({"b": (3, 4), "a": (1, 2)}, {"a": [1, 2], "b": [1, 2]}, id="of_the_file_not_of_the_net"),
        pytest.param({"c": (9,), "a": (1, 2)}, {"a": [1, 2], "b": [1, 2], "c": [9]}, id="strangers_stay"),
    ],
)
def test_share_loads_as_caffe_does(weights: dict[str, tuple[float, ...]], expected: dict[str, list[float]]) -> None:
    blobs = {name: tuple(full(value) for value in values) for name, values in weights.items()}
    assert firsts(blobs, A, B) == expected


def test_share_of_one_blob_leaves_the_other_to_each() -> None:
    blobs = {"a": (full(1), full(2)), "b": (full(3), full(4))}
    assert firsts(blobs, layer("a", "w"), layer("b", "w")) == {"a": [3, 2], "b": [3, 4]}
    assert firsts(blobs, layer("a", "", "w"), layer("b", "w")) == {"a": [1, 3], "b": [3, 4]}


def test_share_gives_a_layer_that_the_file_lacks_what_is_shared_and_no_more() -> None:
    blobs = {"a": (full(1), full(2))}
    assert firsts(blobs, layer("a", "w"), layer("b", "w")) == {"a": [1, 2], "b": [1]}
    assert firsts(blobs, layer("a", "", "w"), layer("b", "", "w")) == {"a": [1, 2]}


def test_share_of_a_net_without_it_is_the_weights_themselves() -> None:
    weights = {"a": (full(1),), "b": (full(2),)}
    assert share(layers(layer("a", "v"), layer("b", "w"), layer("c")), weights, "w") is weights


def test_share_permissive_keeps_each_layers_shape() -> None:
    values = np.arange(6, dtype=np.float32)
    weights = {"a": (values.reshape(2, 3, 1, 1),), "b": (10 + values.reshape(3, 2, 1, 1),)}
    made = share(layers(layer("a", "w"), layer("b", "w", mode="share_mode: PERMISSIVE")), weights, "w")
    np.testing.assert_array_equal(made["a"][0], 10 + values.reshape(2, 3, 1, 1))
    np.testing.assert_array_equal(made["b"][0], 10 + values.reshape(3, 2, 1, 1))


def test_share_takes_the_legacy_form_for_the_same_shape() -> None:
    weights = {"a": (full(1, 1, 1, 2, 3),), "b": (full(2, 2, 3),)}
    made = share(layers(layer("a", "w"), layer("b", "w")), weights, "w")
    assert [made[name][0].shape for name in "ab"] == [(1, 1, 2, 3), (2, 3)]


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        pytest.param("", (3, 2, 1, 1), id="strict"),
        pytest.param("share_mode: PERMISSIVE", (3, 3, 1, 1), id="permissive_of_another_count"),
    ],
)
def test_share_refuses_shapes_that_disagree(mode: str, shape: tuple[int, ...]) -> None:
    weights = {"a": (full(1, 2, 3, 1, 1),), "b": (full(1, *shape),)}
    with pytest.raises(WeightsError) as caught:
        share(layers(layer("a", "w"), layer("b", "w", mode=mode)), weights, "net.caffemodel")
    shapes = f"({', '.join(map(str, shape))}) and (2, 3, 1, 1)"
    assert str(caught.value) == (
        f"net.caffemodel: layer 'b' shares blob 0 with layer 'a' (param 'w'), but their shapes are {shapes}; "
        "give the layers blobs of one shape, or each a param name of its own"
    )


def test_share_takes_the_last_of_a_layer_that_stands_twice(tmp_path: Path) -> None:
    """Caffe copies each in turn: a, b, a ends with a's."""
    net = caffe_pb2.NetParameter()
    for name, value in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        blob = net.layer.add(name=name, type="Convolution").blobs.add(data=[value, value])
        blob.shape.dim.extend([2, 1, 1, 1])
    (tmp_path / "w").write_bytes(net.SerializeToString())
    assert firsts(dict(read_weights(tmp_path / "w")), layer("a", "w"), layer("b", "w")) == {"a": [3], "b": [3]}


def test_shared_params_names_owner_and_mode() -> None:
    mode = "share_mode: PERMISSIVE"
    found = shared_params(layers(layer("a", "w", "own"), layer("b", "", "w", mode=mode), layer("c")))
    assert found == {("a", 0): Share("w", ("a", 0), False), ("b", 1): Share("w", ("a", 0), True)}
