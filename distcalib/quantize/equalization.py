"""--equalize: cross-layer equalization, weights whose channels are of one size.

An output channel of the first layer and the same input channel of the second are brought to the same largest weight,
√(r1·r2), so that neither layer has channels that its one scale does not fit. A middle layer of a chain (a depthwise
one, say) is in two pairs, so the pairs are gone through until nothing changes. Factors are powers of two: they miss the
middle by half a bit at the most, and the FP32 net computes the same to the last bit (it is measured all the same).
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction (2019), section 4.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe import Weights, shared_params
from distcalib.caffe.graph import Blob, Graph
from distcalib.quantize.channels import by_channel, divide_input, only_reader, scale_output
from distcalib.quantize.fusion import Fused, affine, fold

# Two pairs that share a layer come to rest geometrically; chains longer than this come close.
MAX_SWEEPS = 40


@dataclass(frozen=True)
class Equalized:
    """The blobs that changed, by layer, and the pairs of layers that are scaled against each other; `factors`: by what
    the channels (C,) of the values between the two are multiplied."""

    blobs: Mapping[str, tuple[NDArray[np.float32], ...]]
    pairs: Mapping[str, str]
    factors: Mapping[Blob, NDArray[np.float64]]

    @property
    def largest(self) -> float:
        """By how much a channel is multiplied or divided at the most."""
        return max((float(max(one.max(), 1.0 / one.min())) for one in self.factors.values()), default=1.0)


@dataclass(frozen=True)
class _Pair:
    first: Fused
    second: Fused
    between: tuple[Blob, ...]


def between_pairs(graph: Graph, groups: Mapping[str, Fused]) -> frozenset[Blob]:
    """The values whose channels may be scaled."""
    return frozenset(blob for pair in _pairs(graph, groups) for blob in pair.between)


def equalize(graph: Graph, groups: Mapping[str, Fused], weights: Weights) -> Equalized:
    """Equalize each pair of layers of which the second alone reads the first; layers that share blobs are left out."""
    pairs = _pairs(graph, groups)
    changed = dict(weights)
    touched: dict[str, NDArray[np.float64]] = {}
    for _ in range(MAX_SWEEPS):
        settled = True
        for pair in pairs:
            first, second = pair.first, pair.second
            factors = _factors(first, second, changed)
            if (factors != 1.0).any():
                settled = False
                touched[first.name] = touched.get(first.name, 1.0) * factors
                scale_output(first, changed, factors)
                divide_input(second.node, changed, factors)
        if settled:
            break
    new = {name: blobs for name, blobs in changed.items() if blobs is not weights[name]}
    scaled = [pair for pair in pairs if pair.first.name in touched]
    by_blob = {blob: touched[pair.first.name] for pair in scaled for blob in pair.between}
    return Equalized(new, {pair.first.name: pair.second.name for pair in scaled}, by_blob)


def _pairs(graph: Graph, groups: Mapping[str, Fused]) -> list[_Pair]:
    shared = {name for name, _ in shared_params([node.layer for node in graph])}
    pairs = []
    for group in groups.values():
        found = only_reader(graph, group)
        if found is not None:
            second = groups[found[0].name]
            if not shared & {node.name for node in (*group.members, *second.members)}:
                pairs.append(_Pair(group, second, found[1]))
    return pairs


def _factors(first: Fused, second: Fused, weights: Weights) -> NDArray[np.float64]:
    """By what each channel (C,) between the two is multiplied, a power of two; 1 for one without weights at an end."""
    made = fold(first, weights)[0]
    largest = np.abs(made.reshape(len(made), -1)).max(axis=1).astype(np.float64)
    slope = np.ones(1) if second.batch_norm is None else affine(second, weights)[0]
    reads = by_channel(second.node, weights[second.name][0], len(made)).astype(np.float64)
    reads = reads * np.broadcast_to(slope, reads.shape[0] * reads.shape[1]).reshape(*reads.shape[:2], 1, 1)
    read = np.abs(reads).max(axis=(1, 3)).reshape(-1)
    alive = (largest > 0.0) & (read > 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.where(alive, np.rint(0.5 * np.log2(read / largest)), 0.0)
    return np.asarray(np.exp2(exponents), np.float64)
