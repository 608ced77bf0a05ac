"""Where a record is found that a score could not be made of, so that a person can look at it."""

from pathlib import PurePath

from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.data import NamingSource, Source


def source_of(graph: Graph, blob: Blob) -> Node:
    """The data layer that a value is made of, through the first bottoms."""
    node = graph.producer[blob]
    while node.bottoms:
        node = graph.producer[node.bottoms[0]]
    return node


def key_of(node: Node, source: Source, record: int) -> str:
    """File and key, line or row of record `record` of the data layer `node`; its number where it has none of these."""
    layer = node.layer
    params = (layer.data_param, layer.image_data_param, layer.dense_image_data_param, layer.hdf5_data_param)
    file = next((PurePath(param.source).name for param in params if param.source), "")
    key = source.key(record) if isinstance(source, NamingSource) else f"record {record}"
    if node.type in ("Data", "AnnotatedData"):
        key = f"record {key}"
    counted = ", counted from 0" if not isinstance(source, NamingSource) or node.type in ("HDF5Data", "Input") else ""
    return f"{file}: {key}{counted}" if file else f"{key}{counted}"
