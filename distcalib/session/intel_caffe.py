"""The driver's part of `-r ROOT`: the build of Intel Caffe, the scratch folder of a run, and how its work is cut."""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from distcalib.actors import Job, Placement
from distcalib.actors.isa import CPUINFO, NATIVE_ISA, Isa, arithmetic_environment, arithmetic_of, choose_isa
from distcalib.actors.machine import read_text, usable_isas
from distcalib.actors.nodes import NodeInfo
from distcalib.caffe.forks import of_other_forks
from distcalib.caffe.phase import in_test
from distcalib.data.slices import slice_bytes, unsliceable
from distcalib.engine.caffe_process import caffe_version, check_caffe, find_caffe
from distcalib.engine.intel_caffe import CaffeSetting, CaffeSpec, CaffeWorker, Slices
from distcalib.engine.net import Net
from distcalib.engine.spec import NetSpec, Row
from distcalib.engine.worker import Setting, data_nodes
from distcalib.errors import DataError, OptionError, UnsupportedError
from distcalib.metrics import DETECTION, YOLO_DETECTION
from distcalib.plugins import load_plugins
from distcalib.session.inputs import Inputs

# A killed child may still write for a moment.
_REMOVALS, _BETWEEN_SECONDS = 50, 0.1


@dataclass(frozen=True)
class CaffeBuild:
    """`-r ROOT`, checked."""

    executable: Path
    version: str

    @property
    def isa(self) -> Isa:
        """What mkl-dnn 0.18 computes here: it knows the VNNI of AVX-512 and no other, and halves weights elsewhere."""
        isas = usable_isas(read_text(CPUINFO))
        return choose_isa("cascadelake" if "AVX512_CORE_VNNI" in isas or not isas else "skylake", isas)

    @property
    def environment(self) -> dict[str, str]:
        """What an actor hands on; those of a Ray that was there before have not got it from this process.  Errors of
        INT8 layers, which the embedded engine finds, are those of the same arithmetic.
        """
        name = "LD_LIBRARY_PATH"
        handed_on = {name: os.environ[name]} if name in os.environ else {}
        return {**arithmetic_environment(self.isa), **handed_on}


def open_build(root: str | Path | None, isa: str) -> CaffeBuild | None:
    """The build in ROOT, None without one.  Raises OptionError if there is none, or for another `isa` than native."""
    if root is None:
        return None
    if isa != NATIVE_ISA:
        raise OptionError(
            f"--isa {isa}: with -r the kernels are those that mkl-dnn 0.18 picks for the CPU it runs on; "
            "leave one of the two out"
        )
    executable = find_caffe(Path(root))
    check_caffe(Path(root), executable)
    return CaffeBuild(executable, caffe_version(executable))


def refuse_for_caffe(net: Net) -> None:
    """Raise UnsupportedError for data layers that `caffe test` cannot read from any record on."""
    problems = [
        f"layer '{node.name}' ({node.type}) {said}"
        for node in data_nodes(net.graph)
        if (said := unsliceable(node.layer)) is not None
    ]
    problems += [
        f"`caffe test` makes no mAP of layer '{node.name}' ({node.type}), Intel Caffe has a tool of its own for it, "
        "test_detection; leave out -r"
        for node in net.graph
        if node.type == YOLO_DETECTION
    ]
    if _detects(net):
        extra = [blob.name for blob in net.graph.outputs if net.graph.producer[blob].type != DETECTION]
        quoted = ", ".join(f"'{name}'" for name in extra)
        problems += [f"`caffe test -detection` takes {quoted} for detections, too; let a Silence layer read it"] * bool(
            extra
        )
    names = of_other_forks(in_test(net.full, net.state))
    if names:
        problems.append(f"Intel Caffe cannot read {', '.join(names)}, which are of other forks; leave out -r")
    if problems:
        raise UnsupportedError(f"{net.name}: -r: " + "; ".join(problems))


def make_caffe_worker(setting: CaffeSetting, placement: Placement) -> CaffeWorker:
    """The pool's factory for -r."""
    load_plugins(setting.embedded.plugins)
    return CaffeWorker(setting, placement.n_threads, arithmetic_of(os.environ))


