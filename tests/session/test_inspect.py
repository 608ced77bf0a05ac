"""inspect(): layers, shapes and scales, and all that is in the way, without running anything."""

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, read_weights, write_weights
from distcalib.engine.net import open_net
from distcalib.errors import DataError
from distcalib.session.inspect import _guess, inspect
from tests.data.databases import raw_datum, write_datums, write_lmdb
from tests.every import every
from tests.session.tiny import QUANTIZABLE, Tiny, make_tiny

PARAM = "quantization_param { scale_in: 20 scale_out: 30 scale_params: 40 bw_layer_out: 8 } type"


def test_inspect_lists_shapes_and_what_can_be_quantized(tiny: Tiny) -> None:
    found = inspect(tiny.prototxt, tiny.weights)
    assert (found.problems, found.notes) == ((), ())
    layers = {layer.name: layer for layer in found.layers}
    assert layers["data"].shapes == ((8, 3, 8, 8), (8,))
    assert layers["conv4"].shapes == ((8, 8, 6, 6),)
    assert layers["top1"].shapes == ((),)
    assert found.quantizable == QUANTIZABLE
    assert [layers[name].int8 for name in QUANTIZABLE] == ["quantizable"] * 3
    assert layers["conv1"].int8 == "FP32: first convolution, which -1st quantizes"
    assert found.int8_layers == ()


def test_inspect_shows_scales_and_what_is_stored(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, edit=lambda text: text.replace('name: "conv2" type', f'name: "conv2" {PARAM}'))
    found = inspect(net.prototxt)
    layers = {layer.name: layer for layer in found.layers}
    assert found.int8_layers == ("conv2",)
    assert layers["conv2"].int8 == "INT8: in u8 20, weights 40, out 30"
    assert layers["conv2_relu"].stored == "u8/30"


def test_inspect_says_what_is_left_out_and_what_weights_are_no_numbers(tmp_path: Path) -> None:
    region = 'layer { name: "region" type: "RegionLoss" bottom: "fc" bottom: "label" top: "region" }'
    net = make_tiny(tmp_path, edit=lambda text: text + region)
    blobs = dict(read_weights(net.weights))
    blobs["conv2"] = (np.full_like(blobs["conv2"][0], np.nan), blobs["conv2"][1])
    write_weights(net.weights, "tiny", open_net(net.prototxt).test.layer, blobs)
    found = inspect(net.prototxt, net.weights)
    left_out = "layer 'region' (RegionLoss) is left out: it is a loss of training, no score of a test"
    assert f"net.prototxt: {left_out}" in found.notes
    assert [problem.split(": ", 1)[1] for problem in found.problems] == [
        "layer 'conv2': has weights that are NaN or infinite; train or copy it again"
    ]


def test_inspect_names_everything_at_once(tmp_path: Path) -> None:
    def spoil(text: str) -> str:
        text = text.replace('type: "Accuracy"', 'type: "Recurrent"', 1).replace('"InnerProduct"', '"Frobnicate"')
        return text.replace("num_output: 6 kernel_size: 3", "num_output: 7 kernel_size: 3")

    net = make_tiny(tmp_path, edit=spoil)
    said = "\n".join(inspect(net.prototxt, net.weights).problems)
    assert "layer 'fc' (Frobnicate)" in said
    assert "layer 'top1' (Recurrent)" in said
    assert "layer 'conv2': blob 0 has shape (6, 4, 3, 3) but the prototxt needs (7, 4, 3, 3)" in said


def test_inspect_goes_on_without_data_weights_or_scales(tmp_path: Path) -> None:
    text = 'name: "conv2" quantization_param { scale_in: -1 } type'
    net = make_tiny(tmp_path, source="nowhere", edit=lambda whole: whole.replace('name: "conv2" type', text))
    found = inspect(net.prototxt, tmp_path / "no.caffemodel")
    assert len(found.layers) == 13
    assert found.notes[0].startswith("nowhere: does not exist")
    said = "\n".join(found.problems)
    assert "no.caffemodel: no such file" in said
    assert "scale_in -1" in said


