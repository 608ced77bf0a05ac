"""The log of `caffe test`, read line by line: a line a batch and output number, then their means; or, with
`-detection`, a line an output with its mAP.

Lines are told by `caffe.cpp` and their form, not by its line numbers, which move with the version. The means are not
used, the batches are: but both must agree, or the log is not what it is taken for."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from distcalib.errors import EngineError

_BATCH = re.compile(r"I.* caffe\.cpp:\d+\] Batch (\d+), (.*) = (\S+)\s*")
_LOSS = re.compile(r"I.* caffe\.cpp:\d+\] Loss: (\S+)\s*")
_MEAN = re.compile(r"I.* caffe\.cpp:\d+\] (.*?) = (\S+)(?: \(\* \S+ = \S+ loss\))?\s*")
_DETECTED = re.compile(r"I.* caffe\.cpp:\d+\]\s+Test net output #\d+: (.*) = (\S+)\s*")
_FATAL = re.compile(r"F\d.*?\] (.*)")
_LONGEST = 300  # characters of a line of the log in a message
_DIGITS = 6  # significant ones of a printed number
_LEAST = 0.5 * 10.0**-_DIGITS  # relative error that printing may make, at the least
_FLOAT32 = 2.0**-24  # relative error of one addition, which is how Caffe makes the means


@dataclass(frozen=True)
class Output:
    """The numbers of one output blob in one iteration: their sum, and how many they are."""

    total: float
    n: int


Numbers = dict[str, list[float]]


@dataclass
class CaffeLog:
    """Takes lines as they come and keeps an Output a batch and blob; `where` begins its errors."""

    where: str
    batches: list[Mapping[str, Output]] = field(default_factory=list)
    fatal: str = ""
    """What the first line that begins with F says."""
    last: str = ""
    detected: dict[str, float] = field(default_factory=dict)
    """The mAP of each output, with `-detection`."""
    _open: Numbers = field(default_factory=dict)
    _means: Numbers = field(default_factory=dict)
    _ended: bool = False
    _fault: str = ""
    _sloppiness: dict[str, float] = field(default_factory=dict)

    def feed(self, line: str) -> None:
        """One line; what is no result is passed over."""
        line = line.rstrip()
        if not line:
            return
        self.last = line[:_LONGEST]
        if line[0] == "F" and not self.fatal and (fatal := _FATAL.fullmatch(line)):
            self.fatal = fatal[1].strip()[:_LONGEST]
        elif line[0] != "I":
            pass
        elif mean_precision := _DETECTED.fullmatch(line):
            self._detect(mean_precision[1], mean_precision[2])
        elif batch := _BATCH.fullmatch(line):
            self._batch(int(batch[1]), batch[2], batch[3])
        elif _LOSS.fullmatch(line):
            self._close()
            self._ended = True
        elif self._ended and (mean := _MEAN.fullmatch(line)):
            self._add(self._means, mean[1], mean[2])

    def check(self, n_batches: int, names: Iterable[str]) -> None:
        """Raise EngineError unless there are so many batches, each with a number for every one of `names`, and their
        means are those that Caffe prints at the end.
        """
        self._refuse(self._fault or self._faults(n_batches, names))

    def check_detected(self, names: Iterable[str]) -> None:
        """Raise EngineError unless there is an mAP between 0 and 1 for every one of `names`."""
        wrong = [name for name in names if not 0.0 <= self.detected.get(name, math.nan) <= 1.0]
        self._refuse(self._fault or (f"it has no mAP of '{wrong[0]}'" if wrong else ""))

    def _refuse(self, fault: str) -> None:
        if fault:
            raise EngineError(
                f"{self.where}: the log of Intel Caffe is not that of a test: {fault} (its last line: {self.last}); "
                "is ROOT/tools/caffe a release of Intel Caffe?"
            )

    def _faults(self, n_batches: int, names: Iterable[str]) -> str:
        if len(self.batches) != n_batches:
            return f"it has {len(self.batches)} of {n_batches} batches"
        if not self._ended:
            return "it breaks off before the means"
        shapes = [{name: output.n for name, output in batch.items()} for batch in self.batches]
        missing = sorted(set(names) - shapes[0].keys())
        if missing:
            return f"it has no '{missing[0]}'"
        if any(shape != shapes[0] for shape in shapes):
            return "not all batches have the same outputs"
        if {name: len(values) for name, values in self._means.items()} != shapes[0]:
            return "the means at its end are not those of the batches' outputs"
        for name, values in self._means.items():
            if not self._agrees(name, values):
                return f"the mean of '{name}' at its end is not that of its batches"
        return ""

    def _agrees(self, name: str, printed: list[float]) -> bool:
        ours = math.fsum(batch[name].total for batch in self.batches)
        theirs = math.fsum(printed)
        if not (math.isfinite(ours) and math.isfinite(theirs)):
            return math.isfinite(ours) == math.isfinite(theirs)
        n = len(self.batches)
        unprinted = self._sloppiness[name] / n  # of the batches; at least _LEAST of their size
        tolerance = unprinted * (1 + n * _FLOAT32 / _LEAST) + sum(map(_half_unit, printed))
        return abs(ours / n - theirs) <= tolerance

    def _batch(self, number: int, name: str, text: str) -> None:
        if number == len(self.batches) + 1:
            self._close()
        if number != len(self.batches) or self._ended:
            self._fault = self._fault or f"batch {number} stands where {len(self.batches)} is due"
            return
        self._add(self._open, name, text)

    def _detect(self, name: str, text: str) -> None:
        try:
            self.detected[name] = float(text)
        except ValueError:
            self._fault = self._fault or f"'{name}' is '{text[:_LONGEST]}', which is not a number"

    def _add(self, numbers: Numbers, name: str, text: str) -> None:
        try:
            numbers.setdefault(name, []).append(float(text))
        except ValueError:
            self._fault = self._fault or f"'{name}' is '{text[:_LONGEST]}', which is not a number"

    def _close(self) -> None:
        """The open batch is complete."""
        if self._open:
            self.batches.append({name: Output(math.fsum(values), len(values)) for name, values in self._open.items()})
            for name, values in self._open.items():
                self._sloppiness[name] = self._sloppiness.get(name, 0.0) + sum(map(_half_unit, values))
        self._open = {}


def _half_unit(value: float) -> float:
    """How far a printed number may be from the one that was printed."""
    if value == 0.0 or not math.isfinite(value):
        return 0.0
    return 0.5 * 10.0 ** (math.floor(math.log10(abs(value))) + 1 - _DIGITS)
