"""A compiled model: made once, exported as bytes, imported by every actor.

Even the actor that compiled it imports it, so that all actors run what came out of the very same bytes.
`INFERENCE_PRECISION_HINT=f32`, or a CPU with AMX silently runs FP32 as bf16; one stream and no pinning of OpenVINO's
own, because the actor is pinned already.
"""

import errno
import io
import os
import pickle
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob
from distcalib.data import Pixels
from distcalib.engine.builder import BuiltModel
from distcalib.engine.shared_memory import ALIGNMENT, lent
from distcalib.engine.spec import ElsewhereSpec, NetSpec
from distcalib.errors import EngineError

Array = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_LOWERED = "/DequantizationMultiply"  # what OpenVINO appends to the name of a layer that it lowered to INT8
_MORE_THREADS = "it may make no more threads: allow more (docker --pids-limit, ulimit -u), or use fewer --actors"
_MULTIPLIERS = frozenset({"Convolution", "FullyConnected", "MatMul"})


@dataclass(frozen=True)
class Header:
    """What travels in front of the exported model: the spec it was made from, and what goes in and out."""

    spec: NetSpec
    inputs: tuple[str, ...]
    outputs: tuple[Blob, ...]
    taps: tuple[Blob, ...]
    kernels: Mapping[str, str]
    emulated: bool
    watched: tuple[Blob, ...] = ()
    is_proven: bool = True
    """Whether the watched values prove all others to be finite where they are small, see soundness.py."""
    tap_sizes: tuple[int, ...] = ()
    """How many pairs of ends each tap has: one, or one a channel."""

    @property
    def int8_kernels(self) -> Mapping[str, str] | None:
        """`kernels`, which tell whether INT8 layers run as such; None where they are emulated, since all are FP32."""
        return None if self.emulated else self.kernels


def _config(n_threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": n_threads,
        "ENABLE_CPU_PINNING": False,
    }


def compile_program(built: BuiltModel, spec: NetSpec, n_threads: int, is_proven: bool = True) -> Bytes:
    """Compile and export: a flat uint8 array that Program takes.  Raises EngineError."""
    compiled = compile_model(built, spec.where, n_threads)
    light = replace(spec, changed={})  # they are in the exported model
    kernels = _kernels(compiled, built.multipliers)
    inside = kernels, built.emulated, built.watched, is_proven, built.tap_sizes
    made = Header(light, built.inputs, built.outputs, built.taps, *inside)
    header = pickle.dumps(made)
    header += bytes(-(len(header) + 8) % ALIGNMENT)  # the exported model begins aligned
    stream = io.BytesIO(np.int64(len(header)).tobytes() + header)
    stream.seek(0, io.SEEK_END)
    compiled.export_model(stream)  # behind the header: joined afterwards, the weights would be here once more
    return np.frombuffer(stream.getbuffer(), np.uint8)


class LocalProgram:
    """A model that is run where it was compiled and by nobody else: it need not be exported and imported."""

    def __init__(self, built: BuiltModel, where: str, n_threads: int) -> None:
        self._where = where
        self._inputs, self._outputs = built.inputs, built.outputs
        self._request = compile_model(built, where, n_threads).create_infer_request()

    def run(self, batch: Mapping[str, Array]) -> dict[Blob, Array]:
        """Inputs by name in, outputs (own copies) out."""
        return dict(zip(self._outputs, self.results(batch), strict=True))

    def results(self, batch: Mapping[str, Array]) -> list[Array]:
        """The same, in their order."""
        return [np.array(view) for view in self.views(batch)]

    def views(self, batch: Mapping[str, Array]) -> list[Array]:
        """The same where they lie, until the next call."""
        found = infer(self._request, self._inputs, batch, self._where)
        return [found[position] for position in range(len(self._outputs))]


