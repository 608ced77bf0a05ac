"""Messages about layers in place: what of them is computed as in Caffe, and what is refused."""

from distcalib.caffe.graph import Graph
from distcalib.caffe.in_place import in_place_faults, in_place_notes
from distcalib.engine.net import Net
from distcalib.errors import UnsupportedError
from distcalib.quantize.fusion import find_fused

IN_PLACE_FLAG = "--allow-overwritten"


def in_place_warnings(net: Net) -> list[str]:
    """A sentence for each layer in place whose result is something else in Caffe."""
    return [f"{net.name}: {said}" for _, said in in_place_faults(net.graph)]


def shared_notes(net: Net) -> list[str]:
    """A sentence for each layer in place that, as in Caffe, computes another thing than it seems."""
    return [f"{net.name}: {said}" for _, said in in_place_notes(net.graph, _fused_sums(net.graph))]


def refuse_in_place(net: Net) -> None:
    """Raise UnsupportedError for layers in place that Caffe refuses, or that read what they have overwritten."""
    problems = in_place_warnings(net)
    if problems:
        raise UnsupportedError(
            f"{'; '.join(problems)}; to calibrate as if they had tops of their own, give {IN_PLACE_FLAG}"
        )


def _fused_sums(graph: Graph) -> set[int]:
    """The Eltwise layers that Intel Caffe computes inside a convolution."""
    groups = find_fused(graph).values()
    return {group.eltwise.index for group in groups if group.eltwise is not None}
