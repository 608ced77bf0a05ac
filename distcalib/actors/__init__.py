"""Measure jobs on pinned actors; the only package that knows Ray, and it knows nothing of nets.

The names below are for whoever makes jobs or reads their results; pool.py runs them, on Ray by way of ray_cluster.py.
"""

from distcalib.actors.jobs import Blob, Cargo, Enough, Job, JobResult, OnRows, Progress, Worker, WorkerFactory
from distcalib.actors.topology import Core, Placement, Topology, place_actors, read_topology

__all__ = [
    "Blob",
    "Cargo",
    "Core",
    "Enough",
    "Job",
    "JobResult",
    "OnRows",
    "Placement",
    "Progress",
    "Topology",
    "Worker",
    "WorkerFactory",
    "place_actors",
    "read_topology",
]
