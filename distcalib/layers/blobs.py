"""Where a layer's weights come from: a caffemodel, or a stand-in for it.

Unlike Caffe, a layer whose weights the caffemodel lacks is an error. Caffe keeps the random filler there and goes on,
and an accuracy of such a net is a number about nothing. Who wants a net without a caffemodel asks for RandomBlobs or
ZeroBlobs.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from distcalib.caffe.sharing import Place, Share
from distcalib.errors import WeightsError

FloatArray = npt.NDArray[np.float32]

Role = Literal["", "mean", "variance", "factor", "scale", "slope"]
"""What a blob means, for RandomBlobs only. "" is told by the rank: weights from two axes on, else a bias."""

ROLES: Mapping[tuple[str, int], Role] = MappingProxyType(
    {
        ("BatchNorm", 0): "mean",
        ("BatchNorm", 1): "variance",
        ("BatchNorm", 2): "factor",
        ("BatchNorm", 3): "scale",
        ("BN", 0): "scale",
        ("BN", 1): "mean",
        ("BN", 2): "mean",
        ("BN", 3): "variance",
        ("Scale", 0): "scale",
        ("PReLU", 0): "slope",
        ("Normalize", 0): "scale",
    }
)
"""Layer type and blob index -> role, where the rank does not tell."""


class Blobs(Protocol):
    """The weights of a net, by layer name and blob index."""

    def count(self, layer: str) -> int | None:
        """The number of blobs stored for `layer` (0 if it is not there); None if any number can be made up."""

    def get(self, layer: str, index: int, shape: tuple[int, ...], role: Role = "") -> FloatArray:
        """Blob `index` of `layer` as float32 of exactly `shape`; WeightsError if there is no such blob."""


class FileBlobs:
    """The blobs of a caffemodel, checked against the shape that the layer asks for."""

    def __init__(
        self,
        weights: Mapping[str, tuple[FloatArray, ...]],
        source: str,
        shared: Mapping[Place, Share] = MappingProxyType({}),
    ) -> None:
        """`weights` as caffe.share returns them for the net; `source` is the file's name for messages.

        `shared` are the net's shared blobs, from caffe.shared_params.
        """
        self.weights = weights
        self._source = source
        self._shared = shared

    def count(self, layer: str) -> int:
        """The number of blobs that the caffemodel has for `layer`; 0 if it is not there."""
        return len(self.weights.get(layer, ()))

    def get(self, layer: str, index: int, shape: tuple[int, ...], role: Role = "") -> FloatArray:
        """The stored blob, reshaped to `shape` if it is stored in the legacy 4-D form (num, channels, height, width).

        Raises WeightsError if the layer or the blob is absent or the shapes differ (Blob::ShapeEquals of Caffe).
        """
        blobs = self.weights.get(layer)
        if not blobs:
            raise WeightsError(
                f"{self._source}: {self._absent(layer)}; give the caffemodel that belongs to this prototxt"
            )
        if index >= len(blobs):
            raise WeightsError(
                f"{self._source}: layer '{layer}' has {len(blobs)} of the blobs, and blob {index} of shape "
                f"{_text(shape)} is needed; correct the prototxt (bias_term and the like) or give its own caffemodel"
            )
        stored = blobs[index]
        # Blobs written before Caffe had N-D shapes are always 4-D, left-padded with ones: a bias is (1, 1, 1, M).
        legacy = (1,) * (4 - len(shape)) + shape
        is_scalar = not shape and stored.size == 1
        share = self._shared.get((layer, index))
        as_many = share is not None and share.permissive and stored.size == math.prod(shape)
        if not is_scalar and not as_many and stored.shape not in (shape, legacy):
            other = share is not None and share.owner != (layer, index)
            of_both = f", shared with layer '{share.owner[0]}' (param '{share.param}')," if share and other else ""
            raise WeightsError(
                f"{self._source}: layer '{layer}': blob {index}{of_both} has shape {_text(stored.shape)} but the "
                f"prototxt needs {_text(shape)}; correct the layer's parameters or give the caffemodel that belongs "
                "to this prototxt"
            )
        return stored.reshape(shape)

    def _absent(self, layer: str) -> str:
        if layer in self.weights:
            return f"layer '{layer}' has no blobs there but needs some"
        alike = difflib.get_close_matches(layer, self.weights, n=1)
        return f"layer '{layer}' is not there" + (f" ('{alike[0]}' is)" if alike else "")


MOST_VALUES = 2**29
"""Of all blobs together: protobuf parses no message over 2 GiB. Anything larger is a typing error, and would be put
into memory before that shows."""


class RandomBlobs:
    """Weights drawn from a seed, the layer's name and the blob's index alone: the same everywhere and in any order.

    Magnitudes keep activations of one order through a deep net: weights N(0, 2/fan_in) (He et al. 2015), which ReLU
    nets preserve; batch statistics near those of such activations; scales below one on average, for sums add up.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def count(self, layer: str) -> None:
        """None: as many as are asked for."""
        return None

    def get(self, layer: str, index: int, shape: tuple[int, ...], role: Role = "") -> FloatArray:
        """Blob `index` of `layer`, float32 of `shape`, with the distribution of its role."""
        digest = hashlib.sha256(f"{self._seed}/{layer}/{index}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
        if role == "factor":
            return np.ones(shape, np.float32)
        if role in ("variance", "scale", "slope"):
            low, high = {"variance": (0.5, 1.5), "scale": (0.6, 1.2), "slope": (0.05, 0.45)}[role]
            return np.asarray(rng.uniform(low, high, shape), np.float32)
        normal: FloatArray = np.asarray(rng.standard_normal(shape, np.float32))
        if len(shape) >= 2:
            normal *= np.float32(math.sqrt(2 / max(1, math.prod(shape[1:]))))
        else:
            normal *= np.float32(0.1)
        return normal


class ZeroBlobs:
    """Zeros of any shape that a caffemodel could hold: for shapes and graphs, where values do not matter."""

    def __init__(self) -> None:
        self._n_values: dict[tuple[str, int], int] = {}

    def count(self, layer: str) -> None:
        """None: as many as are asked for."""
        return None

    def get(self, layer: str, index: int, shape: tuple[int, ...], role: Role = "") -> FloatArray:
        """Zeros, read-only: one element seen through `shape`. WeightsError for more than a caffemodel can have."""
        self._n_values[layer, index] = math.prod(shape)
        if sum(self._n_values.values()) > MOST_VALUES:
            raise WeightsError(
                f"layer '{layer}': its blob {index} of shape {_text(shape)} does not go into a caffemodel, which has "
                f"{MOST_VALUES:,} values at most; correct the layer's parameters"
            )
        return np.broadcast_to(np.float32(0), shape)


def _text(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"
