"""What the machines of a cluster must have in common, or rows of one score would come from different arithmetic.

Versions must be the same: what they decide is only found out by measuring all again. Instruction sets need not be: all
machines compute one target in one way, with the widest kernels that every one has, and the report names them.
"""

from collections.abc import Mapping, Sequence

from distcalib.actors.isa import Isa, choose_isa, environment_of, known_isa, way_of
from distcalib.actors.nodes import NodeInfo
from distcalib.errors import MeasureError, OptionError

# What decides a value somewhere: kernels, decoding of images, sums. Ray moves them only, and itself refuses to join
# machines with another version of it or of Python; a cluster may still be seen while it is being upgraded.
_EXACT = ("distcalib", "openvino", "opencv-python-headless", "numpy")
_MAJOR = ("ray",)


def refuse_mixed(nodes: Sequence[NodeInfo]) -> None:
    """MeasureError that names all packages of which the nodes have different versions, or that one has not at all."""
    differences = [*mixed(nodes)]
    if differences:
        raise MeasureError(f"{'; '.join(differences)}; install the same version of each on all nodes")


def mixed(nodes: Sequence[NodeInfo]) -> list[str]:
    """A phrase for each package that decides a result and is not the same on all nodes, most common first."""
    phrases = []
    for name in (*_EXACT, *_MAJOR):
        versions: dict[str, list[str]] = {}
        for node in nodes:
            release = node.versions.get(name, "missing")
            versions.setdefault(release.split(".")[0] if name in _MAJOR else release, []).append(node.label)
        if len(versions) > 1 or "missing" in versions:
            where = sorted(versions.items(), key=lambda item: (-len(item[1]), item[0]))
            phrases.append(f"{name} is " + " and ".join(f"{release} on {_listed(labels)}" for release, labels in where))
    return phrases


def agreed_isa(isa: str, nodes: Sequence[NodeInfo]) -> Isa:
    """What all nodes compute for --isa, in one way.

    OptionError for an unknown `isa`, for a target that a node cannot compute, and where nodes have no kernels in
    common.
    """
    known_isa(isa)
    common = [name for name in nodes[0].isas if all(name in node.isas for node in nodes)]
    if not common and any(node.isas for node in nodes):
        has = ", ".join(f"{node.label} has {_widest(node)}" for node in nodes)
        raise OptionError(f"the nodes have no instruction set in common: {has}; leave those without AVX2 out")
    return choose_isa(isa, common)


def agreed_environment(isa: str, nodes: Sequence[NodeInfo]) -> Mapping[str, str]:
    """What holds the actors of all nodes to the agreed arithmetic."""
    return environment_of(agreed_isa(isa, nodes), isa, [node.isas for node in nodes])


def emulation_note(isa: Isa, nodes: Sequence[NodeInfo]) -> str | None:
    """What a user must know of a run that emulates: because of which nodes, and that its times predict nothing."""
    if not isa.emulated:
        return None
    cannot = [node.label for node in nodes if way_of(isa.target, node.isas) != "native"]
    who = "this CPU" if len(nodes) == 1 else _listed(cannot) or "the nodes together"
    return (
        f"{isa.target} is emulated in FP32 kernels, for {who} cannot compute it natively (no VNNI): the scores are "
        "those of that CPU, but images/s do not predict the speed of INT8"
    )


def _widest(node: NodeInfo) -> str:
    return node.isas[0].lower() if node.isas else "none"


def _listed(labels: Sequence[str], most: int = 4) -> str:
    """The first labels, and how many more there are: a cluster may have hundreds of nodes."""
    names = ", ".join(sorted(labels)[:most])
    return names + (f" and {len(labels) - most} more" if len(labels) > most else "")
