"""`--ship-data`: the records go to the actors through Ray's object store, for nodes that cannot open the data.

What cannot be sent, and what does not fit, is refused before anything is: a store that is too small would not fail, but
have Ray move records to disk and back without an end.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from distcalib.actors import Cargo
from distcalib.actors.nodes import NodeInfo
from distcalib.data import UNSHIPPABLE, Chunk, Shipment
from distcalib.engine.net import Net
from distcalib.engine.worker import data_nodes
from distcalib.errors import OptionError, UnsupportedError
from distcalib.session.progress import Reporter

STORE_SHARE = 0.8
"""Of an object store that may be taken: rows pass through it, too, and candidates beside those that are counted."""
_PROGRAMS = 2
"""What compiled nets take at a time, in weights: one in FP32, or four in INT8, and as much that is on its way out."""


def check_ship_data(ship_data: bool, root: str | Path | None) -> None:
    """Raise OptionError where `caffe test` is to measure, which opens its data itself."""
    if ship_data and root is not None:
        raise OptionError("--ship-data: `caffe test` opens its data itself, so -r cannot go with it; leave out one")


def refuse_unshippable(net: Net) -> None:
    """Raise UnsupportedError that names all data layers which cannot be sent."""
    problems = [
        f"layer '{node.name}' ({node.type}) {UNSHIPPABLE[node.type]}"
        for node in data_nodes(net.graph)
        if node.type in UNSHIPPABLE
    ]
    if problems:
        raise UnsupportedError(f"{net.name}: --ship-data: {'; '.join(problems)}, and leave out --ship-data")


def refuse_too_large(shipment: Shipment, nodes: Sequence[NodeInfo], weight_bytes: int = 0) -> None:
    """Raise OptionError that names all nodes whose object stores cannot hold the records beside the net."""
    n_net = (1 + _PROGRAMS) * weight_bytes
    n_bytes = shipment.n_bytes + n_net
    small = [node for node in nodes if n_bytes > STORE_SHARE * node.store_bytes]
    if small:
        has = ", ".join(f"{megabytes(node.store_bytes)} on {node.label}" for node in small)
        beside = f", beside {megabytes(n_net)} of weights and compiled nets," if n_net else ""
        needed = 10**6 * math.ceil(n_bytes / STORE_SHARE / 1e6)
        raise OptionError(
            f"--ship-data: {megabytes(shipment.n_bytes)} of records{beside} do not fit into {STORE_SHARE:.0%} of "
            f"Ray's object store, which has {has}; start Ray there with --object-store-memory={needed} and give its "
            "--address, measure fewer iterations, or put the data where every node opens them"
        )


def cargo_of(shipment: Shipment, batch: int, reporter: Reporter, all_read: Callable[[], None]) -> Cargo:
    """The chunks of `shipment` for the pool; each is shown by the `reporter`. `all_read` is called once that is so."""
    return Cargo(partial(_sent, shipment, batch, reporter, all_read))


def megabytes(n_bytes: int) -> str:
    """Bytes as a person says them; never less than 0.1 MB."""
    return f"{max(n_bytes / 1e6, 0.1):,.1f} MB"


def _sent(
    shipment: Shipment, batch: int, reporter: Reporter, all_read: Callable[[], None], nodes: Sequence[NodeInfo]
) -> Iterator[Chunk]:
    to = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    longest = max((index.n_records for index in shipment.indexes.values() if index is not None), default=0)
    total, n_iterations = shipment.n_bytes, min(shipment.n_iterations, -(-longest // batch))
    reporter.phase(f"sending {megabytes(total)} of records to {to}", n_iterations, batch)
    sent = 0
    for chunk in shipment.chunks():
        yield chunk
        sent += chunk.content.nbytes
        if sent < total:  # a file may have grown since
            reporter.advance(n_iterations * sent // total, n_iterations)
    all_read()
    reporter.advance(n_iterations, n_iterations)
