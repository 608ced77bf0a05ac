"""Memory that OpenVINO may use where it lies, though NumPy calls it read-only.

What comes out of Ray's object store is mapped by every actor of a node, and NumPy is told that nobody may write there;
pyopenvino takes no array for its memory that it could not write to, and would have it copied: 528 MB an actor for
VGG-16.  It writes to no constant and to no model that it imports: tests/engine/test_shared_memory.py has both in memory
that the kernel protects, where a write would end the process.
"""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""A cache line: what begins on one is used where it lies, all else the CPU plugin copies.  Ray's store aligns so."""


def lent(array: NDArray[Any]) -> NDArray[Any]:
    """A view of the C-contiguous `array` that says it can be written to, and keeps `array` alive; nothing is copied."""
    if array.flags.writeable or not array.nbytes:
        return array
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    memory.owner = array  # type: ignore[attr-defined]  # ctypes knows only the address
    view: NDArray[Any] = np.ndarray(array.shape, array.dtype, memoryview(memory))
    return view


def is_lendable(array: NDArray[Any]) -> bool:
    """Whether OpenVINO would use `array` as it lies."""
    return bool(array.flags.c_contiguous) and array.ctypes.data % ALIGNMENT == 0
