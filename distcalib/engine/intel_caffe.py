"""`-r ROOT`: a worker that scores nets by `caffe test` of a real Intel Caffe, and observes them by the embedded engine.

`caffe test` always starts at the first record, and starting it takes seconds. So the unit of its jobs is a slice of the
iterations, one an actor, each with data of its own; a row of a slice holds the rows of its iterations, and the score
does not depend on how they are cut. A detection net is one slice of all: its log has no more than the mAP, which stands
for each of its iterations then. Ranges cannot come from it, since it prints outputs only."""

import hashlib
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2, net_text, write_net_weights
from distcalib.data import DATA_TYPES
from distcalib.data.slices import sliced
from distcalib.engine.arithmetic import NATIVE, Arithmetic
from distcalib.engine.caffe_process import describe_exit, run_caffe
from distcalib.engine.glog import CaffeLog, Output
from distcalib.engine.spec import NetSpec, Row
from distcalib.engine.worker import NetWorker, Setting
from distcalib.errors import EngineError
from distcalib.metrics import DETECTION, Partial, named_as_written

Bytes = NDArray[np.uint8]

WEIGHTS = "the weights"
"""What the file of the weights is called among those that are watched: no layer is called so by chance."""
_MAGIC = b"caffe test\n"  # begins a program that is run by Caffe
# An accuracy is printed with six digits: its count is found again as long as a label is more than twice their error.
_PRINTED = 1e-6
_MAX_LABELS = 400_000


