"""The size that an encoded image declares, read from its first bytes: before a decoder makes room for it.

OpenCV (4.x) has a limit of its own, 2^30 pixels, and asks for the memory of a PNG's chunk before it sees that the file
has no such bytes. Formats that are not here are left to that."""

from __future__ import annotations

import struct

from distcalib.data.limits import over_limit

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_BEHIND = 2**24  # a chunk may end so far behind the end of the file: a decoder tells a cut-off image better
_SIZELESS = (0xC4, 0xC8, 0xCC)  # among JPEG's markers of frames those that are none


def size_fault(encoded: bytes) -> str | None:
    """Why an image would be too large to decode, to follow "record KEY "; None if it is not, or does not tell."""
    chunk = _longest_png_chunk(encoded) if encoded.startswith(_PNG) else 0
    if chunk > len(encoded) + _MOST_BEHIND:
        return f"is a PNG of {len(encoded)} bytes, of which a part is to have {chunk}; write it again or leave it out"
    try:
        size = declared_size(encoded)
    except (struct.error, IndexError, ValueError):  # cut off: the decoder says so
        return None
    if size is None:
        return None
    wrong = over_limit(size[0] * size[1] * 4)
    return f"is an image of {size[0]} x {size[1]} pixels: {wrong}; leave it out, or raise the limit" if wrong else None


def declared_size(encoded: bytes) -> tuple[int, int] | None:
    """(width, height) of a PNG, JPEG, BMP, GIF, WebP or PNM; None for another. struct.error where it is cut off."""
    if encoded.startswith(_PNG):
        width, height = struct.unpack_from(">II", encoded, 16)
    elif encoded.startswith(b"\xff\xd8"):
        return _jpeg_size(encoded)
    elif encoded.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", encoded, 18)
    elif encoded.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", encoded, 6)
    elif encoded.startswith(b"RIFF") and encoded[8:12] == b"WEBP":
        return _webp_size(encoded)
    elif encoded[:1] == b"P" and encoded[1:2].isdigit():
        words = b" ".join(line.partition(b"#")[0] for line in encoded[:512].split(b"\n")).split()
        width, height = int(words[1]), int(words[2])
    else:
        return None
    return abs(width), abs(height)


def _longest_png_chunk(encoded: bytes) -> int:
    at, longest = len(_PNG), 0
    while at + 8 <= len(encoded):
        length = int.from_bytes(encoded[at : at + 4], "big")
        longest = max(longest, at + length)
        at += length + 12
    return longest


def _jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(encoded):
        if encoded[at] != 0xFF:
            at += 1
            continue
        marker = encoded[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _SIZELESS:
            height, width = struct.unpack_from(">HH", encoded, at + 5)
            return width, height
        standalone = marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8
        at += (1 if marker == 0xFF else 2) if standalone else 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return None


def _webp_size(encoded: bytes) -> tuple[int, int] | None:
    kind = encoded[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(encoded[24:27], "little"), 1 + int.from_bytes(encoded[27:30], "little")
    if kind == b"VP8L":
        [bits] = struct.unpack_from("<I", encoded, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", encoded, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
