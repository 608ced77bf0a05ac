"""Which instruction set is asked for, and whether the CPU has it."""

from pathlib import Path

import pytest

from distcalib.errors import OptionError
from distcalib.run.isa import ISAS, isa_environment, measured_isa

SKYLAKE = "fpu avx avx2 avx512f avx512bw avx512vl"
CASCADE = f"{SKYLAKE} avx512_vnni"
SAPPHIRE = f"{CASCADE} avx_vnni amx_int8"


@pytest.fixture
def cpuinfo(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\nflags\t\t: {request.param}\n")
    return path


@pytest.mark.parametrize(
    ("cpuinfo", "isa", "measured"),
    [
        (SKYLAKE, "native", "avx512_core"),
        (CASCADE, "native", "avx512_core_vnni"),
        (SAPPHIRE, "native", "avx512_core_amx"),
        (SAPPHIRE, "skylake", "avx512_core"),
        (SAPPHIRE, "cascadelake", "avx512_core_vnni"),
        ("fpu avx avx2", "native", "avx2"),
    ],
    indirect=["cpuinfo"],
)
def test_measured_isa_is_the_widest_that_is_allowed(
    cpuinfo: Path, isa: str, measured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert measured_isa(isa, cpuinfo) == measured


@pytest.mark.parametrize("cpuinfo", [SAPPHIRE], indirect=True)
def test_measured_isa_heeds_the_environment(cpuinfo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx512_core_vnni")
    assert measured_isa("native", cpuinfo) == "avx512_core_vnni"


@pytest.mark.parametrize("cpuinfo", [SAPPHIRE], indirect=True)
@pytest.mark.parametrize("isa", list(ISAS))
def test_isa_environment_limits_onednn(cpuinfo: Path, isa: str) -> None:
    wanted = ISAS[isa]
    assert isa_environment(isa, cpuinfo) == ({"ONEDNN_MAX_CPU_ISA": wanted} if wanted else {})


@pytest.mark.parametrize("cpuinfo", [CASCADE], indirect=True)
def test_isa_environment_refuses_what_the_cpu_lacks(cpuinfo: Path) -> None:
    with pytest.raises(
        OptionError, match="--isa sapphirerapids: this CPU does not have avx512_core_amx, avx512_core_vnni is"
    ):
        isa_environment("sapphirerapids", cpuinfo)
    with pytest.raises(OptionError, match="--isa pentium: is none; native, skylake"):
        isa_environment("pentium", cpuinfo)


def test_measured_isa_elsewhere_is_the_machine(tmp_path: Path) -> None:
    assert measured_isa("native", tmp_path / "none")
