"""The shapes of a net before anything of it is allocated, in one place: what is wrong with them is raised here, by the
driver and before actors are started, or shown by `inspect`, in the same words."""

from collections.abc import Mapping

from distcalib.caffe.graph import Blob, Graph
from distcalib.engine.builder import Shapes, layer_shapes
from distcalib.errors import UnsupportedError
from distcalib.layers import ZeroBlobs


def checked_shapes(graph: Graph, shapes: Shapes, where: str) -> Mapping[Blob, tuple[int, ...]]:
    """The shape of every value, from `shapes`, those of the data layers' tops; whatever the weights.

    Raises one error that names every layer that cannot be run."""
    value_shapes, problems = layer_shapes(graph, ZeroBlobs(), shapes, where)
    if problems:
        kinds = {type(problem) for problem in problems}
        kind = kinds.pop() if len(kinds) == 1 else UnsupportedError
        raise kind("; ".join(dict.fromkeys(map(str, problems))))
    return value_shapes
