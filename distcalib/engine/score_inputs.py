"""Which values of a net are compared to tell what quantization does to its score."""

from distcalib.caffe.graph import Blob, Node
from distcalib.data import DATA_TYPES
from distcalib.engine.net import Net
from distcalib.engine.unconverted import device_outputs
from distcalib.metrics import HOST_TYPES, SCORE_TYPES


def score_inputs(net: Net, metric: str) -> tuple[Blob, ...]:
    """The values to compare: what the layer of the score `metric` reads first (logits, say), of detections the first
    two (boxes and confidences) that they are made from; or, if that is data or there is no score (""), all that the net
    hands out.  Other outputs do not count: auxiliary heads are not what the user asks about.
    """
    read = [node.bottoms[0] for node in net.graph if node.type in SCORE_TYPES and node.tops[0].name == metric]
    makers = [net.graph.producer[blob] for blob in read]
    read = [bottom for maker, blob in zip(makers, read, strict=True) for bottom in _made_from(maker, blob)]
    blobs = tuple(blob for blob in read if net.graph.producer[blob].type not in DATA_TYPES)
    return blobs or device_outputs(net.graph)


def _made_from(maker: Node, blob: Blob) -> tuple[Blob, ...]:
    """The first two bottoms of what makes detections on the host; else the blob itself."""
    return maker.bottoms[:2] if maker.type in HOST_TYPES else (blob,)
