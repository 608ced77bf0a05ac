"""Sums of products of integers in FP32 kernels, exact: cut where they could leave what FP32 holds exactly.

FP32 holds every integer up to 2^24, so a sum is exact, in whatever order a kernel adds, where the absolute values of
its products cannot sum up to more. With u8 inputs 518 of them are always safe, and layers of large nets have thousands:
their sum is cut along the inputs into parts, each of which is safe by its own weights, and the parts are added so that
the exact sum is rounded once, as in a conversion from int32.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Output

from distcalib.layers import Layer, inner_product
from distcalib.layers.products import product

Integers = NDArray[np.int8]
LARGEST = 2**24
"""The largest absolute value up to which FP32 holds all integers."""
_LOW = 2**12  # of each part, what is below this is added apart: both sums are exact for up to 4,096 parts


def exact_product(layer: Layer, x: Output, weight: Integers, most: int) -> Output:
    """x times W (M, ...) s8, as f32: the exact sums rounded once.  x holds integers of at most `most`.

    A Round, which changes nothing, ends each part, or OpenVINO would multiply into the weights what follows.
    """
    bounds = cuts(weight, most)
    if len(bounds) == 2:
        return _whole(product(layer, x, _constant(weight)))
    return _added([_whole(part) for part in _parts(layer, x, weight, bounds)])


def cuts(weight: Integers, most: int) -> Sequence[int]:
    """Where the inputs of each product of W (M, ...) are cut, from 0 to their number: safe parts, each as long as can
    be; between channels, but for kernels of which one alone is too much.
    """
    products = np.abs(weight.reshape(len(weight), -1).astype(np.int64)) * most
    unit = int(np.prod(weight.shape[2:], dtype=np.int64))
    if _largest(products.reshape(len(weight), -1, unit).sum(axis=2)) > LARGEST:
        unit = 1
    before = np.zeros((len(weight), 1), np.int64)
    total = np.cumsum(products, axis=1)
    places = [0]
    while _largest(total[:, -1:] - before) > LARGEST:
        first_too_many = int(np.argmax((total - before).max(axis=0) > LARGEST))
        end = first_too_many - first_too_many % unit
        places.append(end)
        before = total[:, end - 1 : end]
    return [*places, products.shape[1]]


def _parts(layer: Layer, x: Output, weight: Integers, bounds: Sequence[int]) -> Iterator[Output]:
    """The product of each part of the inputs."""
    spans = list(pairwise(bounds))
    if layer.type == "InnerProduct":
        rows = inner_product.rows_of(layer, x)
        for begin, end in spans:
            part = inner_product.times_rows(_slice(rows, begin, end), _constant(weight[:, begin:end]))
            yield inner_product.from_rows(layer, x, part)
        return
    area = int(np.prod(weight.shape[2:], dtype=np.int64))
    whole_channels = all(bound % area == 0 for bound in bounds)
    for begin, end in spans:
        if whole_channels and layer.proto.convolution_param.group == 1:
            begin, end = begin // area, end // area
            yield product(layer, _slice(x, begin, end), _constant(weight[:, begin:end]))
        else:  # rare: the other weights are zero
            part = np.zeros_like(weight).reshape(len(weight), -1)
            part[:, begin:end] = weight.reshape(len(weight), -1)[:, begin:end]
            yield product(layer, x, _constant(part.reshape(weight.shape)))


def _added(parts: Sequence[Output]) -> Output:
    """The sum of integers of up to 2^24 each, rounded once: one addition of two; of more, high and low parts are added
    exactly before.
    """
    if len(parts) == 2:
        return ops.add(*parts).output(0)
    highs = [ops.floor(ops.multiply(part, np.float32(1.0 / _LOW))).output(0) for part in parts]
    lows = [
        ops.subtract(part, ops.multiply(high, np.float32(_LOW))).output(0)
        for part, high in zip(parts, highs, strict=True)
    ]
    high, low = (reduce(lambda a, b: ops.add(a, b).output(0), terms) for terms in (highs, lows))
    return ops.add(ops.multiply(high, np.float32(_LOW)), low).output(0)


def _whole(x: Output) -> Output:
    return ops.round(x, "half_to_even").output(0)


def _constant(weight: Integers) -> Output:
    return ops.constant(weight.astype(np.float32)).output(0)


def _slice(x: Output, begin: int, end: int) -> Output:
    """x[:, begin:end]."""
    one = [np.array([value], np.int64) for value in (begin, end, 1, 1)]
    return ops.slice(x, *one).output(0)


def _largest(values: NDArray[np.int64]) -> int:
    return int(values.max(initial=0))
