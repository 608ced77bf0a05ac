"""One iteration of a net on random weights and inputs, in this process, without its data.

What `distcalib evaluate` does with a caffemodel and a test set, as far as the net itself goes: each layer is converted,
compiled and run, and every score is taken."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov

from distcalib.caffe.graph import Blob
from distcalib.caffe.phase import PLAIN, State
from distcalib.data import VARIES, open_source
from distcalib.engine.builder import build_model
from distcalib.engine.net import Net, make_net, open_net
from distcalib.engine.worker import data_nodes
from distcalib.errors import DataError, UnsupportedError
from distcalib.layers import RandomBlobs, ZeroBlobs
from distcalib.metrics import HOST_TYPES, SCORE_TYPES, make_layer, score_layer
from distcalib.session.checks import unopened
from distcalib.session.inspect import data_shapes

ASSUMED = (3, 224, 224)
"""Channels, height and width of data that are absent and of which the prototxt tells nothing."""
SIZES = ((224, 224), (473, 473), (321, 321), (360, 480), (512, 512))
"""Sizes that are assumed of images, in this order: of classifiers, PSPNet, DeepLab, SegNet, SSD."""
FEATURES = 512
"""Features of an image that are assumed where the data go into a distance: those of NormFace."""
SEGMENTS = 3
"""Stretches of a video that are assumed to lie in an image's channels: those of temporal segment networks."""
CLIP = (16, 112, 112)
"""Frames, height and width that are assumed of a video: those of C3D."""
CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
#: The scores that are taken: those of a detection need boxes.
SCORED = SCORE_TYPES - {"DetectionEvaluate", "EvalDetection"}


def run_once(path: Path, state: State = PLAIN) -> Mapping[str, npt.NDArray[np.float32]]:
    """The outputs of the net by blob, of random inputs; raises UnsupportedError where an output is no number.

    Where the size of absent data is assumed, of SIZES the first is taken that all layers fit; where none fits, the
    error is that of the first.
    """
    net = open_net(path, state=state)
    first: UnsupportedError | None = None
    for size in SIZES if lacks_data(net) else SIZES[:1]:
        try:
            return _run(net, (ASSUMED[0], *size), state)
        except UnsupportedError as error:
            first = first or error
    assert first is not None
    raise first


def lacks_data(net: Net) -> bool:
    """Whether the size of some data is assumed: their files are not there, or code makes them."""
    if unopened(net):
        return True
    for node in data_nodes(net.graph):
        try:
            open_source(node.layer, net.path).close()
        except DataError:
            return True
    return False


def _run(net: Net, assumed: tuple[int, int, int], state: State) -> Mapping[str, npt.NDArray[np.float32]]:
    shapes = data_shapes(net, ZeroBlobs(), [], otherwise=assumed)
    own = {top: _assumed(net, Blob(top, 0), shapes[top], assumed) for node in unopened(net) for top in node.layer.top}
    if own:  # as --data would feed them
        net = make_net(net.path, net.full, own, state)
        shapes = data_shapes(net, ZeroBlobs(), [], otherwise=assumed)
    rng = np.random.default_rng(0)
    built = build_model(net.graph, RandomBlobs(0), shapes, net.name)
    compiled = ov.Core().compile_model(built.model, "CPU", CONFIG)
    made = {top: _made(rng, top, shape) for top, shape in shapes.items() if VARIES not in shape}
    results = compiled([made[name] for name in built.inputs])
    values = {Blob(name, 0): value for name, value in made.items()}
    values.update((blob, np.array(results[i])) for i, blob in enumerate(built.outputs))
    for node in net.graph:
        if node.type in HOST_TYPES - SCORE_TYPES and all(blob in values for blob in node.bottoms):
            values[node.tops[0]] = make_layer(node.layer, [values[blob] for blob in node.bottoms])
        if node.type in SCORED and all(blob in values for blob in node.bottoms):
            with contextlib.suppress(*([UnsupportedError] if own else [])):  # labels of a shape that was only assumed
                score_layer(node.layer, [values[blob] for blob in node.bottoms], [0])
    outputs = {str(blob): values[blob] for blob in built.outputs}
    wrong = [name for name, value in outputs.items() if not np.isfinite(value).all()]
    if wrong and not any(node.type in HOST_TYPES for node in net.graph):
        raise UnsupportedError(f"{net.name}: {', '.join(wrong)} are no numbers")
    return outputs


def _assumed(net: Net, blob: Blob, guess: tuple[int, ...], assumed: tuple[int, int, int]) -> tuple[int, ...]:
    """The shape of a top of a layer that makes data in a way of its own, by what reads it."""
    for reader in net.graph.consumers.get(blob, ()):
        if reader.type in ("ROIPooling", "PSROIPooling", "ROIAlign") and reader.bottoms[1:2] == (blob,):
            return (1, 5)
        dims = list(reader.layer.reshape_param.shape.dim)
        if reader.type == "Reshape" and len(dims) == 4 and dims[0] == -1 and min(dims[1:]) > 0:
            return (guess[0], SEGMENTS * dims[1], *dims[2:])
        if reader.type == "MaskPooling" and reader.bottoms[1:] == (blob,):
            return (1, 1, 14, 14)
        if reader.type == "FrcnnOutput" and reader.bottoms[3:] == (blob,):
            return (1, 2)
        if reader.type in ("InnerDistance", "Normalize", "NormFaceInnerProduct"):
            return (guess[0], FEATURES)
        if reader.type == "Convolution" and len(reader.layer.convolution_param.kernel_size) == 3:
            return (guess[0], assumed[0], *CLIP)
        if reader.type in ("Concat", "Convolution", "DepthwiseConvolution"):
            return (guess[0], *assumed)
    return guess


def _made(rng: np.random.Generator, top: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Labels of class 0 where the name says so, else small numbers."""
    if "label" in top or len(shape) < 2:
        return np.zeros(shape, np.float32)
    return rng.standard_normal(shape).astype(np.float32)
