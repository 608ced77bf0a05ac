"""In which order a search takes the images: the hardest first, where they may be taken out of their batches.

That is where each image is scored by itself, once, and no layer makes something of several: then the same images in
other batches have the same answers, to the bit (tests/engine/test_image_order.py, on every kind of kernel).  Elsewhere
the order of the data stays, and the report says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from distcalib.actors import Job
from distcalib.caffe.graph import Blob, Node
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.net import Net
from distcalib.engine.worker import data_nodes
from distcalib.metrics import HOST_TYPES, Drawing, ImageOrder
from distcalib.session.by_record import has_row_a_record, mixes

_PICKED = frozenset({"Data", "HDF5Data", "ImageData", "Input"})
"""Data layers whose records are the same whatever stands beside them in the batch."""

_APART = frozenset((
    "AbsVal", "ArgMax", "Axpy", "BN", "BNLL", "BatchNorm", "Bias", "Clip", "Concat", "Convolution", "Crop",
    "Deconvolution", "Dropout", "ELU", "Eltwise", "Embed", "Exp", "Flatten", "HardSwish", "InnerProduct",
    "Interp", "LRN", "Log", "MVN", "Mul", "Normalize", "PReLU", "Permute", "Pooling", "Power", "ReLU", "ReLU6",
    "Reduction", "Reorg", "Reshape", "SPP", "Scale", "ShuffleChannel", "Sigmoid", "Silence", "Slice", "Softmax",
    "SpatialDropout", "Split", "Squeeze", "Swish", "TanH", "Threshold", "Tile", "Upsample",
))  # fmt: skip
"""Layer types that make a row of their tops from the same row of their bottoms, unless `mixes` or `_by_place`."""


def why_natural(net: Net, metric: str, shapes: Mapping[Blob, tuple[int, ...]], options: CalibrationOptions) -> str:
    """Why the images must stay in the order of the data; "" if they need not."""
    if options.quantize_model:
        return "nothing is measured"
    if options.root is not None:
        return "Intel Caffe reads the data as they lie"
    score = next(node for node in net.graph if node.tops and node.tops[0].name == metric)
    if score.type != "Accuracy":
        return f"'{metric}' ({score.type}) is not an accuracy"
    if score.layer.accuracy_param.HasField("ignore_label"):
        return f"'{metric}' ignores a label"
    sources = data_nodes(net.graph)
    others = [node for node in sources if node.type not in _PICKED]
    if others:
        return f"{_named(others)} does not read images by number"
    return _mixing(net, score, shapes)


def order_text(order: ImageOrder | Drawing | None, natural: str) -> str:
    """What the report says of the order; `natural`: why it is that of the data."""
    if order is None:
        return f"natural: {natural}"
    return "hard first" if isinstance(order, ImageOrder) else "by doubt"


def _mixing(net: Net, score: Node, shapes: Mapping[Blob, tuple[int, ...]]) -> str:
    """Where images are not apart."""
    answers, labels = (shapes[blob] for blob in score.bottoms[:2])
    batch = answers[0]
    if prod(labels) != batch:
        return f"'{score.tops[0].name}' counts more than one label for an image"
    computed = [node for node in net.graph if node.type not in HOST_TYPES]
    odd = [top for node in computed for top in node.tops if top in shapes and not has_row_a_record(shapes[top], batch)]
    if odd:
        return f"blob '{odd[0].name}' has no row for each image"
    computed = [node for node in computed if node.type not in _PICKED]
    unknown = [node for node in computed if node.type not in _APART or mixes(node, shapes, batch) or _by_place(node)]
    return f"{_named(unknown)} makes something of several images" if unknown else ""


def _by_place(node: Node) -> bool:
    """Whether the layer has weights for each place of the batch."""
    axes = {"Scale": node.layer.scale_param.axis, "Bias": node.layer.bias_param.axis}
    return len(node.bottoms) == 1 and axes.get(node.type) == 0


def _named(nodes: Sequence[Node]) -> str:
    return f"layer '{nodes[0].name}' ({nodes[0].type})"


def at_home(job: Job, order: ImageOrder | Drawing, n_actors: int) -> Job:
    """`job`, of batches of `order` as they are wanted, with each at the actor that has met most of its images."""
    wanted = job.order or range(job.n_iterations)
    homes = order.homes(wanted, n_actors)
    ranks = {batch: rank for rank, batch in enumerate(wanted)}
    batches = tuple(batch for home in homes for batch in home)
    return replace(job, order=batches, homes=tuple(map(len, homes)), ranks=tuple(ranks[batch] for batch in batches))