class IntelCaffe:
    """`caffe test` of a build measures, one slice of the iterations per actor; a Backend.

    Ranges are observed by the embedded engine, since Caffe prints outputs only.
    """

    may_skip = False
    in_flight = 1
    factory = staticmethod(make_caffe_worker)

    def __init__(self, build: CaffeBuild) -> None:
        self._build = build
        self._checked: set[Slices] = set()
        self._scratch: Path | None = None

    @property
    def versions(self) -> dict[str, str]:
        """Of the build: see caffe_version."""
        return {"intel_caffe": self._build.version}

    def refuse(self, net: Net) -> None:
        """Raise UnsupportedError for what `caffe test` cannot read or score."""
        refuse_for_caffe(net)

    def open(self, inputs: Inputs, setting: Setting, weights: Path) -> CaffeSetting:
        """What all workers share; makes the scratch folder of the run, which `close` removes."""
        self._net, self._indexes = inputs.net, inputs.indexes
        self._is_whole = _detects(inputs.net)  # slices of an mAP do not merge, and it is all that the log has
        n_labels = {} if self._is_whole else _n_labels(inputs)
        self._scratch = Path(tempfile.mkdtemp(prefix="distcalib-")).resolve()
        return CaffeSetting(setting, self._build.executable, weights.resolve(), self._scratch, n_labels)

    def environment(self, nodes: Sequence[NodeInfo]) -> Mapping[str, str]:
        """That of the build, whose kernels are its own.  Raises OptionError for more than one machine."""
        if len(nodes) > 1:
            raise OptionError(f"-r: works on one machine, and the cluster has {len(nodes)} nodes; leave out --address")
        return self._build.environment

    def isa(self, nodes: Sequence[NodeInfo]) -> Isa:
        """That of the build on this machine."""
        return self._build.isa

    def note(self, isa: Isa, nodes: Sequence[NodeInfo]) -> str | None:
        """Nothing: the arithmetic is the real one."""
        return None

    def scoring(
        self, key: str, spec: NetSpec, n_iterations: int, wanted: Sequence[int] | None, phase: str, n_actors: int
    ) -> Job:
        """A job of all slices that have one of the iterations `wanted`, None: all; of the slices by `n_iterations`.

        Raises DataError if there is no room for the slices."""
        slices = Slices(n_iterations, 1 if self._is_whole else min(n_iterations, n_actors))
        if slices not in self._checked:
            self._check_space(slices.parts)
            self._checked.add(slices)
        job = Job(key, CaffeSpec(spec, slices), slices.n_slices, phase, tuple(map(len, slices.parts)))
        if wanted is None:
            return job
        missing = set(wanted)
        order = tuple(i for i, part in enumerate(slices.parts) if not missing.isdisjoint(part))
        sizes = tuple(len(slices.parts[i]) for i in order)
        return replace(job, n_iterations=len(order), order=order, row_sizes=sizes)

    def by_iteration(self, job: Job, found: Mapping[int, object]) -> dict[int, Row]:
        """The rows of a scoring job by iteration, from those by the numbers of their slices."""
        assert isinstance(job.spec, CaffeSpec), "a scoring job of Caffe is made of slices"
        parts = job.spec.slices.parts
        pairs = [(parts[i], unit) for i, unit in found.items() if isinstance(unit, tuple)]
        return {i: row for part, unit in pairs for i, row in zip(part, unit, strict=True)}

    def close(self) -> None:
        """Remove the scratch folder; twice does no harm."""
        for _ in range(_REMOVALS if self._scratch is not None else 0):
            assert self._scratch is not None, "else there is nothing to remove"
            shutil.rmtree(self._scratch, ignore_errors=True)
            if not self._scratch.exists():
                return
            time.sleep(_BETWEEN_SECONDS)

    def _check_space(self, parts: Sequence[range]) -> None:
        assert self._scratch is not None, "jobs are made once the data is open"
        needed = sum(
            slice_bytes(node.layer, self._net.path, self._indexes.get(node.name), parts)
            for node in data_nodes(self._net.graph)
        )
        free = shutil.disk_usage(self._scratch).free
        if needed > free:
            raise DataError(
                f"{self._scratch.parent}: {len(parts)} slices of the data need about {needed / 1e9:.3g} GB and "
                f"{free / 1e9:.3g} GB are free; name another folder in TMPDIR, or give fewer --actors"
            )


def _detects(net: Net) -> bool:
    return any(node.type == DETECTION for node in net.graph)


def _n_labels(inputs: Inputs) -> dict[str, int]:
    """How many labels the accuracy of an iteration is of, by top; without those that ignore some."""
    return {
        node.tops[0].name: prod(inputs.shapes[node.bottoms[1]])
        for node in inputs.net.graph
        if node.type == "Accuracy" and not node.layer.accuracy_param.HasField("ignore_label")
    }
