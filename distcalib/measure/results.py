"""Put what actors return into iteration order, and trust nobody: a row too many or too few is an error, not a score."""

from collections.abc import Sequence

from distcalib.errors import MeasureError
from distcalib.measure.actor import Outcome
from distcalib.measure.dispatcher import Task, describe
from distcalib.measure.jobs import Job, JobResult


class Collector:
    """Rows and actor-seconds of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._rows: dict[int, object] = {}
        self._run_seconds = 0.0
        self._compile_seconds = 0.0
        self._load_seconds = 0.0

    def add(self, task: Task, outcome: Outcome) -> None:
        """Take what `task` gave; raises MeasureError when there is not exactly one new row for each iteration."""
        if len(outcome.rows) != len(task.iterations):
            raise MeasureError(
                f"{describe(self._job, task)}: the worker returned {len(outcome.rows)} rows for "
                f"{len(task.iterations)} iterations; it must return one for each"
            )
        repeated = [iteration for iteration in task.iterations if iteration in self._rows]
        if repeated:
            raise MeasureError(f"{self._job.label}: iterations {repeated} came back twice: a fault of distcalib")
        self._rows.update(zip(task.iterations, outcome.rows, strict=True))
        self._run_seconds += outcome.run_seconds
        self._compile_seconds += outcome.compile_seconds
        self._load_seconds += outcome.load_seconds

    @property
    def complete(self) -> bool:
        """True when every row is there."""
        return len(self._rows) == self._job.n_iterations

    def result(self) -> JobResult:
        """The job's result; raises MeasureError when a row is missing."""
        wanted: Sequence[int] = range(self._job.n_iterations)
        missing = [iteration for iteration in wanted if iteration not in self._rows]
        if missing:
            raise MeasureError(f"{self._job.label}: iterations {missing} did not come back: a fault of distcalib")
        return JobResult(
            key=self._job.key,
            rows=tuple(self._rows[iteration] for iteration in wanted),
            size=self._job.size,
            run_seconds=self._run_seconds,
            compile_seconds=self._compile_seconds,
            load_seconds=self._load_seconds,
        )
