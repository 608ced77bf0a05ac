"""An OpenVINO IR: model.xml and model.bin, in FP32 and int8 as they are.

Without compress_to_fp16=False OpenVINO would store FP32 weights as FP16, and the score would be another than the one
that was measured.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import openvino as ov

from distcalib.errors import OutputError
from distcalib.exporters.building import Exported

SECTION = "distcalib"
"""The key of rt_info under which a file tells where it comes from."""


def save_ir(exported: Exported, path: Path, info: Mapping[str, object]) -> None:
    """Write `path`, an .xml, and its .bin; `info` goes into rt_info, one text an entry.  Raises OutputError."""
    for key, value in info.items():
        exported.model.set_rt_info(value if isinstance(value, str) else json.dumps(value), [SECTION, key])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ov.save_model(exported.model, str(path), compress_to_fp16=False)
    except (OSError, RuntimeError) as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        raise OutputError(f"{path}: cannot be written: {reason}; free some space, or choose another --out") from error
