"""What is the same in all runs: versions and instruction sets. (The actors: test_calibration, test_evaluation.)"""

from pathlib import Path

import pytest

from distcalib.run.session import measured_isa, versions


@pytest.mark.parametrize(
    ("flags", "limit", "isa"),
    [
        ("fpu avx2 avx512bw avx512_vnni amx_int8", "", "avx512_core_amx"),
        ("fpu avx2 avx512bw avx512_vnni", "", "avx512_core_vnni"),
        ("fpu avx2 avx512bw avx512_vnni amx_int8", "AVX512_CORE_VNNI", "avx512_core_vnni"),
        ("fpu avx2 avx512bw avx512_vnni amx_int8", "AVX512_CORE", "avx512_core"),
        ("fpu avx2", "AVX512_CORE", "avx2"),
        ("fpu avx2 avx512bw", "nonsense", "avx512_core"),
    ],
)
def test_measured_isa_is_the_widest_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, limit: str, isa: str
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert measured_isa(file) == isa


def test_measured_isa_elsewhere_is_the_machine(tmp_path: Path) -> None:
    assert measured_isa(tmp_path / "none")


def test_versions_name_what_a_score_depends_on() -> None:
    assert versions().keys() == {"distcalib", "openvino", "ray", "numpy", "python"}
