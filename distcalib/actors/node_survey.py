"""Ask every node of a cluster what it is; one that cannot tell is named with the reason, and does not stop the rest."""

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from distcalib.actors.nodes import NodeInfo, describe_this_node
from distcalib.actors.ray_cluster import RayCluster
from distcalib.actors.ray_module import load_ray
from distcalib.actors.surroundings import Lack, start_lacks

LOST = "was lost while it was asked; see whether Ray still runs there and the network is well"
_SECONDS = 30.0  # a busy node that has to start its first process takes 5; one that is cut off never answers


@dataclass(frozen=True)
class Survey:
    """The nodes that answered, by host name, and why others did not and what would do, by their names.

    `lacks`: without a cluster, what stands in the way of a Ray of this machine's own.
    """

    nodes: tuple[NodeInfo, ...]
    silent: dict[str, str]
    address: str = ""
    lacks: tuple[Lack, ...] = ()


def survey(address: str | None = None) -> Survey:
    """What each node of the cluster at `address` is; without a cluster, this machine, and Ray is not even started.

    `address` None: the Ray already used in this process, else RAY_ADDRESS. MeasureError when there is none at it.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address in (None, "local") and not load_ray().is_initialized():
        node = describe_this_node()
        return Survey((node,), {}, lacks=start_lacks(node.topology.n_usable))
    cluster = RayCluster(address, n_cpus=0)
    try:
        return replace(ask_nodes(), address=address or "")
    finally:
        cluster.close()


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
