"""The chunks of a ranking, divided among actors where there are more of them than chunks.

A piece has some of the candidates of its chunk, or some of the iterations, and what all pieces run before the cut is
the same.  So no distance depends on how a chunk is divided, and the times that this goes by, which were measured, may
differ from run to run.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from distcalib.engine.spec import NetSpec

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """Some candidates of a chunk on some iterations; `begin` and `head` are those of the chunk, `chunk` its names."""

    chunk: tuple[str, ...]
    begin: int
    head: NetSpec
    candidates: Mapping[str, NetSpec]
    iterations: tuple[int, ...]


@dataclass(frozen=True)
class Pace:
    """Seconds of an actor: to compile a net, and for an iteration of it in FP32 and in INT8."""

    compiling: float
    fp32: float
    int8: float


@dataclass(frozen=True)
class Most:
    """Into how many pieces a chunk may be divided, and its candidates into how many parts."""

    pieces: int
    parts: int


def most_pieces(
    chunks: Sequence[tuple[int, Mapping[str, NetSpec]]], reference: Mapping[int, Sequence[Array]], n_bytes: int
) -> Most:
    """As many as take `n_bytes` of a node's object store for a chunk: every piece carries the weights that are not
    those of the file, and every part of the candidates the whole reference."""
    changed = {id(blob): blob.nbytes for _, chunk in chunks for one in chunk.values() for blob in _changed(one)}
    compared = sum(array.nbytes for values in reference.values() for array in values)
    return Most(max(1, n_bytes // max(1, sum(changed.values()))), max(1, n_bytes // max(1, compared)))


def _changed(spec: NetSpec) -> Iterator[Array]:
    return (blob for blobs in spec.changed.values() for blob in blobs)


def divided(
    chunks: Sequence[tuple[int, Mapping[str, NetSpec]]],
    iterations: Sequence[int],
    n_actors: int,
    most: Most,
    pace: Pace,
) -> Iterator[Piece]:
    """The chunks, on all iterations, in pieces for `n_actors`, so that the longest takes as short as can be.

    Candidates are divided where compiling takes longest, for those of a piece are compiled one after the other, and
    iterations where running does.
    """
    span = 1 + max((begin for begin, _ in chunks), default=0)
    ways = [_ways(begin / span, len(chunk), len(iterations), n_actors, most, pace) for begin, chunk in chunks]
    chosen = [way[0] for way in ways]
    slowest = [(-way[0].seconds, place, way[1:]) for place, way in enumerate(ways)]
    heapq.heapify(slowest)
    n_spare = n_actors - len(chunks)
    while slowest:  # the slowest is divided further, as long as that takes no more actors than there are
        _, place, faster = heapq.heappop(slowest)
        if faster and faster[0].n_pieces - chosen[place].n_pieces <= n_spare:
            n_spare -= faster[0].n_pieces - chosen[place].n_pieces
            chosen[place] = faster[0]
            heapq.heappush(slowest, (-faster[0].seconds, place, faster[1:]))
    for way, (begin, chunk) in zip(chosen, chunks, strict=True):
        head = next(iter(chunk.values()))
        for names in _cut(list(chunk), way.n_parts):
            for block in _cut(iterations, way.n_blocks):
                yield Piece(tuple(chunk), begin, head, {name: chunk[name] for name in names}, tuple(block))


@dataclass(frozen=True)
class _Way:
    """Into how many parts the candidates of a chunk are divided, and into how many blocks the iterations; `seconds` of
    the longest piece."""

    seconds: float
    n_parts: int
    n_blocks: int

    @property
    def n_pieces(self) -> int:
        return self.n_parts * self.n_blocks


def _ways(head: float, n_candidates: int, n_iterations: int, n_actors: int, most: Most, pace: Pace) -> Sequence[_Way]:
    """How a chunk can be divided, from not at all to the fastest; `head` is the part of the net before it."""
    ways: list[_Way] = []
    n_pieces = max(1, min(n_actors, most.pieces))
    for n_parts in range(1, min(n_candidates, n_pieces, most.parts) + 1):
        n_tails = -(-n_candidates // n_parts)
        compiling = (head + n_tails * (1.0 - head)) * pace.compiling
        running = head * pace.fp32 + n_tails * (1.0 - head) * pace.int8
        for n_blocks in range(1, min(n_iterations, n_pieces // n_parts) + 1):
            ways.append(_Way(compiling + -(-n_iterations // n_blocks) * running, n_parts, n_blocks))
    better: list[_Way] = []
    for way in sorted(ways, key=lambda way: (way.n_pieces, way.seconds)):
        if not better or way.seconds < better[-1].seconds:
            better.append(way)
    return better


_T = TypeVar("_T")


def _cut(items: Sequence[_T], n: int) -> Iterator[Sequence[_T]]:
    """`items` in n parts of neighbours, as even as can be."""
    for i in range(n):
        yield items[len(items) * i // n : len(items) * (i + 1) // n]