class Program:
    """An imported model, ready to run on the threads of one actor."""

    def __init__(self, blob: Bytes, n_threads: int) -> None:
        """`blob` as compile_program made it; it may be a read-only view."""
        n_header = int(blob[:8].view(np.int64)[0])
        self.header: Header = pickle.loads(blob[8 : 8 + n_header].tobytes())
        # The model is used where it lies, so that the actors of a node share what the CPU plugin does not repack.
        # `_lent` comes after `_request`: attributes go in this order, and the memory must not go first.
        exported = lent(blob[8 + n_header :])
        try:
            tensor = ov.Tensor(exported, shared_memory=True)
            self._request = ov.Core().import_model(tensor, "CPU", _config(n_threads)).create_infer_request()
        except RuntimeError as error:
            raise EngineError(
                f"{self.header.spec.where}: OpenVINO cannot import the compiled net: {_first_line(error)}"
            ) from error
        self._lent = exported

    def run(self, batch: Mapping[str, Array]) -> tuple[dict[Blob, Array], Array | None]:
        """One batch in, the outputs (own copies) and, if there are taps, their (n_ends, 2) least and largest values."""
        outputs, ranges, _ = self.run_watched(batch)
        return outputs, ranges

    def run_watched(self, batch: Mapping[str, Array]) -> tuple[dict[Blob, Array], Array | None, Array]:
        """The same, and the sums of |x| of the values that are watched."""
        results = infer(self._request, self.header.inputs, batch, self.header.spec.where)
        outputs = {blob: np.array(results[position]) for position, blob in enumerate(self.header.outputs)}
        ranges = np.array(results[len(self.header.outputs)]) if self.header.taps else None
        place = len(self.header.outputs) + (ranges is not None)
        return outputs, ranges, np.array(results[place]) if self.header.watched else np.zeros(0, np.float32)


class ElsewhereProgram:
    """A model in another runtime, where the engine's own would be."""

    def __init__(self, spec: ElsewhereSpec, n_threads: int) -> None:
        # What kernels run is not asked for: `emulated` says that none are reported.
        self.header = Header(spec.net, (), spec.makes, (), {}, emulated=True)
        self.takes_images = spec.takes_images
        self._model = spec.open_model(n_threads)

    def run(self, batch: Mapping[str, Array], images: Sequence[Pixels] = ()) -> tuple[dict[Blob, Array], None]:
        """One batch in, the outputs out."""
        return dict(self._model(batch, images)), None


def compile_model(
    built: BuiltModel, where: str, n_threads: int, config: Mapping[str, Any] | None = None
) -> ov.CompiledModel:
    """Compile for one actor, `config` beside what all programs have.  Raises EngineError."""
    try:
        return ov.Core().compile_model(built.model, "CPU", {**_config(n_threads), **(config or {})})
    except RuntimeError as error:
        said = _first_line(error)
        remedy = f"; {_MORE_THREADS}" if os.strerror(errno.EAGAIN) in said else ""
        raise EngineError(f"{where}: OpenVINO cannot compile the net: {said}{remedy}") from error


def infer(request: ov.InferRequest, inputs: Sequence[str], batch: Mapping[str, Array], where: str) -> Any:
    """The results by position; views, until the next call.  Raises EngineError."""
    feeds = {position: batch[name] for position, name in enumerate(inputs)}
    try:
        return request.infer(feeds, share_inputs=True, share_outputs=True)
    except RuntimeError as error:
        raise EngineError(f"{where}: OpenVINO failed: {_first_line(error)}") from error


def kernels_by_op(compiled: ov.CompiledModel, layers: Collection[str]) -> dict[str, str]:
    """Which of `layers` each multiplying op of the compiled net runs, by the op's name."""
    return {op.get_friendly_name(): name for op, name in _multiplying(compiled, layers)}


def _kernels(compiled: ov.CompiledModel, layers: Collection[str]) -> dict[str, str]:
    """The primitive that runs each of `layers`, such as brgconv_avx512_I8."""
    primitives = {name: op.get_rt_info()["primitiveType"].astype(str) for op, name in _multiplying(compiled, layers)}
    return dict(sorted(primitives.items()))


def _multiplying(compiled: ov.CompiledModel, layers: Collection[str]) -> Iterator[tuple[ov.Node, str]]:
    """The ops that multiply, with the one of `layers` that each was made from."""
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        if info["layerType"].astype(str) in _MULTIPLIERS:
            originals = info["originalLayersNames"].astype(str).split(",")
            names = {name.removesuffix(_LOWERED) for name in originals}
            yield from ((op, name) for name in sorted(names.intersection(layers)))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
