"""What the report tells of a net that was found, several things in one call, so that no actor waits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from distcalib.actors import Job, JobResult
from distcalib.session.protocol import Actors

_T = TypeVar("_T")


@dataclass(frozen=True)
class Look(Generic[_T]):
    """Jobs, maybe none, and what is made of their results, in their order."""

    jobs: Sequence[Job]
    made: Callable[[Sequence[JobResult]], _T]


def look(session: Actors, phase: str, *looks: Look[Any]) -> list[Any]:
    """What each makes; their jobs are no cost of a search."""
    jobs = [job for one in looks for job in one.jobs]
    results = iter(session.run(phase, jobs) if jobs else ())
    return [one.made([next(results) for _ in one.jobs]) for one in looks]
