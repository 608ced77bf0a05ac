"""What the machines of a cluster must have in common, or rows of one score would come from different arithmetic.

Versions must be the same: what they decide is only found out by measuring all again. Instruction sets need not be: all
machines are held to the widest that every one has, and the report names it.
"""

import platform
from collections.abc import Mapping, Sequence

from distcalib.errors import MeasureError, OptionError
from distcalib.measure.machine import ISA_VARIABLE
from distcalib.measure.nodes import NodeInfo
from distcalib.run.isa import ISAS, known_isa

# What decides a value somewhere: kernels, decoding of images, sums. Ray moves them only, and itself refuses to join
# machines with another version of it or of Python; a cluster may still be seen while it is being upgraded.
_EXACT = ("distcalib", "openvino", "opencv-python-headless", "numpy")
_MAJOR = ("ray",)


def refuse_mixed(nodes: Sequence[NodeInfo]) -> None:
    """MeasureError that names all packages of which the nodes have different versions, or that one has not at all."""
    found = [*mixed(nodes)]
    if found:
        raise MeasureError(f"{'; '.join(found)}; install the same version of each on all nodes")


def mixed(nodes: Sequence[NodeInfo]) -> list[str]:
    """A phrase for each package that decides a result and is not the same on all nodes, most common first."""
    found = []
    for name in (*_EXACT, *_MAJOR):
        versions: dict[str, list[str]] = {}
        for node in nodes:
            told = node.versions.get(name, "missing")
            versions.setdefault(told.split(".")[0] if name in _MAJOR else told, []).append(node.label)
        if len(versions) > 1 or "missing" in versions:
            where = sorted(versions.items(), key=lambda item: (-len(item[1]), item[0]))
            found.append(f"{name} is " + " and ".join(f"{told} on {_listed(labels)}" for told, labels in where))
    return found


def agreed_isa(isa: str, nodes: Sequence[NodeInfo]) -> str:
    """oneDNN's name, in small letters, of the widest instruction set that all nodes have and `isa` allows.

    OptionError for an unknown `isa`, for one that a node lacks, and where the nodes have none in common.
    """
    wanted = known_isa(isa)
    if wanted:
        lacking = [node for node in nodes if wanted not in node.isas]
        if lacking:
            has = ", ".join(f"{node.label} ({_widest(node)} is its widest)" for node in lacking)
            raise OptionError(f"--isa {isa}: {wanted.lower()} is not on {has}; leave --isa or these nodes out")
        return wanted.lower()
    common = [name for name in nodes[0].isas if all(name in node.isas for node in nodes)]
    if common:
        return common[0].lower()
    if any(node.isas for node in nodes):
        has = ", ".join(f"{node.label} has {_widest(node)}" for node in nodes)
        raise OptionError(f"the nodes have no instruction set in common: {has}; leave those without AVX2 out")
    return platform.machine()


def agreed_environment(isa: str, nodes: Sequence[NodeInfo]) -> Mapping[str, str]:
    """What holds the actors of all nodes to the agreed instruction set; empty where each uses it of its own accord."""
    name = agreed_isa(isa, nodes).upper()
    return {ISA_VARIABLE: name} if any(node.isas and node.isas[0] != name for node in nodes) or ISAS[isa] else {}


def _widest(node: NodeInfo) -> str:
    return node.isas[0].lower() if node.isas else "none"


def _listed(labels: Sequence[str], most: int = 4) -> str:
    """The first labels, and how many more there are: a cluster may have hundreds of nodes."""
    names = ", ".join(sorted(labels)[:most])
    return names + (f" and {len(labels) - most} more" if len(labels) > most else "")
