"""What goes into an exported model and what comes out, and whether its batch is open."""

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import build_graph
from distcalib.errors import DistcalibError, OptionError, UnsupportedError
from distcalib.exporters import Exported, build_export
from distcalib.layers import FileBlobs
from tests.exporters.exports import run_both
from tests.layers.harness import random

pytest.importorskip("onnxruntime")

SHAPE = (2, 3, 9, 9)
WEIGHTS = {"c": (random(4, 3, 3, 3), random(4)), "fc": (random(5, 196), random(5))}
CONV = ("c", "Convolution", "data", "c", "convolution_param { num_output: 4 kernel_size: 3 }")
Layer = tuple[str, ...]


def net(*layers: Layer, **options: object) -> Exported:
    """Layers (name, type, bottoms, tops, parameters) behind `data`."""
    text = 'layer { name: "data" type: "Input" top: "data" } '
    for name, kind, bottoms, tops, *param in layers:
        blobs = " ".join(f'bottom: "{b}"' for b in bottoms.split()) + " ".join(f' top: "{t}"' for t in tops.split())
        text += f'layer {{ name: "{name}" type: "{kind}" {blobs} {" ".join(param)} }} '
    graph = build_graph(text_format.Parse(text, caffe_pb2.NetParameter()).layer, "net")
    return build_export(graph, FileBlobs(WEIGHTS, "weights"), {"data": SHAPE}, "net", **options)  # type: ignore[arg-type]


NETS: dict[str, tuple[tuple[Layer, ...], tuple[str, ...]]] = {
    "in place on data": ((("r", "ReLU", "data", "data"),), ("data#1",)),
    "one value, two blobs": ((CONV, ("s", "Split", "c", "a b")), ("a", "b")),
    "nothing but the data": ((("d", "Dropout", "data", "d"),), ("d",)),
    "blob named as a layer": ((("c", "Convolution", "data", "x", CONV[4]), ("x", "ReLU", "x", "y")), ("y",)),
    "in place": ((CONV, ("r", "ReLU", "c", "c"), ("p", "Power", "c", "c", "power_param { shift: 1 }")), ("c",)),
    "slashes and colons": ((("a:b/c d", "ReLU", "data", "t:1"),), ("t:1",)),
    "read twice": ((CONV, ("k", "Concat", "c c", "k")), ("k",)),
    "one axis": ((("f", "Flatten", "data", "f", "flatten_param { axis: 0 }"),), ("f",)),
    "axes of the batch": ((("s", "Reshape", "data", "s", "reshape_param { shape { dim: -1 dim: 3 } }"),), ("s",)),
}


@pytest.mark.parametrize("batch", [None, 3], ids=["open", "3"])
@pytest.mark.parametrize(("layers", "names"), NETS.values(), ids=list(NETS))
def test_build_export_names_outputs_as_the_blobs(
    layers: tuple[Layer, ...], names: tuple[str, ...], batch: int | None
) -> None:
    made = net(*layers, batch=batch)
    assert (made.inputs, made.names, made.batch, made.reason) == (("data",), names, batch, "")
    x = random(batch or 5, *SHAPE[1:], seed=1)
    ir, onnx = run_both(made, {"data": x})
    assert set(ir) == set(onnx) == set(names)
    for name in names:
        assert ir[name].shape == onnx[name].shape
        assert np.abs(ir[name] - onnx[name]).max() <= 1e-4


def test_build_export_leaves_a_batch_that_a_layer_is_made_for() -> None:
    by_item = ("s", "Slice", "data", "u v", "slice_param { axis: 0 }")
    made = net(by_item)
    assert made.batch == 2
    assert made.reason == "a layer fits its batch of 2 alone"
    with pytest.raises(OptionError, match="net: --batch dynamic: a layer fits its batch of 2 alone; give --batch N"):
        net(by_item, batch="dynamic")
    with pytest.raises(DistcalibError):
        net(by_item, batch=3)


REFUSED = {
    "unknown": (("nothing",), "--outputs: no layer that is exported makes 'nothing'; choose among c, n"),
    "of the data": (("data",), "makes 'data'"),
    "folded": (("c",), "'c' is folded into the layer that follows it"),
}


@pytest.mark.parametrize(("outputs", "said"), REFUSED.values(), ids=list(REFUSED))
def test_build_export_refuses_outputs(outputs: tuple[str, ...], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        net(CONV, ("n", "ReLU", "c", "n"), outputs=outputs)


def test_build_export_takes_the_outputs_asked_for() -> None:
    made = net(CONV, ("p", "Pooling", "c", "p", "pooling_param { kernel_size: 2 }"), outputs=("p", "c"))
    assert made.names == ("p", "c")


def test_build_export_refuses_a_net_that_makes_nothing() -> None:
    with pytest.raises(UnsupportedError, match="makes no blob from its input"):
        net()
