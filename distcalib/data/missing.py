"""Which images of lists are not there: the driver looks, once, and what it saw holds for every node.

With --skip-bad-records an image that is not there is left out. If each actor looked by itself, one that a single node
lacks would be in a score or not by which node had its iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from distcalib.caffe import caffe_pb2
from distcalib.caffe.paths import resolve_path
from distcalib.data.image_list import ImageList, why_missing
from distcalib.data.source import Index


def find_missing(
    layers: Iterable[caffe_pb2.LayerParameter],
    prototxt: Path,
    indexes: Mapping[str, Index | None],
    n_iterations: int,
    looked: Callable[[int, int], None],
) -> dict[str, dict[int, str]]:
    """Of each ImageData layer the records, in the first `n_iterations`, whose files are not there, and why.

    Each file is asked for once, and not read. `looked` gets, after each, how many were, and how many there are.
    """
    lists: dict[str, tuple[ImageList, int]] = {}
    for layer in layers:
        if layer.type == "ImageData":
            param, index = layer.image_data_param, indexes[layer.name]
            images = ImageList(resolve_path(param.source, prototxt), param.root_folder, prototxt, index)
            lists[layer.name] = images, min(n_iterations * int(param.batch_size), images.index.n_records)
    missing: dict[str, dict[int, str]] = {}
    n_looked, total = 0, sum(n_records for _, n_records in lists.values())
    for name, (images, n_records) in lists.items():
        missing[name] = {}
        for line in images.beginning(n_records):
            if wrong := why_missing(line.file):
                missing[name][line.number - 1] = wrong
            n_looked += 1
            looked(n_looked, total)
    return missing
