"""`distcalib doctor`."""

import argparse
import json
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from distcalib.actors.diagnosis import GB, Diagnosis, Finding, diagnose, targets_of
from distcalib.actors.node_survey import survey
from distcalib.actors.nodes import NodeInfo
from distcalib.actors.ray_cluster import RaySource
from distcalib.cli.arguments import add_address, add_isa, add_output, console_of, example
from distcalib.cli.exit_codes import ERROR, OK
from distcalib.errors import printable

EXAMPLES = ("distcalib doctor", "distcalib doctor --address auto")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "doctor",
        help="cores, memory, kernels and versions of each node, and what is wrong with them",
        epilog=example(*EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_address(parser)
    add_isa(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what the nodes are; exit code 1 if a run would be refused."""
    surveyed = survey(RaySource(args.address))
    diagnosis = diagnose(surveyed.nodes, surveyed.silent, args.isa, surveyed.lacks)
    if args.json:
        print(json.dumps(diagnosis.to_dict(), indent=2))
    else:
        show(diagnosis, console_of(args))
    return ERROR if diagnosis.refused else OK


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Nodes that are alike together, what is wrong, and a sentence."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for node in diagnosis.nodes:
        alike.setdefault(tuple(describe(node, diagnosis.actors.get(node.node_id, 0))), []).append(node.label)
    for lines, labels in alike.items():
        _print(console, Text(", ".join(labels), "bold"))
        for name, told in lines:
            _print(console, Text.assemble((f"  {name:<10}", "dim"), told))
    for finding in diagnosis.findings:
        _print(console, _told(finding))
    n_refused = sum(finding.refused for finding in diagnosis.findings)
    n_warnings = len(diagnosis.findings) - n_refused
    n_actors = sum(diagnosis.actors.values())
    summary = f"{len(diagnosis.nodes)} node(s), {n_actors} actor(s), {diagnosis.isa or 'nothing in common'}: "
    told = f"{n_warnings} warning(s)" if n_warnings else "nothing is wrong"
    if n_refused:
        _print(console, Text(f"{summary}a run would be refused, {n_refused} error(s), {n_warnings} warning(s)", "red"))
    else:
        _print(console, Text(f"{summary}ready, {told}", "yellow" if n_warnings else "green"))


def describe(node: NodeInfo, n_actors: int) -> list[tuple[str, str]]:
    """Lines on a node: a name and what is told under it."""
    topology = node.topology
    cores = f"{len(topology.cores)} physical"
    if topology.n_machine > len(topology.cores):
        cores += f" of {topology.n_machine}"
    cores += f" in {_count({core.package for core in topology.cores}, 'socket')}"
    cores += f", {_count({core.numa_node for core in topology.cores}, 'NUMA node')}"
    if any(core.n_threads > 1 for core in topology.cores):
        cores += "; hyper-threads, of which the second of each core stays idle"
    lines = [("CPU", node.cpu or "unknown"), ("cores", cores)]
    if topology.quota is not None:
        lines.append(("quota", f"{topology.quota:g} CPUs"))
    if topology.offline:
        lines.append(("offline", f"CPU {', '.join(map(str, topology.offline))}"))
    lines.append(("actors", f"{n_actors}, by default"))
    total, free, shm = (f"{n / GB:,.1f} GB" for n in (node.memory_bytes, node.free_bytes, node.shm_bytes))
    lines.append(("memory", f"{total}, {free} free; /dev/shm {shm}"))
    lines.append(("kernels", ", ".join(name.lower() for name in node.isas) or "none with vectors"))
    lines.append(("targets", ", ".join(f"{target} {way}" for target, way in targets_of(node).items())))
    lines.append(("versions", ", ".join(f"{name} {version}" for name, version in node.versions.items())))
    return lines


def _told(finding: Finding) -> Text:
    mark, colour = ("error", "bold red") if finding.refused else ("warning", "yellow")
    where = f"{', '.join(finding.nodes)}: " if finding.nodes else ""
    return Text.assemble((mark, colour), f": {where}{finding.what}; ", (finding.remedy, "italic"))


def _count(members: Sequence[int] | set[int], name: str) -> str:
    return f"{len(members)} {name}" + ("s" if len(members) != 1 else "")


def _print(console: Console, line: Text) -> None:
    if not line.plain.isprintable():  # a host's name, or a version's
        line = Text(printable(line.plain))
    console.print(line, soft_wrap=True)
