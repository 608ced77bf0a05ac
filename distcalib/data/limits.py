"""How much may be made of a small file: an image of 42 bytes can declare gigabytes, and an archive can unpack to them.

One limit for all: the bytes that one image, value, row or array may take unpacked. It is in the environment, since the
actors have it from the driver."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

from distcalib.errors import OptionError

VARIABLE = "DISTCALIB_LARGEST_MB"
FLAG = "--largest-mb"
DEFAULT_MB = 1024
"""268 million pixels of four bytes: more than any camera's image, less than an actor's share of memory."""

MOST_ELEMENTS = 2**31
"""Caffe counts the elements of a blob in an int."""


def most_bytes() -> int:
    """The limit."""
    given = os.environ.get(VARIABLE, "")
    return (int(given) if given.isascii() and given.isdigit() else DEFAULT_MB) * 2**20


def check_largest(megabytes: int | None) -> None:
    """Raise OptionError for less than one."""
    if megabytes is not None and megabytes < 1:
        raise OptionError(f"{FLAG} {megabytes}: must be at least 1; leave it out for {DEFAULT_MB}")


@contextmanager
def limited(megabytes: int | None) -> Iterator[None]:
    """Inside the block the limit is so many megabytes; None: what it was."""
    before = os.environ.get(VARIABLE)
    if megabytes is not None:
        os.environ[VARIABLE] = str(megabytes)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def over_limit(n_bytes: int) -> str | None:
    """That so many bytes are too many, to follow "is ", "would be " and the like; None if they are not."""
    if n_bytes <= most_bytes():
        return None
    return f"{_megabytes(n_bytes)} unpacked, and {_megabytes(most_bytes())} are the limit ({FLAG})"


def too_many(shape: tuple[int, ...]) -> bool:
    """Whether no blob of Caffe's can have this shape."""
    return prod(shape) >= MOST_ELEMENTS or max(shape, default=0) >= MOST_ELEMENTS


def _megabytes(n_bytes: int) -> str:
    return f"{-(-n_bytes // 2**20):,} MB"
