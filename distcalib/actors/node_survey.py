"""Ask every node of a cluster what it is; one that cannot tell is named with the reason, and does not stop the rest."""

from collections.abc import Collection
from typing import Any

from distcalib.actors.machines import LOST, Source, Survey
from distcalib.actors.nodes import NodeInfo, describe_this_node
from distcalib.actors.ray_module import load_ray
from distcalib.actors.surroundings import start_lacks

_SECONDS = 30.0  # a busy node that has to start its first process takes 5; one that is cut off never answers


def survey(source: Source) -> Survey:
    """What each node of the cluster at `source` is; without a cluster, this machine, and nothing is even started.

    MeasureError when there is none where one should be.
    """
    if not source.joins:
        node = describe_this_node()
        return Survey((node,), {}, start_lacks(node.topology.n_usable))
    machines = source.open(n_cpus=0)
    try:
        return machines.survey()
    finally:
        machines.close()


def ask_nodes(known: Collection[str] = ()) -> Survey:
    """What each node is of the cluster that this process has joined, but those whose ids are `known`."""
    describe: Any = load_ray().remote(describe_this_node)
    asked: list[tuple[str, Any]] = []
    nodes: Any = load_ray().nodes()
    for node in nodes:
        if node["Alive"] and node["NodeID"] not in known:
            there = load_ray().util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ip = node["NodeManagerAddress"]
            ref = describe.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(node["NodeID"], ip)
            asked.append((f"{node['NodeManagerHostname']} ({ip})", ref))
    described: list[NodeInfo] = []
    silent: dict[str, str] = {}
    if asked:
        load_ray().wait([ref for _, ref in asked], num_returns=len(asked), timeout=_SECONDS)
    for label, ref in asked:
        try:
            described.append(load_ray().get(ref, timeout=0))
        except load_ray().exceptions.GetTimeoutError:
            silent[label] = f"does not answer within {_SECONDS:.0f} s; see whether the machine is well, or take it out"
        except load_ray().exceptions.RayTaskError as error:
            silent[label] = f"cannot tell what it is: {_reason(error)}; install distcalib there as on the others"
        except load_ray().exceptions.RayError:
            silent[label] = LOST
    return Survey(tuple(sorted(described, key=lambda node: (node.host, node.node_id))), silent)


def _reason(error: Exception) -> str:
    """The last line of a remote traceback, which is its sentence."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
