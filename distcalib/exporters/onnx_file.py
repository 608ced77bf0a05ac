"""An ONNX file of the model that is exported, checked with full shape inference before it is written."""

import json
from collections.abc import Mapping
from pathlib import Path

import onnx

from distcalib.errors import EngineError, OutputError, UnsupportedError
from distcalib.exporters.building import Exported
from distcalib.exporters.onnx_operators import TABLE, translate
from distcalib.exporters.onnx_writer import Writer
from distcalib.version import __version__

_LARGEST = 2**31 - 2**20
"""What protobuf holds in one message; weights of more go into a file beside it."""


def to_onnx(exported: Exported, where: str) -> onnx.ModelProto:
    """The model in ONNX, without custom domains.  Raises UnsupportedError naming all operators that ONNX lacks."""
    ops = exported.model.get_ordered_ops()
    lacking = {
        f"{where}: layer '{op.get_friendly_name()}': ONNX has no operator like OpenVINO's {op.get_type_name()}"
        for op in ops
        if op.get_type_name() not in TABLE
    }
    if lacking:
        raise UnsupportedError("; ".join(sorted(lacking)) + "; export with --to openvino")
    writer = Writer()
    inputs = list(zip([p.output(0) for p in exported.model.get_parameters()], exported.inputs, strict=True))
    for output, name in inputs:
        writer.put(output, writer.unique(name))
    for op in ops:
        translate(writer, op)
    results = [result.input_value(0) for result in exported.model.get_results()]
    return writer.model(inputs, list(zip(results, exported.names, strict=True)))


def save_onnx(exported: Exported, path: Path, info: Mapping[str, object], where: str) -> None:
    """Write `path`, an .onnx; `info` goes into its metadata.  Raises UnsupportedError, EngineError and OutputError."""
    model = to_onnx(exported, where)
    model.producer_name, model.producer_version = "distcalib", __version__
    for key, value in info.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f"distcalib.{key}", value if isinstance(value, str) else json.dumps(value)
    large = model.ByteSize() > _LARGEST
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {"save_as_external_data": True, "location": f"{path.name}.data"} if large else {}
        onnx.save_model(model, str(path), **data)
        onnx.checker.check_model(str(path), full_check=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise EngineError(f"{path}: is not what ONNX allows: {error}") from error