@dataclass(frozen=True)
class Slices:
    """The iterations of a job in `n_slices` parts that differ by one at the most."""

    n_iterations: int
    n_slices: int

    def iterations_of(self, number: int) -> range:
        """The iterations of a slice, never none."""
        first, end = (self.n_iterations * n // self.n_slices for n in (number, number + 1))
        return range(first, end)

    @property
    def parts(self) -> tuple[range, ...]:
        """All slices in order."""
        return tuple(map(self.iterations_of, range(self.n_slices)))


@dataclass(frozen=True)
class CaffeSpec:
    """A net to be scored by Caffe, slice by slice."""

    net: NetSpec
    slices: Slices


@dataclass(frozen=True)
class CaffeSetting:
    """What all programs of a run share; the embedded engine's setting, and Caffe's.

    `scratch` is a folder of the run; whoever makes it removes it.  `n_labels`: how many labels an iteration's accuracy
    is of, by top, for those that ignore none.
    """

    embedded: Setting
    executable: Path
    weights: Path
    scratch: Path
    n_labels: Mapping[str, int]


class CaffeWorker:
    """Runs `caffe test` on the cores of one actor; the Worker of the pool.  Its slices give a tuple of Rows each."""

    def __init__(self, setting: CaffeSetting, n_threads: int, arithmetic: Arithmetic = NATIVE) -> None:
        """`arithmetic`: of what the embedded engine does beside it."""
        self._setting = setting
        self._n_threads = n_threads
        self._embedded = NetWorker(setting.embedded, n_threads, arithmetic=arithmetic)
        self._programs: dict[str, _Program] = {}

    def compile(self, spec: Any) -> Bytes:
        """A CaffeSpec becomes the prototxt as text, and its caffemodel is written if it has one of its own."""
        if not isinstance(spec, CaffeSpec):
            return self._embedded.compile(spec)
        net = caffe_pb2.NetParameter.FromString(spec.net.net)
        named_as_written(net)
        for layer in net.layer:  # the matrix of an InfogainLoss, which names its file
            del layer.blobs[:]
        program = _Program(net_text(net), spec.net.where, self._weights(spec.net, net), spec.slices)
        return np.frombuffer(_MAGIC + pickle.dumps(program), np.uint8)

    def load(self, key: str, blob: Bytes) -> None:
        """A program of either engine."""
        if blob[: len(_MAGIC)].tobytes() != _MAGIC:
            self._embedded.load(key, blob)
        else:
            self._programs[key] = pickle.loads(blob[len(_MAGIC) :].tobytes())

    def run(self, key: str, iterations: Sequence[int]) -> Sequence[object]:
        """A tuple of rows a slice, a row an iteration; or what the embedded engine gives."""
        program = self._programs.get(key)
        if program is None:
            return self._embedded.run(key, iterations)
        return [self._test(program, number) for number in iterations]

    def drop(self, key: str) -> None:
        """Forget a program; slices and caffemodels are for others, too."""
        if self._programs.pop(key, None) is None:
            self._embedded.drop(key)

    def _test(self, program: "_Program", number: int) -> tuple[Row, ...]:
        iterations = program.slices.iterations_of(number)
        net = self._on_slice(program.net, iterations)
        log = CaffeLog(program.where)
        with tempfile.TemporaryDirectory(dir=self._setting.scratch, prefix="test-") as folder:
            model = Path(folder, program.where)
            model.write_text(net_text(net), "utf-8")
            try:
                code = run_caffe(
                    self._setting.executable,
                    model,
                    program.weights,
                    len(iterations),
                    self._n_threads,
                    log.feed,
                    program.detects,
                )
            except OSError as error:
                raise EngineError(
                    f"{self._setting.executable}: cannot be started ({error.strerror}); give another build as -r"
                ) from error
        self._check_files(program.net)
        if code or log.fatal:
            raise EngineError(_aborted(program.where, code, log))
        if program.detects:
            log.check_detected(program.outputs)
            return (Row({name: Partial(log.detected[name], 1) for name in program.outputs}, (), None),) * len(
                iterations
            )
        log.check(len(iterations), program.outputs)
        return tuple(
            Row({name: self._partial(name, batch[name]) for name in sorted(batch)}, (), None) for batch in log.batches
        )

    def _check_files(self, net: caffe_pb2.NetParameter) -> None:
        """Raise DataError if Caffe has not read what the driver saw; it opens data and weights for each test."""
        for name in [layer.name for layer in net.layer] + [WEIGHTS]:
            self._setting.embedded.check_files(name)

    def _on_slice(self, net: caffe_pb2.NetParameter, iterations: range) -> caffe_pb2.NetParameter:
        """The net on data that begins with `iterations`."""
        made = caffe_pb2.NetParameter()
        made.CopyFrom(net)
        setting = self._setting.embedded
        for position, layer in enumerate(made.layer):
            if layer.type in DATA_TYPES:
                folder = self._setting.scratch / "slices" / f"{iterations.start}-{iterations.stop}-{position}"
                index = setting.indexes.get(layer.name)
                layer.CopyFrom(sliced(layer, setting.prototxt, index, iterations, folder))
        return made

    def _partial(self, name: str, output: Output) -> Partial:
        """An accuracy as the count that it was made of, so that means are exact; anything else as it is printed."""
        n_labels = self._setting.n_labels.get(name, 0)
        if output.n == 1 and 0 < n_labels <= _MAX_LABELS and 0.0 <= output.total <= 1.0:
            count = round(output.total * n_labels)
            if abs(output.total * n_labels - count) <= _PRINTED * n_labels:
                return Partial(count, n_labels)
        return Partial(output.total, output.n)

    def _weights(self, spec: NetSpec, net: caffe_pb2.NetParameter) -> Path:
        """The caffemodel of `spec`: the run's, or one with the changed blobs, written once for all equal ones."""
        if not spec.changed:
            return self._setting.weights
        digest = hashlib.sha256()
        for name, blobs in sorted(spec.changed.items()):
            digest.update(repr((name, [blob.shape for blob in blobs])).encode())
            for blob in blobs:
                digest.update(np.ascontiguousarray(blob).tobytes())
        path = self._setting.scratch / f"{digest.hexdigest()[:32]}.caffemodel"
        if not path.exists():
            write_net_weights(path, net, {**self._setting.embedded.weights, **spec.changed})
        return path


@dataclass(frozen=True)
class _Program:
    """What travels: the prototxt of the TEST net, what messages call it, its caffemodel, how its iterations are cut."""

    text: str
    where: str
    weights: Path
    slices: Slices

    @cached_property
    def net(self) -> caffe_pb2.NetParameter:
        """The net that `text` is."""
        return text_format.Parse(self.text, caffe_pb2.NetParameter())

    @property
    def detects(self) -> bool:
        """Whether Caffe is asked for mAP."""
        return any(layer.type == DETECTION for layer in self.net.layer)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The blobs that Caffe prints."""
        spec = NetSpec(self.net.SerializeToString(), self.where)
        return tuple(blob.name for blob in spec.graph.outputs)


def _aborted(where: str, code: int, log: CaffeLog) -> str:
    """One sentence on a test that failed."""
    remedy = "without -r the embedded engine measures"
    if log.fatal:
        return f"{where}: Intel Caffe aborted: {log.fatal.rstrip('.')}; mend what it names, or {remedy}"
    last = f"the last line of its log: {log.last}" if log.last else "its log is empty"
    memory = "look into the kernel's log for a lack of memory" if code == -9 else "see that it runs by itself"
    return f"{where}: Intel Caffe {describe_exit(code)}, {last}; {memory}, or {remedy}"
