"""A prototxt as a run needs it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import (
    Weights,
    caffe_pb2,
    read_label_map,
    read_net,
    read_weights,
    resolve_path,
    resolve_sources,
    share,
    test_net,
)
from distcalib.caffe.graph import Graph, build_graph
from distcalib.caffe.infogain import add_matrices
from distcalib.caffe.names import name_apart
from distcalib.caffe.phase import PLAIN, State, in_test
from distcalib.caffe.several import split_several
from distcalib.data import add_absent, array_shapes, feed
from distcalib.engine.spec import Kept, NetSpec, Outputs, Sampling
from distcalib.errors import DataError, FormatError, UnsupportedError
from distcalib.layers import too_few
from distcalib.metrics import LOSS_TYPES, name_of_losses


@dataclass(frozen=True)
class Net:
    """A prototxt, read: all phases as they are written out again, and the TEST net as it is measured."""

    path: Path
    full: caffe_pb2.NetParameter
    test: caffe_pb2.NetParameter
    graph: Graph
    renamed: tuple[str, ...] = ()
    """A sentence for each layer that has another name here than in the file, or is several."""
    fed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of the arrays that take the place of what data layers read, by top."""
    state: State = PLAIN
    """What --stage and --level say."""

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.path.name

    def remade(self, full: caffe_pb2.NetParameter) -> "Net":
        """The net with other parameters in its layers, all phases."""
        return replace(make_net(self.path, full, self.fed, self.state), renamed=self.renamed)

    @property
    def class_names(self) -> dict[int, str]:
        """By label, where an AnnotatedData layer names a label map that is there."""
        files = [layer.annotated_data_param.label_map_file for layer in self.test.layer]
        return {
            label: name
            for file in filter(None, files)
            for label, name in read_label_map(resolve_path(file, self.path)).items()
        }

    def weights(self, path: Path) -> Weights:
        """The blobs of the caffemodel `path` as this net's layers see them, shared ones included."""
        return share(self.test.layer, read_weights(path), str(path))

    def spec(
        self,
        sampling: Sampling | None = None,
        changed: Mapping[str, tuple[NDArray[np.float32], ...]] | None = None,
        outputs: Outputs | None = None,
        kept: Kept | None = None,
        by_image: str = "",
    ) -> NetSpec:
        """The TEST net as a program to be compiled; its paths are absolute, since an actor has a folder of its own."""
        return NetSpec(self.as_bytes(self.test), self.name, sampling, changed or {}, outputs, kept, by_image)

    def as_bytes(self, test: caffe_pb2.NetParameter) -> bytes:
        """`test`, this TEST net or one made of it, as programs have it."""
        net = caffe_pb2.NetParameter()
        net.CopyFrom(test)
        resolve_sources(net, self.path)
        text: bytes = net.SerializeToString(deterministic=True)
        return text


def open_net(path: Path, data: Path | None = None, state: State = PLAIN) -> Net:
    """Read the prototxt `path`; arrays in the file `data` take the place of what data layers of their tops read.

    The stages of `state` become the net's own, and stand in what is written.

    Raises FormatError, also for a caffemodel, which is a binary net with blobs, and DataError.
    """
    full = read_net(path, state)
    full.state.stage.extend(stage for stage in state.stages if stage not in full.state.stage)
    if any(layer.blobs for layer in full.layer):
        raise FormatError(f"{path}: is a caffemodel, not a prototxt; give the prototxt as -m and the caffemodel as -w")
    renamed = name_apart(in_test(full, state), {layer.name for layer in full.layer})
    renamed += split_several(full, state)
    return replace(make_net(path, full, array_shapes(data) if data else {}, state), renamed=tuple(renamed))


def make_net(
    path: Path,
    full: caffe_pb2.NetParameter,
    fed: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
    state: State = PLAIN,
) -> Net:
    """A net from its layers; `path` is where its relative paths start and what messages call it."""
    test = test_net(full, state, path.name)
    add_matrices(test, path)
    name_of_losses(test, LOSS_TYPES)
    add_absent(full, test, path.name, state.stages)
    read = {blob for layer in test.layer for blob in layer.bottom}
    inputs = [shape.dim[0] for layer in test.layer for shape in layer.input_param.shape if shape.dim]
    try:
        for layer in test.layer:
            feed(layer, fed, read, otherwise=inputs[0] if inputs else 1)  # labels go with images of an Input layer
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from None
    _refuse_counts(test, path.name)
    graph = build_graph(test.layer, path.name)
    return Net(path, full, test, graph, fed=fed, state=state)


def _refuse_counts(test: caffe_pb2.NetParameter, where: str) -> None:
    """Raise UnsupportedError naming every layer that lacks bottoms or tops: what looks at the graph later takes for
    granted that a convolution has one of each."""
    faults = [
        f"{where}: layer '{layer.name}' ({layer.type}): {fault}"
        for layer in test.layer
        if layer.type != "Silence" and (fault := too_few(layer)) is not None
    ]
    if faults:
        raise UnsupportedError("; ".join(faults))
