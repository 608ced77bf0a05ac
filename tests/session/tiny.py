"""A net of a few kilobytes that classifies random images, made on the spot, with one layer that INT8 ruins.

`conv3` has a weight of 1,000 at an input that is always 0: in FP32 it does nothing, but with one scale a layer all
other weights round to 0. So all INT8 loses, and `conv3` alone in FP32 does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, write_weights
from tests.data.databases import encoded_datum, raw_datum, write_datums

Array = npt.NDArray[np.float32]

N_RECORDS, BATCH, N_CLASSES = 48, 8, 5
ITERATIONS = N_RECORDS // BATCH

_CONV = """
layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"
  convolution_param {{ num_output: {n_out} kernel_size: {kernel} pad: {pad} }} }}
layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}
"""
_DATA = """
name: "tiny"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ scale: 0.01 mean_value: 127 }}
  data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }} }}
"""
_HEAD = """
layer { name: "fc" type: "InnerProduct" bottom: "conv4" top: "fc" inner_product_param { num_output: 5 } }
layer { name: "top1" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy-top1" include { phase: TEST } }
layer { name: "top2" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy-top2" include { phase: TEST }
  accuracy_param { top_k: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
_CONVS = [
    ("conv1", "data", 4, 3, 1),
    ("conv2", "conv1", 6, 3, 1),
    ("conv3", "conv2", 6, 1, 0),
    ("conv4", "conv3", 8, 3, 0),
]
QUANTIZABLE = ("conv2", "conv3", "conv4")  # conv1 is the first


@dataclass(frozen=True)
class Tiny:
    """The files of one net."""

    prototxt: Path
    weights: Path
    database: Path

    @property
    def args(self) -> list[str]:
        """-m and -w of the command line."""
        return ["-m", str(self.prototxt), "-w", str(self.weights)]


def make_tiny(
    folder: Path,
    *,
    int8_is_right: bool = False,
    source: str | None = None,
    edit: Callable[[str], str] = lambda text: text,
    name: str = "net",
    encoded: bool = False,
) -> Tiny:
    """Write the net into `folder`; its labels are what FP32 says (all but every 7th), or what the ruined net says.

    `source` is written in place of the database's path; `edit` changes the text of the prototxt.  `encoded`: the
    records are PNG images, not raw pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(1)
    images = random.randint(0, 256, (N_RECORDS, 3, 8, 8)).astype(np.uint8)
    blobs = _make_blobs(random)
    ruined = {**blobs, "conv3": (0 * blobs["conv3"][0], blobs["conv3"][1])}
    scores = _forward(images, ruined if int8_is_right else blobs)
    labels = scores.argmax(axis=1)
    if not int8_is_right:
        labels[::7] = (labels[::7] + 1) % N_CLASSES
    datums = [
        encoded_datum(np.ascontiguousarray(image.transpose(1, 2, 0)), int(label))
        if encoded
        else raw_datum(image, int(label))
        for image, label in zip(images, labels, strict=True)
    ]
    database = write_datums(folder / "db", datums)
    text = _DATA.format(source=source or database, batch=BATCH)
    for layer, bottom, n_out, kernel, pad in _CONVS:
        text += _CONV.format(name=layer, bottom=bottom, n_out=n_out, kernel=kernel, pad=pad)
    prototxt, weights = folder / f"{name}.prototxt", folder / f"{name}.caffemodel"
    net = text_format.Parse(text + _HEAD, caffe_pb2.NetParameter())
    write_weights(weights, "tiny", net.layer, blobs)
    prototxt.write_text(edit(text + _HEAD))
    return Tiny(prototxt, weights, database)


def _make_blobs(random: np.random.RandomState) -> dict[str, tuple[Array, ...]]:
    blobs: dict[str, tuple[Array, ...]] = {}
    n_in = 3
    for layer, _, n_out, kernel, _ in _CONVS:
        weight = random.standard_normal((n_out, n_in, kernel, kernel)) / np.sqrt(n_in * kernel * kernel / 2)
        blobs[layer] = weight.astype(np.float32), (0.1 * random.standard_normal(n_out)).astype(np.float32)
        n_in = n_out
    blobs["conv2"][0][5], blobs["conv2"][1][5] = 0.0, 0.0
    blobs["conv3"][0][:, 5] = 1000.0
    weight = random.standard_normal((N_CLASSES, 8 * 36)) / 12
    blobs["fc"] = weight.astype(np.float32), np.zeros(N_CLASSES, np.float32)
    return blobs


def _forward(images: npt.NDArray[np.uint8], blobs: dict[str, tuple[Array, ...]]) -> Array:
    """The scores (N, 5) by the definition of the layers."""
    x = ((images.astype(np.float64) - 127) * 0.01).astype(np.float32)
    for layer, _, _, kernel, pad in _CONVS:
        weight, bias = blobs[layer]
        padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        n_rows, n_columns = (size - kernel + 1 for size in padded.shape[2:])
        x = np.zeros((len(x), len(bias), n_rows, n_columns), np.float32) + bias[:, None, None]
        for i, j in np.ndindex(kernel, kernel):
            x += np.einsum("nchw,oc->nohw", padded[:, :, i : i + n_rows, j : j + n_columns], weight[:, :, i, j])
        x = np.maximum(x, 0)
    weight, bias = blobs["fc"]
    scores: Array = x.reshape(len(x), -1) @ weight.T + bias
    return scores
