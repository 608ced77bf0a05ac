"""What -fu does to the padding of the first convolution, which Intel Caffe's data layer does in its place.

It frames encoded images with pixels of 0, which are no zeros of the net, and raw records not at all: then each map of
the net is smaller than in FP32, and a layer whose weights are for one size no longer fits
(docs/decisions/007-a-first-convolution-on-u8.md).  So that is looked at before anything is measured.
"""

from pathlib import Path

from distcalib.caffe import caffe_pb2, shared_params
from distcalib.caffe.graph import build_graph
from distcalib.data import open_source
from distcalib.engine.builder import layer_shapes
from distcalib.engine.net import Net
from distcalib.engine.worker import data_nodes
from distcalib.errors import UnsupportedError
from distcalib.layers import FileBlobs
from distcalib.quantize.force_u8 import move_pad
from distcalib.quantize.quantizer import Quantizer


def frame_note(net: Net, quantizer: Quantizer, weights: Path, skip_bad: bool) -> str | None:
    """What -fu will do to the padding of the first convolution of `net`; None where that does not pad.

    Raises UnsupportedError where the net cannot run without the padding, DataError where the data cannot be read.
    """
    assert quantizer.first is not None, "refuse_unforceable lets no net without a first convolution pass"
    group = quantizer.groups[quantizer.first]
    data = quantizer.graph.producer[group.input]
    test = caffe_pb2.NetParameter()
    test.CopyFrom(net.test)
    made = {layer.name: layer for layer in test.layer}
    moved, convolution = made[data.name], made[group.name]
    if not move_pad(moved, convolution):
        return None
    where = f"{net.name}: -fu: layer '{group.name}' (Convolution)"
    shapes: dict[str, tuple[int, ...]] = {}
    for node in data_nodes(net.graph):
        source = open_source(made[node.name], net.path, skip_bad=skip_bad)
        shapes.update(source.shapes)
        source.close()
    if shapes[group.input.name][2:] != _plain_size(data.layer, net.path, skip_bad):
        return (
            f"{where} pads, and with -fu Intel Caffe's data layer frames the images with pixels of 0 instead, which "
            "are no zeros: the score shows what that costs"
        )
    blobs = FileBlobs(net.weights(weights), weights.name, shared_params(test.layer))
    _, errors = layer_shapes(build_graph(test.layer, net.name), blobs, shapes, net.name)
    if errors:
        raise UnsupportedError(
            f"{where} pads, and with -fu Intel Caffe's data layer would, which leaves raw records unpadded; without "
            f"padding the net cannot run ({'; '.join(map(str, errors))}); encode the records (convert_imageset "
            "--encoded), or leave out -fu"
        )
    return (
        f"{where} pads, and with -fu Intel Caffe's data layer would, which leaves raw records unpadded: the maps of "
        "the net are smaller, and the score shows what that costs; encode the records, or leave out -fu"
    )


def _plain_size(layer: caffe_pb2.LayerParameter, prototxt: Path, skip_bad: bool) -> tuple[int, ...]:
    """Height and width of what the data layer gives without a frame."""
    source = open_source(layer, prototxt, skip_bad=skip_bad)
    try:
        return source.shapes[layer.top[0]][2:]
    finally:
        source.close()
