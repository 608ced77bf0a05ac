"""What `distcalib init` makes of a prototxt, its data and the files beside it."""

import shlex
import shutil
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, read_weights, write_weights
from distcalib.session.proposal import MOST_TRIED, Proposal, propose
from tests.data.databases import raw_datum, write_datums
from tests.session.tiny import N_RECORDS, Tiny, make_tiny
from tests.session.tiny_ssd import TinySsd


def flags(found: Proposal) -> dict[str, str]:
    return {part.flag: part.value for part in found.parts}


def test_propose_a_classifier(tiny: Tiny) -> None:
    found = propose(tiny.prototxt)
    assert found.missing == ()
    assert shlex.split(found.command) == [
        *("distcalib", "calibrate", "-m", str(tiny.prototxt), "-w", str(tiny.weights)),
        *("-i", "6", "-n", "accuracy-top1", "-l", "0.01", "--out", "net_int8"),
    ]
    told = {part.flag: part.why for part in found.parts}
    assert "48 records of layer 'data' in batches of 8" in told["-i"]
    assert "there is also accuracy-top2" in told["-n"]
    assert "3 of them can be INT8" in told["-m"]


def test_propose_a_detector(tiny_ssd: TinySsd) -> None:
    found = propose(tiny_ssd.prototxt)
    assert found.missing == ()
    assert flags(found)["-d"] == "1"
    assert flags(found)["-w"] == str(tiny_ssd.weights)


