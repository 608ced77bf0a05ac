"""Put what actors return under its numbers, and trust nobody: a row too many or too few is an error.

Tasks are of positions; this is where they become numbers, row by row as they come, so that what is shown after every
shard needs no copy."""

from collections.abc import Mapping
from types import MappingProxyType

from distcalib.actors.actor import Outcome
from distcalib.actors.dispatcher import Task, describe
from distcalib.actors.jobs import Job, JobResult, describe_iterations
from distcalib.errors import DistcalibError, MeasureError


class Collector:
    """Rows and actor-seconds of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._rows: dict[int, object] = {}  # by number, in the order that they came
        self.size = 0
        """The sum of the sizes of the rows so far."""
        self._run_seconds = 0.0
        self._compile_seconds = 0.0
        self._load_seconds = 0.0

    def add(self, task: Task, outcome: Outcome) -> None:
        """Take what `task` gave; raises MeasureError when there is not exactly one new row for each iteration."""
        if len(outcome.rows) != len(task.positions):
            raise MeasureError(
                f"{describe(self._job, task)}: the worker returned {len(outcome.rows)} rows for "
                f"{len(task.positions)} iterations; it must return one for each"
            )
        numbers = self._job.iterations_at(task.positions)
        repeated = [number for number in numbers if number in self._rows]
        if repeated:
            raise MeasureError(
                f"{self._job.label}: {describe_iterations(repeated)} came back twice: a fault of distcalib"
            )
        self._rows.update(zip(numbers, outcome.rows, strict=True))
        self.size += self._job.size_of(task.positions)
        self.add_again(outcome)

    def add_again(self, outcome: Outcome) -> None:
        """Count the seconds of what was done, be it that another actor was faster with the same shard."""
        self._run_seconds += outcome.run_seconds
        self._compile_seconds += outcome.compile_seconds
        self._load_seconds += outcome.load_seconds

    @property
    def rows(self) -> Mapping[int, object]:
        """The rows so far, by number; a view that grows."""
        return MappingProxyType(self._rows)

    @property
    def complete(self) -> bool:
        """True when every row is there."""
        return len(self._rows) == self._job.n_iterations

    def result(self, partial: bool = False, error: DistcalibError | None = None) -> JobResult:
        """The job's result; raises MeasureError when a row is missing, unless the job was ended early (`partial`)."""
        if not (self.complete or partial):
            missing = [number for number in self._job.numbers if number not in self._rows]
            raise MeasureError(
                f"{self._job.label}: {describe_iterations(missing)} did not come back: a fault of distcalib"
            )
        return JobResult.of(self._job, self._rows, self._run_seconds, self._compile_seconds, self._load_seconds, error)
