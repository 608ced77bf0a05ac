"""Kernels are told from their names, and OpenVINO has more than one way to write them."""

import pytest

from distcalib.engine.spec import Row, is_int8_kernel
from distcalib.session.evaluate import without_kernel


@pytest.mark.parametrize(
    ("name", "is_int8"),
    [
        ("brgconv_avx512_I8", True),
        ("brgconv_avx512_amx_I8", True),
        ("brgconv_avx512_amx_i8", True),
        ("jit_gemm_i8", True),
        ("brgconv_avx512_f32", False),
        ("ref_any_f32", False),
        ("", False),
    ],
)
def test_int8_kernels_are_known_by_their_names(name: str, is_int8: bool) -> None:
    assert is_int8_kernel(name) == is_int8
    assert without_kernel(["conv1"], [Row({}, (), {"conv1": name})]) == (() if is_int8 else ("conv1",))
