"""What SSDs have in common whatever their backbone is, as Caffe layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf import text_format

from distcalib.caffe import caffe_pb2

Layer = caffe_pb2.LayerParameter


def layer(text: str) -> Layer:
    """A layer from its text."""
    return text_format.Parse(text, Layer())


def joined(heads: Sequence[str], n_classes: int) -> Iterator[Layer]:
    """The outputs of all heads, named by their blobs, side by side: mbox_loc, mbox_priorbox, and the probabilities of
    the classes, mbox_conf_flatten.
    """
    for name, suffix, axis in (("mbox_loc", "_flat", 1), ("mbox_conf", "_flat", 1), ("mbox_priorbox", "", 2)):
        bottoms = " ".join(f'bottom: "{head}_{name}{suffix}"' for head in heads)
        yield layer(f'name: "{name}" type: "Concat" {bottoms} top: "{name}" concat_param {{ axis: {axis} }}')
    yield layer(f"""name: "mbox_conf_reshape" type: "Reshape" bottom: "mbox_conf" top: "mbox_conf_reshape"
        reshape_param {{ shape {{ dim: 0 dim: -1 dim: {n_classes} }} }}""")
    yield layer("""name: "mbox_conf_softmax" type: "Softmax" bottom: "mbox_conf_reshape" top: "mbox_conf_softmax"
        softmax_param { axis: 2 }""")
    yield layer("""name: "mbox_conf_flatten" type: "Flatten" bottom: "mbox_conf_softmax" top: "mbox_conf_flatten"
        flatten_param { axis: 1 }""")