@pytest.mark.parametrize(("pad", "size"), [(0, 8), (1, 10)])
def test_inspect_guesses_the_shape_of_absent_data_from_its_crop(tmp_path: Path, pad: int, size: int) -> None:
    crop = f"crop_size: 8 pad: {pad} mean_value: 1 mean_value: 2 mean_value: 3"
    net = make_tiny(tmp_path, source="nowhere", edit=lambda text: text.replace("mean_value: 127", crop))
    found = inspect(net.prototxt)
    assert found.layers[0].shapes == ((8, 3, size, size), (8,))
    assert found.notes[0].endswith(f"shapes below assume (8, 3, {size}, {size})")


@pytest.mark.parametrize(
    ("transform", "known", "expected"),
    [
        ("", None, 3),
        ("", 4, 4),
        ("mean_value: 1", None, 1),
        ("mean_value: 1", 3, 3),
        ("force_gray: true", 3, 1),
        ("mean_value: 1 mean_value: 2", 3, 2),
    ],
)
def test_guessed_channels_are_those_of_the_transform_then_of_the_weights(
    transform: str, known: int | None, expected: int
) -> None:
    text = f"data_param {{ batch_size: 2 }} transform_param {{ crop_size: 5 {transform} }}"
    assert _guess(text_format.Parse(text, caffe_pb2.LayerParameter()), known) == (2, expected, 5, 5)


def test_inspect_of_absent_data_takes_the_channels_that_the_weights_are_for(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, source="nowhere", edit=lambda text: text.replace("mean_value", "crop_size: 8 mean_value"))
    found = inspect(net.prototxt, net.weights)
    assert found.layers[0].shapes[0] == (8, 3, 8, 8), "one mean_value is for all channels"
    assert found.problems == ()


def test_inspect_names_a_kernel_larger_than_its_input(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path, edit=lambda text: text.replace("kernel_size: 3", "kernel_size: 99", 1))
    [problem] = inspect(tiny.prototxt).problems
    assert problem.startswith("net.prototxt: layer 'conv")
    assert "(Convolution): its shapes do not fit" in problem


def test_inspect_lists_a_net_with_a_convolution_of_two_bottoms(tmp_path: Path) -> None:
    prototxt = tmp_path / "net.prototxt"
    prototxt.write_text(
        """layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }
        layer { name: "c" type: "Convolution" bottom: "x" bottom: "x" top: "c" top: "d"
          convolution_param { num_output: 1 kernel_size: 1 } }
        layer { name: "p" type: "Python" bottom: "c" top: "p" }
        layer { name: "r" type: "ReLU" bottom: "p" top: "r" }"""
    )
    found = inspect(prototxt)
    assert [layer.name for layer in found.layers] == ["x", "c", "c_2", "p", "r"]
    assert len(found.problems) == 1
    assert any("it is 'c', 'c_2' here, which share their weights" in note for note in found.notes)
    assert every(problem.startswith("net.prototxt: layer '") for problem in found.problems)


def test_inspect_does_not_advise_a_flag_that_it_has_not(tiny: Tiny, tmp_path: Path) -> None:
    database = write_lmdb(tmp_path / "db", [(b"0", b"\xff\xff")])
    (tmp_path / "net.prototxt").write_text(tiny.prototxt.read_text().replace(str(tiny.database), str(database)))
    found = inspect(tmp_path / "net.prototxt")
    [problem] = found.problems
    assert problem.endswith("record '0' is not a Datum (2 bytes); write it again or leave it out")
    assert found.notes == ("net.prototxt: shapes are not known",)


def _image(width: int) -> str:
    return f"""layer {{ name: "d" type: "ImageData" top: "x" top: "y"
      image_data_param {{ source: "nowhere.txt" batch_size: 1 new_height: 60000 new_width: {width} }} }}"""


