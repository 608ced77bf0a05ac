"""Machines as text, and the /sys trees they stand for: thousands of files in a few lines.

    socket S node N cpus LIST [LIST]     cores; the CPUs at the same place of two lists are siblings
    offline LIST                         present, but switched off: no topology folder, in no other list
    affinity LIST                        what a process there may use; all that are online, unless told
    cgroup LINE                          of /proc/self/cgroup
    file PATH TEXT                       any other file below /sys

A line that starts with # tells what machine it is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from distcalib.actors.topology import Topology, parse_cpu_list, read_topology

FOLDER = Path(__file__).parent / "recorded"


class Machine(NamedTuple):
    """Files below /sys, and what a process there has."""

    files: dict[str, str]
    affinity: tuple[int, ...]
    cgroups: str

    def topology(self, root: Path) -> Topology:
        """What is read from its tree, which is written below `root`."""
        return read_topology(write_tree(root, self.files), self.affinity, self.cgroups)


def read_machine(name: str) -> Machine:
    """The machine in recorded/`name`.txt."""
    text = (FOLDER / f"{name}.txt").read_text()
    lines = [line.split(maxsplit=1) for line in text.splitlines() if not line.startswith("#")]
    offline = {cpu for word, rest in lines if word == "offline" for cpu in parse_cpu_list(rest)}
    cores = [core for word, rest in lines if word == "socket" for core in _cores(rest)]
    everyone = {cpu for _, _, group in cores for cpu in group}
    files: dict[str, str] = {
        "devices/system/cpu/present": _listed(everyone),
        "devices/system/cpu/online": _listed(everyone - offline),
    }
    nodes: dict[str, set[int]] = {}
    for package, node, group in cores:
        online = set(group) - offline
        nodes.setdefault(node, set()).update(online)
        for cpu in online:
            folder = f"devices/system/cpu/cpu{cpu}/topology"
            files |= {f"{folder}/core_cpus_list": _listed(online), f"{folder}/physical_package_id": package}
    files |= {f"devices/system/node/node{node}/cpulist": _listed(cpus) for node, cpus in nodes.items()}
    files |= {path: text for word, rest in lines if word == "file" for path, text in [rest.split(maxsplit=1)]}
    allowed = [cpu for word, rest in lines if word == "affinity" for cpu in parse_cpu_list(rest)]
    cgroups = "".join(f"{rest}\n" for word, rest in lines if word == "cgroup")
    return Machine(files, tuple(allowed or sorted(everyone - offline)), cgroups)


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """`files` below `root`, each with a newline behind it as the kernel has it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def _cores(rest: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Socket, node and CPUs of each core of a line, from behind its first word."""
    package, _, node, _, *lists = rest.split()
    for group in zip(*map(parse_cpu_list, lists), strict=True):
        yield package, node, group


def _listed(cpus: set[int]) -> str:
    """In the kernel's list format, with ranges."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
