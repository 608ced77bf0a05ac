"""Instruction sets and memory of recorded machines."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from distcalib.actors.machine import cpu_model, memory, oom_kills, usable_isas

SKYLAKE = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8180 CPU @ 2.50GHz
flags\t\t: fpu avx avx2 avx512f avx512dq avx512cd avx512bw avx512vl
bugs\t\t: spectre_v1

processor\t: 1
flags\t\t: fpu
"""


@pytest.mark.parametrize(
    ("flags", "limit", "isas"),
    [
        ("avx2 avx512f avx512bw", "", ("AVX512_CORE", "AVX2")),
        ("avx2 avx512bw avx512_vnni", "", ("AVX512_CORE_VNNI", "AVX512_CORE", "AVX2")),
        ("avx2 avx512bw avx512_vnni", "avx512_core", ("AVX512_CORE", "AVX2")),
        ("avx2 avx512bw avx512_vnni", "AVX512_CORE_AMX", ("AVX512_CORE_VNNI", "AVX512_CORE", "AVX2")),
        (
            "avx2 avx_vnni avx512bw avx512_vnni amx_int8",
            "",
            ("AVX512_CORE_AMX", "AVX512_CORE_VNNI", "AVX512_CORE", "AVX2_VNNI", "AVX2"),
        ),
        ("avx2 avx_vnni", "", ("AVX2_VNNI", "AVX2")),
        ("avx", "", ()),
    ],
    ids=["Skylake", "Cascade Lake", "limited", "limit it lacks", "Sapphire Rapids", "Alder Lake", "too old"],
)
def test_usable_isas_are_onednns_widest_first(flags: str, limit: str, isas: tuple[str, ...]) -> None:
    assert usable_isas(f"processor : 0\nflags : {flags}\n", limit) == isas


def test_usable_isas_and_cpu_model_read_the_first_cpu() -> None:
    assert usable_isas(SKYLAKE) == ("AVX512_CORE", "AVX2")
    assert cpu_model(SKYLAKE) == "Intel(R) Xeon(R) Platinum 8180 CPU @ 2.50GHz"
    assert (usable_isas(""), cpu_model("")) == ((), "")


MEMINFO = {"proc/meminfo": "MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  600 kB\n"}
V1 = {"proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n"}
V2 = {"proc/self/cgroup": "0::/pod/box\n"}


@pytest.mark.parametrize(
    ("files", "total_kb", "free_kb"),
    [
        ({}, 1000, 600),
        (V2 | {"sys/fs/cgroup/memory.max": "max"}, 1000, 600),
        (V2 | {"sys/fs/cgroup/memory.max": "409600", "sys/fs/cgroup/memory.current": "102400"}, 400, 300),
        (
            V2
            | {
                "sys/fs/cgroup/pod/memory.max": "409600",
                "sys/fs/cgroup/pod/memory.current": "307200",
                "sys/fs/cgroup/pod/memory.stat": "anon 1\ninactive_file 204800\nactive_file 7\n",
                "sys/fs/cgroup/pod/box/memory.max": "max",
            },
            400,
            300,
        ),
        (
            V1
            | {
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "204800",
                "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "307200",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            200,
            0,
        ),
    ],
    ids=["no container", "v2 no limit", "v2", "v2 parent's limit, page cache", "v1 beyond its limit"],
)
def test_memory_heeds_the_container(tmp_path: Path, files: Mapping[str, str], total_kb: int, free_kb: int) -> None:
    for name, text in (MEMINFO | dict(files)).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory(tmp_path) == (1024 * total_kb, 1024 * free_kb)


def test_memory_of_this_machine_is_some() -> None:
    total, free = memory()
    assert total >= free > 0


def test_memory_without_proc_is_unknown(tmp_path: Path) -> None:
    assert memory(tmp_path) == (0, 0)


@pytest.mark.parametrize(
    ("text", "n"), [("nr_free_pages 8\noom_kill 3\ndrop_slab 1\n", 3), ("nr_free_pages 8\n", 0), (None, 0)], ids=str
)
def test_oom_kills_are_those_of_the_kernel(text: str | None, n: int, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/vmstat").write_text(text)
    assert oom_kills(tmp_path) == n