REFUSED = {
    "batch 0": ('data_param { source: "nowhere" backend: LMDB }', "data_param has no batch_size"),
    "too large a batch": (
        'data_param { source: "nowhere" backend: LMDB batch_size: 999999999 } transform_param { crop_size: 1 }',
        "its top is ",
    ),
    "no source": ("data_param { batch_size: 2 }", "data_param has no source"),
}


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=list(REFUSED))
def test_inspect_says_that_what_calibrate_refuses_cannot_be_run(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "net.prototxt"
    reader = 'layer { name: "p" type: "Tile" bottom: "x" top: "p" tile_param { tiles: 9 } }'
    path.write_text(f'layer {{ name: "d" type: "Data" top: "x" top: "y" {text} }} {reader}')
    [problem] = inspect(path).problems
    assert says in problem


def test_inspect_says_that_images_over_the_limit_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(_image(70000) + 'layer { name: "p" type: "ReLU" bottom: "x" top: "p" }')
    [problem] = inspect(path).problems
    assert "are the limit (--largest-mb)" in problem


DEPLOY = """
layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }
layer { name: "p" type: "ReLU" bottom: "x" top: "p" }
"""
OWN = """
layer { name: "d" type: "Python" top: "x" top: "label" python_param { module: "voc" layer: "Segments" } }
layer { name: "p" type: "ReLU" bottom: "x" top: "p" }
"""


@pytest.mark.parametrize(("text", "says"), [(DEPLOY, "(Input) has no data"), (OWN, "give arrays of its tops")])
def test_inspect_of_a_net_that_waits_for_arrays_has_a_note_and_no_problem(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    found = inspect(path)
    assert found.problems == ()
    assert says in found.notes[0]


@pytest.mark.parametrize("text", [DEPLOY, OWN])
def test_inspect_takes_the_arrays_that_feed_a_net(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    np.savez(tmp_path / "in.npz", x=np.zeros((4, 3, 9, 9)))
    found = inspect(path, data=tmp_path / "in.npz")
    assert (found.problems, found.notes) == ((), ())
    assert [layer.shapes[0] for layer in found.layers] == [(1, 3, 9, 9)] * 2


@pytest.mark.parametrize("text", [DEPLOY, OWN])
def test_inspect_says_what_is_wrong_with_arrays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    np.savez(tmp_path / "in.npz", y=np.zeros((4, 3, 9, 9)))
    assert inspect(path, data=tmp_path / "in.npz").problems
    with pytest.raises(DataError, match=r"absent\.npz: does not exist"):
        inspect(path, data=tmp_path / "absent.npz")


CAFFE_RUNS = {
    "two names": (
        'layer { name: "r" type: "ReLU" bottom: "x" top: "a" } layer { name: "r" type: "ReLU" bottom: "a" top: "b" }',
        "it is called 'r_2' here",
    ),
    "no names": (
        'layer { type: "ReLU" bottom: "x" top: "a" } layer { type: "ReLU" bottom: "a" top: "b" }',
        "it is called 'ReLU_2' here",
    ),
    "phase": (
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" phase: TRAIN'
        " convolution_param { num_output: 2 kernel_size: 3 } }",
        "",
    ),
    "kernel over the input": (
        'layer { name: "g" type: "Pooling" bottom: "x" top: "g" pooling_param { global_pooling: true } }'
        ' layer { name: "p" type: "Pooling" bottom: "g" top: "p" pooling_param { kernel_size: 2 stride: 2 } }',
        "",
    ),
    "silenced loss": (
        'layer { name: "e" type: "EuclideanLoss" bottom: "x" bottom: "x" top: "e" }'
        ' layer { name: "s" type: "Silence" bottom: "e" } layer { name: "r" type: "ReLU" bottom: "x" top: "r" }',
        "layer 'e' (EuclideanLoss) is left out: its value is silenced",
    ),
    "smooth l1": ('layer { name: "s" type: "SmoothL1Loss" bottom: "x" bottom: "x" top: "s" }', ""),
    "per class": (
        'layer { name: "i" type: "Input" top: "i" input_param { shape { dim: 1 } } }'
        ' layer { name: "f" type: "InnerProduct" bottom: "x" top: "f" inner_product_param { num_output: 3 } }'
        ' layer { name: "a" type: "Accuracy" bottom: "f" bottom: "i" top: "a" top: "each" }',
        "",
    ),
}


@pytest.mark.parametrize("case", CAFFE_RUNS)
def test_inspect_finds_nothing_wrong_where_caffe_runs(tmp_path: Path, case: str) -> None:
    text, note = CAFFE_RUNS[case]
    path = tmp_path / "net.prototxt"
    path.write_text(
        DEPLOY.replace('name: "p" type: "ReLU" bottom: "x" top: "p"', 'name: "q" type: "AbsVal" bottom: "x" top: "q"')
        + text
    )
    found = inspect(path)
    assert found.problems == ()
    assert note in " ".join(found.notes)


def test_inspect_finds_what_a_score_cannot_take(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        """layer { name: "d" type: "DummyData" top: "x" top: "l"
          dummy_data_param { shape { dim: [2, 3] } shape { dim: 3 } } }
        layer { name: "a" type: "Accuracy" bottom: "x" bottom: "x" top: "a" accuracy_param { top_k: 9 } }
        layer { name: "b" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" top: "b" }"""
    )
    assert [problem.partition("): ")[2] for problem in inspect(path).problems] == [
        "6 labels for predictions of shape (2, 3) along axis 1; 2 are needed",
        "3 labels for predictions of shape (2, 3) along axis 1; 2 are needed",
    ]
    path.write_text(
        path.read_text().replace('bottom: "x" bottom: "x"', 'bottom: "x" bottom: "l"').replace("dim: 3 ", "dim: 2 ")
    )
    assert [problem.partition("): ")[2] for problem in inspect(path).problems] == ["top_k=9 of 3 classes; lower it"]


def test_inspect_assumes_labels_of_an_image_where_pairs_are_absent(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "d" type: "DenseImageData" top: "x" top: "l" dense_image_data_param { source: "absent.txt" '
        'batch_size: 2 new_height: 8 new_width: 6 } } layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        'convolution_param { num_output: 3 kernel_size: 1 } } layer { name: "s" type: "SegAccuracy" bottom: "c" '
        'bottom: "l" top: "s" } layer { name: "f" type: "SoftmaxWithLoss" bottom: "c" bottom: "l" top: "f" }'
    )
    found = inspect(path)
    assert found.problems == ()
    assert "shapes below assume (2, 3, 8, 6)" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("kind", "param"),
    [("ImageData", "image_data_param"), ("HDF5Data", "hdf5_data_param"), ("DenseImageData", "dense_image_data_param")],
)
def test_inspect_tells_that_shuffled_records_are_read_in_their_order(kind: str, param: str, tmp_path: Path) -> None:
    text = f'layer {{ name: "data" type: "{kind}" top: "data" top: "label" '
    text += f'{param} {{ source: "l" batch_size: 2 shuffle: true }} }}'
    ends = 'layer { name: "end" type: "Silence" bottom: "data" bottom: "label" }'
    (tmp_path / "net.prototxt").write_text(text + ends)
    found = inspect(tmp_path / "net.prototxt")
    [note] = [note for note in found.notes if "shuffle" in note]
    assert note.startswith(f"net.prototxt: layer 'data' ({kind}): shuffle: the records are read in their own order;")
    assert not any("shuffle" in problem for problem in found.problems)


def test_inspect_takes_a_data_layer_of_another_caffe_for_one_that_must_be_fed(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "d" type: "ImageData" top: "x" top: "l" transform_param { crop_size: 8 } '
        'image_data_param { source: "l.txt" batch_size: 2\nnew_dim: 9 } }\n'
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        "convolution_param { num_output: 2 kernel_size: 3 } }"
    )
    found = inspect(net)
    assert not found.problems
    assert any("give arrays of its tops ('x', 'l') with --data" in said for said in found.notes)
    assert found.layers[1].shapes == ((2, 2, 6, 6),)
    arrays = tmp_path / "data.npz"
    np.savez(arrays, x=np.zeros((4, 3, 8, 8), np.float32))
    assert not inspect(net, data=arrays).problems


def test_inspect_blames_the_images_as_evaluate_does(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, edit=lambda text: text.replace("mean_value: 127", "mean_value: 127 force_gray: true"))
    records = [raw_datum(np.zeros((1, 8, 8), np.uint8), 0) for _ in range(8)]
    write_datums(net.database, records)
    [said] = inspect(net.prototxt, net.weights).problems
    assert said == (
        "net.prototxt: layer 'data' (Data): gives images of 1 channel(s), and the weights of 'conv1' are for 3; set "
        "force_color: true in its transform_param if the images are encoded, else write the data anew"
    )
