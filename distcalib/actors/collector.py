"""Put what actors return into the order of positions, and trust nobody: a row too many or too few is an error."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from distcalib.actors.actor import Outcome
from distcalib.actors.dispatcher import Task, describe
from distcalib.actors.jobs import Job, JobResult, describe_iterations
from distcalib.errors import DistcalibError, MeasureError


class Collector:
    """Rows and actor-seconds of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._rows: dict[int, object] = {}
        self._run_seconds = 0.0
        self._compile_seconds = 0.0
        self._load_seconds = 0.0

    def add(self, task: Task, outcome: Outcome) -> None:
        """Take what `task` gave; raises MeasureError when there is not exactly one new row for each position."""
        if len(outcome.rows) != len(task.positions):
            raise MeasureError(
                f"{describe(self._job, task)}: the worker returned {len(outcome.rows)} rows for "
                f"{len(task.positions)} iterations; it must return one for each"
            )
        repeated = [position for position in task.positions if position in self._rows]
        if repeated:
            raise MeasureError(f"{self._said(repeated)} came back twice: a fault of distcalib")
        self._rows.update(zip(task.positions, outcome.rows, strict=True))
        self.add_again(outcome)

    def add_again(self, outcome: Outcome) -> None:
        """Count the seconds of what was done, be it that another actor was faster with the same shard."""
        self._run_seconds += outcome.run_seconds
        self._compile_seconds += outcome.compile_seconds
        self._load_seconds += outcome.load_seconds

    @property
    def rows(self) -> Mapping[int, object]:
        """The rows so far, by position; a view that grows."""
        return MappingProxyType(self._rows)

    @property
    def complete(self) -> bool:
        """True when every row is there."""
        return len(self._rows) == self._job.n_iterations

    def result(self, partial: bool = False, error: DistcalibError | None = None) -> JobResult:
        """The job's result; raises MeasureError when a row is missing, unless the job was ended early (`partial`)."""
        missing = [position for position in range(self._job.n_iterations) if position not in self._rows]
        if missing and not partial:
            raise MeasureError(f"{self._said(missing)} did not come back: a fault of distcalib")
        positions = sorted(self._rows)
        order = self._job.order
        return JobResult(
            key=self._job.key,
            rows=tuple(self._rows[position] for position in positions),
            size=self._job.size_of(positions),
            iterations=tuple(positions if order is None else (order[position] for position in positions)),
            complete=self.complete,
            run_seconds=self._run_seconds,
            compile_seconds=self._compile_seconds,
            load_seconds=self._load_seconds,
            error=error,
        )

    def _said(self, positions: Sequence[int]) -> str:
        order = self._job.order or range(self._job.n_iterations)
        return f"{self._job.label}: {describe_iterations(order[position] for position in positions)}"