def test_propose_tells_what_the_last_batch_lacks(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path, edit=lambda text: text.replace("batch_size: 8", "batch_size: 9"))
    [part] = [part for part in propose(tiny.prototxt).parts if part.flag == "-i"]
    assert part.value == str(N_RECORDS // 9)
    assert part.why.endswith("in batches of 9; the last 3 do not fill a batch")


def other_caffemodel(folder: Path, name: str) -> None:
    """Of the same layers, with blobs that do not fit."""
    other = make_tiny(folder / "other")
    blobs = read_weights(other.weights)
    blobs = {**blobs, "conv2": (np.zeros((6, 9, 3, 3), np.float32), blobs["conv2"][1])}
    layers = [caffe_pb2.LayerParameter(name=one, type="Convolution") for one in blobs]
    write_weights(folder / name, "other", layers, blobs)
    shutil.rmtree(folder / "other")


def test_propose_takes_the_caffemodel_that_fits(tmp_path: Path) -> None:
    """Not the first by name, not one that cannot be read: the latest snapshot that fits."""
    tiny = make_tiny(tmp_path)
    for name in ("net_iter_900.caffemodel", "net_iter_1000.caffemodel"):
        shutil.copy(tiny.weights, tmp_path / name)
    tiny.weights.unlink()
    other_caffemodel(tmp_path, "net_iter_5000.caffemodel")
    (tmp_path / "net_iter_3000.caffemodel").write_bytes(b"not a net")
    found = propose(tiny.prototxt)
    assert flags(found)["-w"] == str(tmp_path / "net_iter_1000.caffemodel")
    assert found.missing == ()
    assert "of 4 there, the first that fits" in found.parts[1].why


def test_propose_names_the_caffemodels_that_do_not_fit(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    tiny.weights.unlink()
    for i in range(MOST_TRIED + 2):
        other_caffemodel(tmp_path, f"{i}.caffemodel")
    found = propose(tiny.prototxt)
    assert flags(found)["-w"] == "WEIGHTS.caffemodel"
    assert found.missing == (
        "net.prototxt: the blobs of 0.caffemodel, 1.caffemodel, 2.caffemodel, 3.caffemodel, 4.caffemodel (and 2 more) "
        "beside it do not fit; give the FP32 caffemodel with -w",
    )


def test_propose_takes_given_weights_and_says_what_is_wrong_with_them(tmp_path: Path, tiny: Tiny) -> None:
    assert propose(tiny.prototxt, tmp_path / "absent.caffemodel").missing != ()
    assert propose(tiny.prototxt, tiny.weights).missing == ()


def test_propose_without_data_names_the_source(tmp_path: Path, tiny: Tiny) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(tiny.prototxt.read_text().replace(str(tiny.database), "gone_lmdb"))
    found = propose(net, tiny.weights)
    [said] = found.missing
    assert said.startswith("gone_lmdb: does not exist")
    assert "-i" not in flags(found)


DEPLOY = """
name: "deploy"
input: "data"
input_shape { dim: 4 dim: 3 dim: 8 dim: 8 }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "fc" type: "InnerProduct" bottom: "conv1" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
ACCURACY = 'layer { name: "accuracy" type: "Accuracy" bottom: "prob" bottom: "label" top: "accuracy" }'


def test_propose_a_deploy_net_asks_for_arrays_and_a_score(tmp_path: Path, tiny: Tiny) -> None:
    net = tmp_path / "deploy.prototxt"
    net.write_text(DEPLOY)
    found = propose(net, tiny.weights)
    assert flags(found)["--data"] == "DATA.npz"
    assert any("numpy.savez('DATA.npz', data=...)" in said for said in found.missing)
    assert any(ACCURACY in said for said in found.missing)


def test_propose_a_deploy_net_with_what_was_missing(tmp_path: Path) -> None:
    """The layer that the sentence gives, and the arrays: then a command without a blank."""
    net = tmp_path / "deploy.prototxt"
    net.write_text(DEPLOY + ACCURACY)
    weights = {
        "conv1": (np.ones((4, 3, 3, 3), np.float32), np.zeros(4, np.float32)),
        "fc": (np.ones((5, 144), np.float32), np.zeros(5, np.float32)),
    }
    layers = text_format.Parse(DEPLOY, caffe_pb2.NetParameter()).layer
    write_weights(tmp_path / "deploy.caffemodel", "d", layers, weights)
    data = tmp_path / "test.npz"
    np.savez(data, data=np.zeros((20, 3, 8, 8), np.float32), label=np.zeros(20, np.float32))
    found = propose(net, data=data)
    assert found.missing == ()
    assert flags(found)["-i"] == "5"
    assert flags(found)["--data"] == str(data)
    assert flags(found)["-n"] == "accuracy"


def test_propose_data_without_an_end_leaves_a_blank(tmp_path: Path, tiny: Tiny) -> None:
    text = tiny.prototxt.read_text()
    begin, end = text.index('layer { name: "data"'), text.index('layer { name: "conv1"')
    dummy = (
        'layer { name: "noise" type: "DummyData" top: "data" top: "label" dummy_data_param {\n'
        "  shape { dim: 8 dim: 3 dim: 8 dim: 8 } shape { dim: 8 } } }\n"
    )
    net = tmp_path / "net.prototxt"
    net.write_text(text[:begin] + dummy + text[end:])
    found = propose(net, tiny.weights)
    assert flags(found)["-i"] == "N"
    [said] = found.missing
    assert "layer 'noise' does not tell how many records it has" in said


def test_propose_a_net_that_is_scored_by_its_loss(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    kept = [one for one in tiny.prototxt.read_text().split("layer {") if "Accuracy" not in one]
    tiny.prototxt.write_text("layer {".join(kept))
    found = propose(tiny.prototxt)
    assert flags(found)["-n"] == "loss"
    assert any("the lower the better" in part.why for part in found.parts)
    assert found.missing == ()


def test_propose_sends_a_quantized_net_elsewhere(tmp_path: Path) -> None:
    quantization = "quantization_param { bw_layer_in: 8 scale_in: 1 scale_out: 1 scale_params: 1 }"
    tiny = make_tiny(
        tmp_path, edit=lambda text: text.replace('name: "conv2" type', f'{quantization} name: "conv2" type', 1)
    )
    found = propose(tiny.prototxt)
    assert any("is quantized already: `distcalib evaluate` measures it" in said for said in found.missing)


def test_propose_a_database_smaller_than_a_batch(tmp_path: Path, tiny: Tiny) -> None:
    net = tmp_path / "net.prototxt"
    small = write_datums(tmp_path / "small", [raw_datum(np.zeros((3, 8, 8), np.uint8), 0)])
    net.write_text(tiny.prototxt.read_text().replace(str(tiny.database), str(small)))
    found = propose(net, tiny.weights)
    assert flags(found)["-i"] == "1", "one record that is read again until the batch is full"


def test_propose_asks_for_what_calibrate_would_refuse(tmp_path: Path, tiny: Tiny) -> None:
    """Arrays of unequal length pair wrongly as soon as the shorter one begins anew: -s reads 10 iterations."""
    net, data = tmp_path / "deploy.prototxt", tmp_path / "test.npz"
    net.write_text(DEPLOY + ACCURACY)
    np.savez(data, data=np.zeros((20, 3, 8, 8), np.float32), label=np.zeros(24, np.float32))
    found = propose(net, tiny.weights, data, at_least=10)
    assert any("different numbers of records" in said for said in found.missing)


def test_propose_keeps_the_limit_that_was_given(tiny: Tiny) -> None:
    assert flags(propose(tiny.prototxt, largest_mb=77))["--largest-mb"] == "77"
