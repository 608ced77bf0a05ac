"""The driver's part of `-r ROOT`: the build of Intel Caffe, the scratch folder of a run, and how its work is cut."""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from distcalib.actors import Job, JobResult
from distcalib.actors.isa import CPUINFO, NATIVE_ISA, Isa, arithmetic_environment, choose_isa
from distcalib.actors.machine import read_text, usable_isas
from distcalib.caffe.forks import of_other_forks
from distcalib.caffe.graph import Blob
from distcalib.caffe.phase import in_test
from distcalib.data.slices import slice_bytes, unsliceable
from distcalib.engine.builder import layer_shapes
from distcalib.engine.caffe_process import caffe_version, check_caffe, find_caffe
from distcalib.engine.intel_caffe import CaffeSetting, CaffeSpec, Slices
from distcalib.engine.net import Net
from distcalib.engine.spec import NetSpec
from distcalib.engine.worker import Setting, data_nodes
from distcalib.errors import DataError, OptionError, UnsupportedError
from distcalib.layers import ZeroBlobs
from distcalib.metrics import DETECTION, YOLO_DETECTION

Shapes = Mapping[str, tuple[int, ...]]

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
    found = [
        f"layer '{node.name}' ({node.type}) {said}"
        for node in data_nodes(net.graph)
        if (said := unsliceable(node.layer)) is not None
    ]
    found += [
        f"`caffe test` makes no mAP of layer '{node.name}' ({node.type}), Intel Caffe has a tool of its own for it, "
        "test_detection; leave out -r"
        for node in net.graph
        if node.type == YOLO_DETECTION
    ]
    if _detects(net):
        others = [blob.name for blob in net.graph.outputs if net.graph.producer[blob].type != DETECTION]
        quoted = ", ".join(f"'{name}'" for name in others)
        found += [f"`caffe test -detection` takes {quoted} for detections, too; let a Silence layer read it"] * bool(
            others
        )
    names = of_other_forks(in_test(net.full, net.state))
    if names:
        found.append(f"Intel Caffe cannot read {', '.join(names)}, which are of other forks; leave out -r")
    if found:
        raise UnsupportedError(f"{net.name}: -r: " + "; ".join(found))


class CaffeRun:
    """The scratch folder of a run, and the jobs that Caffe does; `close` removes the folder."""

    def __init__(self, build: CaffeBuild, net: Net, setting: Setting, weights: Path, shapes: Shapes) -> None:
        """`shapes`: of the data layers' tops."""
        self._net = net
        self._indexes = setting.indexes
        self._checked: set[Slices] = set()
        n_labels = {} if _detects(net) else _n_labels(net, shapes)
        self._is_whole = _detects(net)  # slices of an mAP do not merge, and it is all that the log has
        self._scratch = Path(tempfile.mkdtemp(prefix="distcalib-")).resolve()
        self.setting = CaffeSetting(setting, build.executable, weights.resolve(), self._scratch, n_labels)

    def job(self, key: str, spec: NetSpec, n_iterations: int, label: str, n_actors: int) -> Job:
        """A job that scores `spec`, a slice an actor.  Raises DataError if there is no room for the slices."""
        slices = Slices(n_iterations, 1 if self._is_whole else min(n_iterations, n_actors))
        if slices not in self._checked:
            self._check_space(slices.parts)
            self._checked.add(slices)
        return Job(key, CaffeSpec(spec, slices), slices.n_slices, label, tuple(map(len, slices.parts)))

    def close(self) -> None:
        """Remove the scratch folder; twice does no harm."""
        for _ in range(_REMOVALS):
            shutil.rmtree(self._scratch, ignore_errors=True)
            if not self._scratch.exists():
                return
            time.sleep(_BETWEEN_SECONDS)

    def _check_space(self, parts: Sequence[range]) -> None:
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


def flat(result: JobResult) -> tuple[object, ...]:
    """The rows of a job with those of its slices in their place."""
    return tuple(row for unit in result.rows for row in (unit if isinstance(unit, tuple) else (unit,)))


def _n_labels(net: Net, data_shapes: Shapes) -> dict[str, int]:
    """How many labels the accuracy of an iteration is of, by top; without those that ignore some."""
    made, _ = layer_shapes(net.graph, ZeroBlobs(), data_shapes, net.name)
    shapes = {**{Blob(name, 0): shape for name, shape in data_shapes.items()}, **made}
    return {
        node.tops[0].name: prod(shapes[node.bottoms[1]])
        for node in net.graph
        if node.type == "Accuracy" and not node.layer.accuracy_param.HasField("ignore_label")
    }
