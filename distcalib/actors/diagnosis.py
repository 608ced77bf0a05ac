"""What is wrong with the machines that a run would use, and how to mend it.

Pure: from what the nodes told of themselves. An error is what a run would be refused for; a warning is what makes it
slower or its times unsteady, never its result wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from distcalib.actors.compatibility import agreed_isa, emulation_note, mixed
from distcalib.actors.isa import TARGETS, Isa, way_of
from distcalib.actors.memory import BASE_BYTES
from distcalib.actors.nodes import NodeInfo, place_on_nodes
from distcalib.actors.surroundings import Lack
from distcalib.errors import OptionError

GB = 2**30
# Weights and programs travel through /dev/shm; Ray takes the disk instead where it is smaller than that.
_SHM_BYTES = 1 * GB
_BUSY = 0.25  # cores' share that other work may have before it is told


@dataclass(frozen=True)
class Finding:
    """Something wrong: on which nodes (none: with all together), what, and what would do. `refused`: no run starts."""

    refused: bool
    nodes: tuple[str, ...]
    what: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """The nodes, how many actors each gets, what all would compute and how (None: nothing), and what is wrong."""

    nodes: tuple[NodeInfo, ...]
    actors: Mapping[str, int]
    isa: Isa | None
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """Whether a run would be refused."""
        return any(finding.refused for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        nodes = [
            asdict(node) | {"actors": self.actors.get(node.node_id, 0), "targets": targets_of(node)}
            for node in self.nodes
        ]
        return {
            "ready": not self.refused,
            "isa": None if self.isa is None else self.isa.target,
            "way": None if self.isa is None else self.isa.way,
            "kernels": None if self.isa is None else self.isa.kernels,
            "nodes": nodes,
            "findings": [asdict(finding) for finding in self.findings],
        }


def targets_of(node: NodeInfo) -> dict[str, str]:
    """How the node computes each target: `native`, `emulated` or `impossible`."""
    return {target: way_of(target, node.isas) for target in TARGETS}


def diagnose(
    nodes: Sequence[NodeInfo],
    silent: Mapping[str, str] | None = None,
    isa: str = "native",
    lacks: Sequence[Lack] = (),
) -> Diagnosis:
    """What a run on `nodes` would meet; `silent`: nodes that did not tell what they are, why, and what would do;
    `lacks`: of a machine that would start a Ray of its own."""
    findings = [Finding(lack.refused, (), lack.what, lack.remedy) for lack in lacks]
    findings += [_split((label,), sentence) for label, sentence in (silent or {}).items()]
    findings += [Finding(True, (), phrase, "install the same version on all nodes") for phrase in mixed(nodes)]
    agreed: Isa | None = None
    try:
        agreed = agreed_isa(isa, nodes) if nodes else None
    except OptionError as error:
        findings.append(_split((), str(error)))
    findings += _alike([finding for node in nodes for finding in _of_node(node)])
    if agreed is not None:
        findings += _between(nodes, agreed)
    actors: dict[str, int] = {}
    for placement in place_on_nodes(nodes, None, 1) if nodes else ():
        actors[placement.node] = actors.get(placement.node, 0) + 1
    return Diagnosis(tuple(nodes), actors, agreed, tuple(sorted(findings, key=lambda finding: not finding.refused)))


def _of_node(node: NodeInfo) -> Iterator[Finding]:
    yield from _of_cores(node)
    yield from _of_memory(node)

    def warn(what: str, remedy: str) -> Finding:
        return Finding(False, (node.label,), what, remedy)

    if not node.isas:
        yield warn("the CPU has no AVX2, so INT8 is not faster than FP32", "use a machine from 2013 or later")


def _of_cores(node: NodeInfo) -> Iterator[Finding]:
    topology = node.topology

    def warn(what: str, remedy: str) -> Finding:
        return Finding(False, (node.label,), what, remedy)

    quota, n_cores = topology.quota, len(topology.cores)
    if quota is not None and quota < 1:
        yield warn(
            f"the CPU quota is {quota:g} CPUs, less than a core: the one actor is stopped most of the time",
            "give the container whole CPUs (docker --cpus, Kubernetes limits.cpu)",
        )
    elif quota is not None and quota < n_cores and quota % 1:
        yield warn(
            f"the CPU quota of {quota:g} CPUs leaves {quota % 1:.2g} of a core unused",
            "give the container a whole number of CPUs",
        )
    shared = [core for core in topology.cores if len(core.cpus) < core.n_threads]
    if shared:
        yield warn(
            f"of {len(shared)} core(s) another container or process may use the other hyper-thread: times vary",
            "give both threads of a core to one container (docker --cpuset-cpus, kubelet full-pcpus-only)",
        )
    machine = max(topology.n_machine, n_cores)
    if node.load > max(1.0, _BUSY * machine):
        yield warn(
            f"other work keeps about {min(node.load, machine):.1f} of the machine's {machine} core(s) busy",
            "wait until it is done, or use fewer: --actors",
        )


def _of_memory(node: NodeInfo) -> Iterator[Finding]:
    def warn(what: str, remedy: str) -> Finding:
        return Finding(False, (node.label,), what, remedy)

    n_actors = node.topology.n_usable
    if node.free_bytes < n_actors * BASE_BYTES:
        yield warn(
            f"{node.free_bytes / GB:.1f} GB of memory are free for {n_actors} actor(s), which want "
            f"{n_actors * BASE_BYTES / GB:.1f} GB before the net",
            "free memory, or use fewer actors: --cores-per-actor",
        )
    if node.shm_bytes < _SHM_BYTES:
        yield warn(
            f"/dev/shm has {node.shm_bytes / GB:.2f} GB: Ray keeps weights and programs on the disk instead",
            "docker run --shm-size 4g; in Kubernetes an emptyDir of medium Memory at /dev/shm",
        )


def _between(nodes: Sequence[NodeInfo], agreed: Isa) -> Iterator[Finding]:
    """What is wrong only with several nodes together."""
    if (note := emulation_note(agreed, nodes)) is not None:
        cannot = [node.label for node in nodes if targets_of(node)[agreed.target] != "native"]
        yield Finding(False, tuple(cannot), note, "compare times on the kind of CPU that the model will run on")
    held = [node for node in nodes if node.isas and node.isas[0].lower() != agreed.kernels]
    if held and len(held) < len(nodes):
        widest = ", ".join(sorted({node.isas[0].lower() for node in held}))
        yield Finding(
            False,
            tuple(node.label for node in nodes if node not in held),
            f"{agreed.kernels} is the widest here, so all nodes are held to it, though {len(held)} have {widest}",
            "leave these nodes out if the model will run on the newer CPUs",
        )
    for a, b in combinations([node for node in nodes if node.machine], 2):
        common = {core.cpus for core in a.topology.cores} & {core.cpus for core in b.topology.cores}
        if a.machine == b.machine and common:
            cpus = ", ".join(str(cpu) for cpu in sorted(cpu for cpus in common for cpu in cpus))
            yield Finding(
                False,
                (a.label, b.label),
                f"run on one machine and share CPU {cpus}: their actors wait for each other",
                "start one Ray node a machine, or give each its own CPUs (taskset, docker --cpuset-cpus)",
            )


def _split(nodes: tuple[str, ...], sentence: str) -> Finding:
    """What a run is refused for, from "what is; what would do"."""
    what, _, remedy = sentence.rpartition("; ")
    return Finding(True, nodes, what, remedy)


def _alike(findings: Sequence[Finding]) -> list[Finding]:
    """The same finding on many nodes told once."""
    nodes: dict[tuple[bool, str, str], list[str]] = {}
    for finding in findings:
        nodes.setdefault((finding.refused, finding.what, finding.remedy), []).extend(finding.nodes)
    return [Finding(refused, tuple(names), what, remedy) for (refused, what, remedy), names in nodes.items()]
