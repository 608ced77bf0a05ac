"""Images that declare more than they are."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from distcalib.data.datum import AS_STORED, BadRecord, decode
from distcalib.data.image_size import declared_size, size_fault
from distcalib.data.limits import VARIABLE
from tests.data.databases import noise


def png(width: int, height: int, idat: int | None = None) -> bytes:
    """A PNG that declares this size; `idat`: what its data claim to be long, if they are empty."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    begin = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return begin + (chunk(b"IDAT", zlib.compress(b"")) if idat is None else struct.pack(">I", idat) + b"IDAT")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".ppm"])
def test_declared_size_is_that_of_the_decoder(suffix: str) -> None:
    _, encoded = cv2.imencode(suffix, noise(31, 47, 3))
    assert declared_size(encoded.tobytes()) == (47, 31)
    assert size_fault(encoded.tobytes()) is None


def test_declared_size_reads_a_gif() -> None:
    assert declared_size(b"GIF89a" + struct.pack("<HH", 47, 31)) == (47, 31)


def test_declared_size_knows_lossy_and_extended_webp() -> None:
    for quality in (80, 101):  # above 100 is lossless
        _, encoded = cv2.imencode(".webp", noise(31, 47, 3), [cv2.IMWRITE_WEBP_QUALITY, quality])
        assert declared_size(encoded.tobytes()) == (47, 31)
    extended = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (46).to_bytes(3, "little") + (30).to_bytes(3, "little")
    assert declared_size(extended) == (47, 31)


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (png(32000, 32000), "is an image of 32000 x 32000 pixels: 3,907 MB unpacked, and 1,024 MB are the limit"),
        (png(2, 2, 2**31 - 1), "is a PNG of 41 bytes, of which a part is to have 2147483680"),
        (b"BM" + bytes(16) + struct.pack("<ii", 60000, -60000), "is an image of 60000 x 60000 pixels: 13,733 MB"),
        (b"P6\n# a comment\n99999 99999\n255\n", "is an image of 99999 x 99999 pixels"),
    ],
    ids=["pixels", "chunk", "upside down", "PNM"],
)
def test_decode_refuses_what_would_be_too_large(encoded: bytes, said: str) -> None:
    with pytest.raises(BadRecord) as refused:
        decode(encoded, AS_STORED)
    assert str(refused.value).startswith(said)


def test_decode_heeds_the_limit_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = cv2.imencode(".png", np.zeros((600, 600), np.uint8))[1].tobytes()
    assert decode(encoded, AS_STORED).shape == (600, 600, 1)
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(BadRecord, match=r"2 MB unpacked, and 1 MB are the limit \(--largest-mb\); leave it out"):
        decode(encoded, AS_STORED)


@pytest.mark.parametrize("encoded", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xc0", b"BM", b"GIF89a", b"P5", b"RIFF"])
def test_size_fault_leaves_what_is_cut_off_to_the_decoder(encoded: bytes) -> None:
    assert size_fault(encoded) is None
