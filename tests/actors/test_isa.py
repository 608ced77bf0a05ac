"""What is computed for --isa, and how, by what the CPU has."""

from pathlib import Path

import pytest

from distcalib.actors.isa import Isa, arithmetic_of, choose_isa, environment_of, isa_here, way_of
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.errors import OptionError

SKYLAKE = ("AVX512_CORE", "AVX2")
CASCADE = ("AVX512_CORE_VNNI", *SKYLAKE)
SAPPHIRE = ("AVX512_CORE_AMX", "AVX512_CORE_VNNI", "AVX512_CORE", "AVX2_VNNI", "AVX2")
ALDER = ("AVX2_VNNI", "AVX2")
HASWELL = ("AVX2",)


@pytest.mark.parametrize(
    ("isas", "isa", "chosen"),
    [
        (SAPPHIRE, "native", Isa("sapphirerapids", False, "avx512_core_amx")),
        (SAPPHIRE, "cascadelake", Isa("cascadelake", False, "avx512_core_vnni")),
        (SAPPHIRE, "skylake", Isa("skylake", False, "avx512_core")),
        (CASCADE, "native", Isa("cascadelake", False, "avx512_core_vnni")),
        (CASCADE, "sapphirerapids", Isa("sapphirerapids", False, "avx512_core_vnni")),
        (SKYLAKE, "native", Isa("skylake", False, "avx512_core")),
        (SKYLAKE, "sapphirerapids", Isa("sapphirerapids", True, "avx512_core")),
        (ALDER, "native", Isa("cascadelake", False, "avx2_vnni")),
        (HASWELL, "native", Isa("cascadelake", True, "avx2")),
        (HASWELL, "skylake", Isa("skylake", False, "avx2")),
        (HASWELL, "cascadelake", Isa("cascadelake", True, "avx2")),
    ],
)
def test_choose_isa_is_native_where_kernels_give_the_answer(isas: tuple[str, ...], isa: str, chosen: Isa) -> None:
    assert choose_isa(isa, isas) == chosen


def test_choose_isa_refuses_pairs_without_vectors() -> None:
    assert choose_isa("native", ()).emulated
    assert way_of("skylake", ()) == "impossible"
    with pytest.raises(OptionError, match=r"--isa skylake: pairs .*; choose cascadelake"):
        choose_isa("skylake", ())
    with pytest.raises(OptionError, match="--isa pentium: unknown; choose native, skylake, cascadelake or sapphire"):
        choose_isa("pentium", CASCADE)


@pytest.mark.parametrize(
    ("isas", "isa", "limit", "arithmetic"),
    [
        (CASCADE, "native", None, NATIVE),
        (CASCADE, "cascadelake", "AVX512_CORE_VNNI", NATIVE),
        (CASCADE, "skylake", "AVX512_CORE", Arithmetic(halved=True)),
        (SKYLAKE, "native", None, Arithmetic(halved=True)),
        (SKYLAKE, "cascadelake", None, Arithmetic(emulated=True)),
        (HASWELL, "native", None, Arithmetic(emulated=True)),
        (HASWELL, "skylake", "AVX2", Arithmetic(halved=True)),
    ],
)
def test_environment_of_holds_actors_to_it(
    isas: tuple[str, ...], isa: str, limit: str | None, arithmetic: Arithmetic
) -> None:
    found = environment_of(choose_isa(isa, isas), isa, [isas])
    assert found.get("ONEDNN_MAX_CPU_ISA") == limit
    assert arithmetic_of(found) == arithmetic


def test_environment_of_nodes_that_differ_limits_all() -> None:
    isa = choose_isa("native", SKYLAKE)
    assert environment_of(isa, "native", [SKYLAKE, CASCADE])["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE"


def test_isa_here_heeds_the_limit_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu avx avx2 avx512bw avx512_vnni avx_vnni amx_int8\n")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert str(isa_here(cpuinfo=cpuinfo)) == "sapphirerapids, native"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "avx512_core")
    assert isa_here(cpuinfo=cpuinfo) == Isa("skylake", False, "avx512_core")
    assert str(isa_here("cascadelake", cpuinfo)) == "cascadelake, emulated"
