"""Clusters of machines that differ."""

import platform

import pytest

from distcalib.actors.compatibility import agreed_environment, agreed_isa, emulation_note, mixed, refuse_mixed
from distcalib.actors.isa import Isa, arithmetic_environment
from distcalib.actors.nodes import NodeInfo
from distcalib.actors.topology import Core, Topology
from distcalib.errors import MeasureError, OptionError

SKYLAKE = ("AVX512_CORE", "AVX2")
CASCADE = ("AVX512_CORE_VNNI", *SKYLAKE)
SAPPHIRE = ("AVX512_CORE_AMX", "AVX512_CORE_VNNI", "AVX512_CORE", "AVX2_VNNI", "AVX2")
ALDER = ("AVX2_VNNI", "AVX2")
SAME = {"distcalib": "1.0", "openvino": "2026.0", "opencv-python-headless": "4.9", "numpy": "2.1.0", "ray": "2.60.0"}


def node(host: str, isas: tuple[str, ...] = SKYLAKE, **versions: str) -> NodeInfo:
    topology = Topology((Core((0,), 0, 0),), None)
    return NodeInfo(host, host, topology, isas, 2**34, {**SAME, **versions}, address=f"10.0.0.{host[-1]}")


@pytest.mark.parametrize(
    ("isas", "isa", "agreed", "environment"),
    [
        ([SKYLAKE, SKYLAKE], "native", Isa("skylake", False, "avx512_core"), None),
        ([CASCADE, SKYLAKE, SAPPHIRE], "native", Isa("skylake", False, "avx512_core"), "AVX512_CORE"),
        ([SAPPHIRE, CASCADE], "native", Isa("cascadelake", False, "avx512_core_vnni"), "AVX512_CORE_VNNI"),
        ([CASCADE, SAPPHIRE], "skylake", Isa("skylake", False, "avx512_core"), "AVX512_CORE"),
        ([SAPPHIRE, SAPPHIRE], "sapphirerapids", Isa("sapphirerapids", False, "avx512_core_amx"), "AVX512_CORE_AMX"),
        ([ALDER, CASCADE], "native", Isa("cascadelake", True, "avx2"), "AVX2"),
        ([ALDER, SAPPHIRE], "native", Isa("cascadelake", False, "avx2_vnni"), "AVX2_VNNI"),
        ([CASCADE, SKYLAKE], "cascadelake", Isa("cascadelake", True, "avx512_core"), "AVX512_CORE"),
        ([CASCADE, CASCADE], "sapphirerapids", Isa("sapphirerapids", False, "avx512_core_vnni"), "AVX512_CORE_VNNI"),
    ],
    ids=[
        *("same", "three kinds", "two kinds", "asked for", "asked for the widest", "client CPU", "client and new"),
        *("emulated for one", "the newest without AMX"),
    ],
)
def test_agreed_isa_is_one_target_in_one_way(
    isas: list[tuple[str, ...]], isa: str, agreed: Isa, environment: str | None
) -> None:
    nodes = [node(f"host{i}", names) for i, names in enumerate(isas)]
    assert agreed_isa(isa, nodes) == agreed
    limit = {} if environment is None else {"ONEDNN_MAX_CPU_ISA": environment}
    assert agreed_environment(isa, nodes) == {**arithmetic_environment(agreed), **limit}


def test_emulation_note_names_who_cannot() -> None:
    nodes = [node("host0", CASCADE), node("host1", SKYLAKE), node("host2", CASCADE)]
    said = emulation_note(agreed_isa("cascadelake", nodes), nodes)
    assert said is not None
    assert said.startswith(
        "cascadelake is emulated in FP32 kernels, for host1 (10.0.0.1) cannot compute it natively (no VNNI)"
    )
    assert said.endswith("images/s do not predict the speed of INT8")
    assert emulation_note(agreed_isa("native", nodes), nodes) is None
    apart = [node("host0", CASCADE), node("host1", ALDER)]
    assert "for the nodes together cannot" in str(emulation_note(agreed_isa("native", apart), apart))


def test_agreed_isa_refuses_what_no_kernel_computes() -> None:
    nodes = [node("host0", ()), node("host1", ())]
    with pytest.raises(OptionError, match=r"--isa skylake: pairs of products .* need .* AVX2, which not every CPU of"):
        agreed_isa("skylake", nodes)
    with pytest.raises(OptionError, match="--isa pentium: unknown; choose native, skylake, cascadelake or sapphire"):
        agreed_isa("pentium", nodes)
    with pytest.raises(OptionError, match=r"no instruction set in common: host0 .* has avx512_core, host1 .* has none"):
        agreed_isa("native", [node("host0"), node("host1", ())])


def test_agreed_isa_of_nodes_without_any_is_emulated() -> None:
    nodes = [node("host0", ()), node("host1", ())]
    assert agreed_isa("native", nodes) == Isa("cascadelake", True, platform.machine())
    assert agreed_environment("native", nodes) == {"DISTCALIB_ARITHMETIC": "emulated"}


def test_refuse_mixed_lets_pass_what_does_not_matter() -> None:
    nodes = [node("host0", python="3.11.1"), node("host1", ray="2.59.1", python="3.11.2")]
    assert mixed(nodes) == []
    refuse_mixed(nodes)


def test_refuse_mixed_names_packages_versions_and_nodes() -> None:
    nodes = [node("host0"), node("host1", openvino="2025.4"), node("host2", distcalib="missing", ray="3.0.0")]
    assert mixed(nodes) == [
        "distcalib is 1.0 on host0 (10.0.0.0), host1 (10.0.0.1) and missing on host2 (10.0.0.2)",
        "openvino is 2026.0 on host0 (10.0.0.0), host2 (10.0.0.2) and 2025.4 on host1 (10.0.0.1)",
        "ray is 2 on host0 (10.0.0.0), host1 (10.0.0.1) and 3 on host2 (10.0.0.2)",
    ]
    with pytest.raises(MeasureError, match=r"^distcalib is 1.0 on .*; install the same version of each on all nodes$"):
        refuse_mixed(nodes)


def test_refuse_mixed_keeps_the_sentence_short_on_large_clusters() -> None:
    nodes = [node(f"host{i:02}") for i in range(20)] + [node("other0", numpy="1.26.4")]
    [phrase] = mixed(nodes)
    assert "host03 (10.0.0.3) and 16 more and 1.26.4 on other0" in phrase
