"""The two runtimes as those who are given a file run it: OpenVINO and ONNX Runtime, without the engine.

ONNX and ONNX Runtime are an extra, and imported here and in the onnx_*.py files alone.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from distcalib.caffe.paths import special
from distcalib.data import Pixels
from distcalib.engine.spec import is_int8_kernel
from distcalib.errors import EngineError, FormatError, OptionError
from distcalib.exporters.preprocess import in_form

Array = NDArray[Any]
INTEGER_OPS = frozenset({"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "QGemm"})
"""The operators of ONNX Runtime that multiply integers."""
MULTIPLIERS = INTEGER_OPS | {"Conv", "FusedConv", "MatMul", "Gemm", "FusedGemm", "ConvTranspose", "FusedMatMul"}
"""All that multiply."""


class Runtime:
    """A model, ready to run: its inputs with the sizes they take (None: any), its outputs, what was noted in it."""

    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: Sequence[str]
    info: Mapping[str, str]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, own copies.  Raises EngineError."""
        raise NotImplementedError

    def kernels(self) -> tuple[int, int]:
        """How many layers multiply integers, and how many multiply."""
        raise NotImplementedError


def need_onnx(where: str = "--to onnx") -> None:
    """Raise OptionError where the extra is not installed; it begins with what needs it."""
    lacking = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if lacking:
        raise OptionError(
            f"{where}: {' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed; "
            "run: pip install 'distcalib[onnx]'"
        )


def beside(path: Path) -> Path:
    """Where the weights of the file `path` are, if they are not in it."""
    return path.with_suffix(".bin") if path.suffix == ".xml" else path.with_name(f"{path.name}.data")


def open_model(path: Path, n_threads: int = 1) -> Runtime:
    """The model in its own runtime, by its suffix.  Raises OptionError, FormatError."""
    for one in (path, beside(path)):
        if kind := special(one):
            raise FormatError(f"{one}: is {kind}, not a file; name a model.xml or model.onnx that was exported")
    if not path.is_file():
        raise FormatError(f"{path}: does not exist; name a model.xml or model.onnx that was exported")
    if path.suffix == ".xml":
        return OpenVino(path, n_threads)
    if path.suffix == ".onnx":
        need_onnx(str(path))
        return OnnxRuntime(path, n_threads)
    if path.suffix == ".unverified":
        raise OptionError(
            f"{path}: was refused by export; export again, with an --accept-drop that it meets, or verify it under a "
            f"name without .unverified"
        )
    raise OptionError(f"{path}: is neither a model.xml of OpenVINO nor a model.onnx; give one of them")


class OpenVino(Runtime):
    """An IR in OpenVINO."""

    def __init__(self, path: Path, n_threads: int) -> None:
        try:
            model = ov.Core().read_model(str(path))
            config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": n_threads, "NUM_STREAMS": 1}
            self._compiled = ov.Core().compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise FormatError(f"{path}: OpenVINO cannot read it: {_last_line(error)}") from error
        self._path = path
        self._request = self._compiled.create_infer_request()
        self.inputs = {port.get_any_name(): _sizes(port) for port in self._compiled.inputs}
        self.outputs = [port.get_any_name() for port in self._compiled.outputs]
        self.info = _info_of(model)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name."""
        try:
            results = self._request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise EngineError(f"{self._path}: OpenVINO failed: {_last_line(error)}") from error
        return {name: np.array(results[i]) for i, name in enumerate(self.outputs)}

    def kernels(self) -> tuple[int, int]:
        """By the execution types of the compiled model."""
        kinds = []
        for op in self._compiled.get_runtime_model().get_ordered_ops():
            info = op.get_rt_info()
            if info["layerType"].astype(str) in ("Convolution", "FullyConnected", "MatMul"):
                kinds.append(info["primitiveType"].astype(str))
        return sum(map(is_int8_kernel, kinds)), len(kinds)


class OnnxRuntime(Runtime):
    """An ONNX file in ONNX Runtime's CPU provider."""

    def __init__(self, path: Path, n_threads: int) -> None:
        import onnxruntime

        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no base of their own
            raise FormatError(f"{path}: ONNX Runtime cannot read it: {_last_line(error)}") from error
        self.inputs = {port.name: _dims(port.shape) for port in self._session.get_inputs()}
        self.outputs = [port.name for port in self._session.get_outputs()]
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.info = {key.removeprefix("distcalib."): value for key, value in metadata.items()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name."""
        try:
            results = self._session.run(list(self.outputs), dict(feeds))
        except Exception as error:
            raise EngineError(f"{self._path}: ONNX Runtime failed: {_last_line(error)}") from error
        return dict(zip(self.outputs, results, strict=True))

    def kernels(self) -> tuple[int, int]:
        """By the operators of the graph as ONNX Runtime has fused it."""
        kinds = optimized_ops(self._path)
        return sum(kinds[name] for name in INTEGER_OPS), sum(kinds[name] for name in MULTIPLIERS)


def images_per_second(path: Path, batch: int, image: Pixels | None = None, seconds: float = 1.0) -> float:
    """Of one core, the inference alone, on values in [0, 1), or on copies of `image` (C, H, W) if the file takes
    images: the best of three loops.
    """
    runtime = open_model(path)
    sizes = [n for shape in runtime.inputs.values() for n in shape[:1]]
    n = (sizes[0] if sizes else None) or batch
    feeds: dict[str, Array]
    if image is not None:
        [name] = runtime.inputs
        [(_, given)] = in_form([image] * n, runtime.info["preprocess"])
        feeds = {name: given}
    else:
        rng = np.random.default_rng(0)
        shapes = {
            name: [size or (n if i == 0 else 1) for i, size in enumerate(s)] for name, s in runtime.inputs.items()
        }
        feeds = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    runtime.run(feeds)
    best = 0.0
    for _ in range(3):
        begin, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - begin) < seconds / 3 or not count:
            runtime.run(feeds)
            count += 1
        best = max(best, count * n / spent)
    return best


def optimized_ops(path: Path) -> Counter[str]:
    """How many operators of each kind ONNX Runtime runs."""
    import tempfile

    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    return Counter(node.op_type for node in graph.node)


def _sizes(port: Any) -> tuple[int | None, ...]:
    return tuple(int(dim.get_length()) if dim.is_static else None for dim in port.get_partial_shape())


def _dims(shape: Sequence[object]) -> tuple[int | None, ...]:
    return tuple(dim if isinstance(dim, int) else None for dim in shape)


def _info_of(model: ov.Model) -> dict[str, str]:
    if not model.has_rt_info("distcalib"):
        return {}
    return {key: str(value.astype(str)) for key, value in dict(model.get_rt_info("distcalib").astype(dict)).items()}


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
