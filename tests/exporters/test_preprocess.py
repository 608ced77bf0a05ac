"""--preprocess against the data layer: the same pixels, and the same values but for the last bit of a product."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Graph, build_graph
from distcalib.data.transform import Transform
from distcalib.errors import UnsupportedError
from distcalib.exporters import Exported, build_export
from distcalib.exporters.preprocess import preprocessed, steps_of
from distcalib.layers import FileBlobs
from tests.exporters.exports import run_both

pytest.importorskip("onnxruntime")


def graph_of(transform: str, kind: str = "Data") -> Graph:
    text = f'layer {{ name: "data" type: "{kind}" top: "data" transform_param {{ {transform} }} }} '
    text += 'layer { name: "it" type: "Power" bottom: "data" top: "y" power_param { shift: 0.5 } }'
    return build_graph(text_format.Parse(text, caffe_pb2.NetParameter()).layer, "net")


def made_of(graph: Graph, channels: int, size: tuple[int, int], batch: int = 2) -> Exported:
    return build_export(graph, FileBlobs({}, "weights"), {"data": (batch, channels, *size)}, "net")


# id -> (transform_param, channels, size of an image, of the input of the net)
CASES = {
    "mean and scale": ("mean_value: 104 mean_value: 117 mean_value: 123.5 scale: 0.017", 3, (9, 11), (9, 11)),
    "one mean": ("mean_value: 127.5 scale: 0.0078125", 1, (9, 11), (9, 11)),
    "crop": ("crop_size: 6 mean_value: 100", 3, (9, 11), (6, 6)),
    "crop of even size": ("crop_size: 6 scale: 0.5", 3, (10, 12), (6, 6)),
    "resize": ("resize_param { height: 8 width: 14 } mean_value: 100 scale: 0.5", 3, (9, 11), (8, 14)),
    "nothing": ("", 3, (9, 11), (9, 11)),
}


@pytest.mark.parametrize("form", ["nhwc-bgr", "nchw-bgr", "nhwc-rgb", "nchw-rgb"])
@pytest.mark.parametrize("case", CASES)
def test_preprocessed_does_what_the_data_layer_does(case: str, form: str) -> None:
    transform, channels, size, wanted = CASES[case]
    if channels == 1:
        form = f"{form[:4]}-gray"
    graph = graph_of(transform)
    images = np.random.default_rng(3).integers(0, 256, (2, *size, channels)).astype(np.uint8)
    images = np.stack([cv2.GaussianBlur(image, (3, 3), 0).reshape(*size, channels) for image in images])
    layer = Transform(next(iter(graph)).layer.transform_param, "net", Path("net.prototxt"))
    expected = layer.finish(np.stack([np.asarray(layer.image(image), np.uint8) for image in images])) + np.float32(0.5)
    made = preprocessed(made_of(graph, channels, wanted), steps_of(graph, Path("net.prototxt"), "net"), form, "net")
    given = images[..., ::-1] if form.endswith("rgb") else images
    if form.startswith("nchw"):
        given = given.transpose(0, 3, 1, 2)
    for found in run_both(made, {"data": np.ascontiguousarray(given)}):
        assert found["y"].shape == expected.shape
        assert np.abs(found["y"] - expected).max() <= 1e-6 * np.abs(expected).max()


def sizes(n: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Sizes of images and what they are resized to: by whole factors, of single rows, and at random."""
    given = [((1, 1), (5, 3)), ((1, 37), (6, 9)), ((41, 1), (9, 2)), ((20, 30), (10, 15)), ((11, 7), (22, 14))]
    given += [((24, 36), (8, 9)), ((13, 17), (13, 17)), ((2, 2), (50, 64)), ((600, 800), (30, 30))]
    rng = np.random.default_rng(5)
    drawn = rng.integers(1, 130, (n, 4)).tolist()
    return given + [((a, b), (c, d)) for a, b, c, d in drawn]


@pytest.mark.slow
def test_preprocessed_resizes_as_opencv_does() -> None:
    rng = np.random.default_rng(6)
    for size, wanted in sizes(30):
        graph = graph_of(f"resize_param {{ height: {wanted[0]} width: {wanted[1]} }}")
        made = preprocessed(made_of(graph, 3, wanted, 1), steps_of(graph, Path("net.prototxt"), "net"), "nhwc-bgr", "n")
        image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        expected = cv2.resize(image, wanted[::-1], interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)
        for found in run_both(made, {"data": image[None]}):
            assert np.array_equal(found["y"][0] - np.float32(0.5), expected), (size, wanted)


@pytest.mark.parametrize("transform", ["", "crop_size: 5", "crop_size: 6 scale: 0.5"], ids=["whole", "odd", "even"])
def test_preprocessed_takes_the_mean_image_off(transform: str, tmp_path: Path) -> None:
    """Of which a crop cuts the middle, too."""
    mean = np.random.default_rng(8).uniform(0, 255, (3, 9, 12)).astype(np.float32)
    blob = caffe_pb2.BlobProto(num=1, channels=3, height=9, width=12, data=mean.reshape(-1).tolist())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    graph = graph_of(f'mean_file: "{tmp_path}/mean.binaryproto" {transform}')
    param = next(iter(graph)).layer.transform_param
    layer = Transform(param, "net", Path("net.prototxt"))
    images = np.random.default_rng(3).integers(0, 256, (2, 9, 12, 3)).astype(np.uint8)
    expected = layer.finish(np.stack([np.asarray(layer.image(image), np.uint8) for image in images])) + np.float32(0.5)
    steps = steps_of(graph, Path("net.prototxt"), "net")
    made = preprocessed(made_of(graph, 3, expected.shape[2:]), steps, "nhwc-bgr", "net")
    for found in run_both(made, {"data": images}):
        assert found["y"].shape == expected.shape
        assert np.abs(found["y"] - expected).max() <= 1e-6 * np.abs(expected).max()


REFUSED = {
    "pad": ("pad: 2", "pad is not done in a file"),
    "fit": ("resize_param { height: 8 width: 8 resize_mode: FIT_SMALL_SIZE }", "of resize_mode only WARP"),
    "cubic": ("resize_param { height: 8 width: 8 interp_mode: CUBIC }", "of interp_mode only LINEAR"),
    "resize and crop": ("crop_size: 4 resize_param { height: 8 width: 8 }", "resize_param with a crop"),
}


@pytest.mark.parametrize(("transform", "said"), REFUSED.values(), ids=list(REFUSED))
def test_steps_of_refuses_what_a_file_cannot_do(transform: str, said: str) -> None:
    with pytest.raises(UnsupportedError, match=f"layer 'data' \\(Data\\): --preprocess: {said}"):
        steps_of(graph_of(transform), Path("net.prototxt"), "net")


def test_steps_of_refuses_a_net_without_images() -> None:
    with pytest.raises(UnsupportedError, match="and the net has none; leave it out"):
        steps_of(graph_of("", "Input"), Path("net.prototxt"), "net")


def test_preprocessed_refuses_colours_that_do_not_fit() -> None:
    graph = graph_of("")
    with pytest.raises(
        UnsupportedError, match="--preprocess nhwc-bgr: the net reads images of 1 channel; give nhwc-gray"
    ):
        preprocessed(made_of(graph, 1, (4, 4)), steps_of(graph, Path("x"), "net"), "nhwc-bgr", "net")
