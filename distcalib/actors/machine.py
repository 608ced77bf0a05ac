"""What a machine has beside its cores: instruction sets as oneDNN names them, and memory within its container's limit.

All is read below a root that stands for `/`, so a recorded tree tests it."""

from collections.abc import Iterator
from pathlib import Path

ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"  # what oneDNN may use at the most; read once, when it is loaded

# oneDNN's names, widest first, and the CPU flag that tells them.
_LEVELS = (
    ("AVX512_CORE_AMX", "amx_int8"),
    ("AVX512_CORE_VNNI", "avx512_vnni"),
    ("AVX512_CORE", "avx512bw"),
    ("AVX2_VNNI", "avx_vnni"),
    ("AVX2", "avx2"),
)


def usable_isas(cpuinfo: str, limit: str = "") -> tuple[str, ...]:
    """oneDNN's names of what a CPU has, widest first, from the text of /proc/cpuinfo; `limit`: ONEDNN_MAX_CPU_ISA."""
    flags = set(_field(cpuinfo, "flags").split())
    names = tuple(name for name, flag in _LEVELS if flag in flags)
    if limit.upper() not in names:
        return names
    below = names[names.index(limit.upper()) :]  # AVX-512 without VNNI does not include the VNNI of AVX2
    return tuple(name for name in below if name != "AVX2_VNNI" or limit.upper() == "AVX2_VNNI")


def cpu_model(cpuinfo: str) -> str:
    """The name that the CPU gives itself, or "" where /proc/cpuinfo has none."""
    return " ".join(_field(cpuinfo, "model name").split())


def memory(root: Path = Path("/")) -> tuple[int, int]:
    """Bytes that processes here may have in all, and those still free; the container's limit is heeded.

    Page cache that the kernel would give back counts as free, in /proc/meminfo as in the container.
    """
    meminfo = read_text(root / "proc/meminfo")
    total, free = (1024 * int((_field(meminfo, name).split() or ["0"])[0]) for name in ("MemTotal", "MemAvailable"))
    for limit, used in _limits(root / "sys/fs/cgroup", read_text(root / "proc/self/cgroup")):
        total, free = min(total, limit), min(free, max(0, limit - used))
    return total, free


def _limits(mount: Path, cgroups: str) -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of each cgroup of the process that has a limit, and of their ancestors."""
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        names = ("memory.max", "memory.current", "inactive_file")
        if controllers:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        for root in [mount / "memory"] if controllers else [mount, mount / "unified"]:
            for folder in ancestors(root, path):
                limit, used = read_text(folder / names[0]).strip(), read_text(folder / names[1]).strip()
                if limit.isdigit():  # "max": none; version 1 says so by a number near 2**63, which min() passes over
                    cached = _field(read_text(folder / "memory.stat"), names[2], " ")
                    yield int(limit), int(used or 0) - int(cached or 0)


def ancestors(mount: Path, path: str) -> Iterator[Path]:
    """`mount`/`path` and every folder up to `mount`; inside a container the path may name the host's tree,
    which is not mounted there, but the mount's own root then holds the container's files."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _field(text: str, name: str, colon: str = ":") -> str:
    """What stands behind the first `name` and the colon in a text of such lines."""
    for line in text.splitlines():
        key, _, value = line.partition(colon)
        if key.strip() == name:
            return value.strip()
    return ""


def read_text(path: Path) -> str:
    """What is in a file of the kernel's, or "" where it has none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def oom_kills(root: Path = Path("/")) -> int:
    """How often the kernel has killed a process for lack of memory, in a container or anywhere, since it started."""
    for line in read_text(root / "proc/vmstat").splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return 0
