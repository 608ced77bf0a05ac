"""A net with its weights and data, opened and checked: all that is known before any actor starts.

A wrong path costs a second here, not an hour. Blobs that do not fit and records that cannot be decoded are met by the
actors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distcalib.actors.memory import actor_bytes, refuse_large_blobs
from distcalib.caffe import Weights
from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.caffe.graph import Blob
from distcalib.data import Index, Shipment, Source, load_arrays, open_source
from distcalib.engine.batch import records_an_iteration
from distcalib.engine.checking import checked_shapes
from distcalib.engine.net import Net
from distcalib.engine.work import multiply_adds
from distcalib.engine.worker import data_nodes
from distcalib.quantize.fusion import find_fused
from distcalib.session.bad_records import refuse_unskippable
from distcalib.session.checks import check_iterations, refuse_no_numbers, refuse_other_images
from distcalib.session.lengths import Length, lengths_of, refuse_unequal, whole_iterations

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Inputs:
    """What a session measures. Shapes are those of one iteration."""

    net: Net
    weights_name: str
    """The file's, for messages."""
    weights: Weights
    arrays: Arrays | None
    """What `--data` feeds, by top."""
    indexes: Mapping[str, Index | None]
    """Of the sources of the data layers, by layer."""
    batch: int
    """Images per iteration."""
    data_shapes: Mapping[str, tuple[int, ...]]
    """Of the tops of the data layers."""
    shapes: Mapping[Blob, tuple[int, ...]]
    """Of every value."""
    lengths: tuple[Length, ...]
    n_scored: int
    """The iterations of a score: as many as were asked for, or as the data have."""
    n_iterations: int
    """How many are read at the most."""
    skips: bool
    """Whether bad records are left out."""

    @property
    def data_layers(self) -> list[LayerParameter]:
        """In net order."""
        return [node.layer for node in data_nodes(self.net.graph)]

    @property
    def weight_bytes(self) -> int:
        """What all blobs of the caffemodel take."""
        return sum(blob.nbytes for blobs in self.weights.values() for blob in blobs)

    @property
    def actor_bytes(self) -> int:
        """What an actor is likely to need."""
        return actor_bytes(self.weight_bytes, (4 * prod(shape) for shape in self.shapes.values()))

    def image_bytes(self, blobs: Sequence[Blob]) -> int:
        """What `blobs` take per image."""
        return sum(4 * prod(self.shapes[blob]) for blob in blobs) // self.batch

    def in_parts(self, blobs: Sequence[Blob], n_bytes: int) -> list[tuple[Blob, ...]]:
        """`blobs` in their order, in groups whose values take at most `n_bytes` per iteration, or are alone."""
        parts: list[list[Blob]] = []
        left = 0
        for blob in blobs:
            size = 4 * prod(self.shapes[blob])
            if not parts or size > left:
                parts.append([])
                left = n_bytes
            parts[-1].append(blob)
            left -= size
        return [tuple(part) for part in parts]

    def work(self, layers: Sequence[str]) -> dict[str, int]:
        """The multiply-adds of one image in each of `layers`."""
        groups = find_fused(self.net.graph)
        return {name: multiply_adds(groups[name].node, self.shapes) for name in layers}

    def shipment(self) -> Shipment:
        """The records of all iterations, to be sent to the actors."""
        read = [node.layer for node in self.net.graph]  # scores read files, too: the sizes of images
        return Shipment(read, self.net.path, self.indexes, self.n_iterations)


def open_inputs(
    net: Net,
    weights: Path,
    *,
    data: Path | None = None,
    n_iterations: int | None = 1,
    at_least: int = 1,
    skips: bool = False,
) -> Inputs:
    """Open the caffemodel `weights`, the arrays in `data` and the data of `net`; everything wrong with them that can be
    seen at once is raised here, as DataError, WeightsError, UnsupportedError or OptionError.

    `n_iterations`: of a score; None: as many as the data have.  `at_least`: so many are read, whatever that is.
    """
    read = net.weights(weights)
    refuse_no_numbers(read, weights, net)
    arrays = None if data is None else load_arrays(data, [node.layer for node in data_nodes(net.graph)], net.path)
    sources, indexes = open_sources(net, arrays, skips)
    data_shapes = {top: shape for _, source in sources for top, shape in source.shapes.items()}
    batch, lengths = records_an_iteration([source for _, source in sources]), lengths_of(sources, arrays)
    n_scored = whole_iterations(lengths, sources, arrays, net.name) if n_iterations is None else n_iterations
    check_iterations(n_scored)
    n_read = max(n_scored, at_least)
    refuse_unequal(lengths, n_read, net.name)
    made = checked_shapes(net.graph, data_shapes, net.name)
    shapes = {**{Blob(top, 0): shape for top, shape in data_shapes.items()}, **made}
    refuse_large_blobs(net.name, data_shapes, shapes)
    refuse_other_images(net, data_shapes, shapes, read)
    if skips:
        refuse_unskippable(net, data_shapes, shapes, batch)
    return Inputs(
        net=net,
        weights_name=weights.name,
        weights=read,
        arrays=arrays,
        indexes=indexes,
        batch=batch,
        data_shapes=data_shapes,
        shapes=shapes,
        lengths=lengths,
        n_scored=n_scored,
        n_iterations=n_read,
        skips=skips,
    )


def open_sources(
    net: Net, arrays: Arrays | None, skips: bool
) -> tuple[list[tuple[str, Source]], Mapping[str, Index | None]]:
    """The source of each data layer with the layer's name, closed again, and their indexes.  Raises DataError."""
    sources: list[tuple[str, Source]] = []
    indexes: dict[str, Index | None] = {}
    for node in data_nodes(net.graph):
        source = open_source(node.layer, net.path, arrays=arrays, skip_bad=skips)
        indexes[node.name] = source.index
        sources.append((node.name, source))
        source.close()
    return sources, indexes
