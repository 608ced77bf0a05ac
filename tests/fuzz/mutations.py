"""Files that went wrong: a good one after some edits."""

import random
from collections.abc import Sequence

Edit = tuple[int, int, int]
"""What is done, where (of 2^16 parts of the file), and with which number."""

KINDS = 12
_NUMBERS = ("0", "-1", "1", "2147483647", "2147483648", "4294967295", "9223372036854775807", "1e999", "nan", "65536")
_BYTES = (0x00, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x7B, 0x20)
_DIGITS = b"0123456789"


def edited(good: bytes, edits: Sequence[Edit], other: bytes = b"") -> bytes:
    """`good` after the edits, one after the other; `other` is what pieces are taken from."""
    data = bytearray(good)
    for kind, where, value in edits:
        at = where * max(1, len(data)) >> 16
        if kind == 0 and data:
            data[at] ^= 1 << value % 8
        elif kind == 1 and data:
            data[at] = value % 256
        elif kind == 2:
            data[at:at] = bytes([_BYTES[value % len(_BYTES)]]) * (1 + value % 5)
        elif kind == 3:
            del data[at : at + 1 + value % 64]
        elif kind == 4 and value < 128:
            del data[at:]
        elif kind == 5:
            data[at : at + 4] = (value * 0x01010101 & 0xFFFFFFFF).to_bytes(4, "little")
        elif kind == 6:  # a piece of the file once more
            data[at:at] = data[at : at + 1 + value]
        elif kind == 7 and other:
            begin = value * len(other) >> 8
            data[at : at + 32] = other[begin : begin + 32]
        elif kind >= 8:  # the next number in it, as text; often, for most is kept that way
            start = next((i for i in range(at, min(at + 4096, len(data))) if data[i] in _DIGITS), -1)
            if start >= 0:
                end = start
                while end < len(data) and data[end] in _DIGITS:
                    end += 1
                data[start:end] = _NUMBERS[value % len(_NUMBERS)].encode()
    return bytes(data)


def random_edits(rng: random.Random) -> list[Edit]:
    """One to six edits, mostly few."""
    n_edits = rng.choice((1, 1, 1, 2, 3, 6))
    return [(rng.randrange(KINDS), rng.randrange(2**16), rng.randrange(256)) for _ in range(n_edits)]
