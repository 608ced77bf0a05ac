"""What of a net the compiled model holds, and what of it cannot be converted."""

from collections.abc import Sequence

from distcalib.caffe.graph import Blob, Graph
from distcalib.data import DATA_TYPES
from distcalib.errors import UnsupportedError
from distcalib.layers import layer_refusal
from distcalib.metrics import HOST_TYPES


def device_outputs(graph: Graph) -> tuple[Blob, ...]:
    """What the model must yield: what host layers (losses, accuracies, detections) read, and the net's outputs, of all
    that no host layer makes.
    """
    wanted: set[Blob] = set(graph.outputs)
    wanted.update(blob for node in graph if node.type in HOST_TYPES for blob in node.bottoms)
    return tuple(sorted(blob for blob in wanted if graph.producer[blob].type not in DATA_TYPES | HOST_TYPES))


def unconverted(graph: Graph, where: str) -> list[str]:
    """A sentence for each type in `graph` that cannot be run, with its layers and the reason."""
    known = DATA_TYPES | HOST_TYPES
    names_of: dict[tuple[str, str], list[str]] = {}
    for node in graph:
        if node.type not in known and (reason := layer_refusal(node.layer)) is not None:
            names_of.setdefault((node.type, reason), []).append(node.name)
    return [f"{where}: {_layers(names)} ({kind}): {reason}" for (kind, reason), names in names_of.items()]


def _layers(names: Sequence[str], most: int = 3) -> str:
    """`layer 'a'`, `layers 'a', 'b'`, `layers 'a', 'b', 'c' and 4 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"layer{'s' if names[1:] else ''} " + ", ".join(f"'{name}'" for name in names[:most]) + more


def refuse_unconverted(graph: Graph, where: str) -> None:
    """Raise UnsupportedError naming every layer of `graph` whose type cannot be run."""
    reasons = unconverted(graph, where)
    if reasons:
        raise UnsupportedError("; ".join(reasons))
