"""INT8 calibration of Caffe models, with the accuracy measured on real INT8 kernels.

    report = distcalib.calibrate("net.prototxt", "net.caffemodel", distcalib.CalibrationOptions(iterations=100))
    print(report.verdict)

The names below are imported when they are first used: OpenVINO and Ray take a second, which `--help`, a wrong flag
and an early Ctrl-C should not wait for.

OpenVINO's telemetry is off wherever this package is imported, in the driver and in the actors: `import openvino` would
send an event, wait for a name server where none answers, leave a file in HOME, and fail without one. It does without
where the module that sends cannot be imported, so that is made impossible; there is no other switch that needs no HOME.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from distcalib.version import __version__

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it is an ImportError

if TYPE_CHECKING:
    from distcalib.actors.cancellation import Cancellation, Cancelled
    from distcalib.calibration.calibrate import calibrate
    from distcalib.calibration.options import CalibrationOptions
    from distcalib.calibration.run_record import Interrupted
    from distcalib.errors import (
        DataError,
        DistcalibError,
        EngineError,
        FormatError,
        MeasureError,
        OptionError,
        OutputError,
        UnsupportedError,
        WeightsError,
    )
    from distcalib.report import CalibrationReport, CandidateRecord, Evaluation, read_report
    from distcalib.session.evaluate import evaluate
    from distcalib.session.inspect import Inspection, LayerInfo, inspect
    from distcalib.session.options import EvaluationOptions
    from distcalib.session.progress import Reporter

__all__ = [
    "CalibrationOptions",
    "CalibrationReport",
    "Cancellation",
    "Cancelled",
    "CandidateRecord",
    "DataError",
    "DistcalibError",
    "EngineError",
    "Evaluation",
    "EvaluationOptions",
    "FormatError",
    "Inspection",
    "Interrupted",
    "LayerInfo",
    "MeasureError",
    "OptionError",
    "OutputError",
    "Reporter",
    "UnsupportedError",
    "WeightsError",
    "__version__",
    "calibrate",
    "evaluate",
    "inspect",
    "read_report",
]

_WHERE = {
    "Cancellation": "distcalib.actors.cancellation",
    "Cancelled": "distcalib.actors.cancellation",
    "CalibrationOptions": "distcalib.calibration.options",
    "CalibrationReport": "distcalib.report",
    "CandidateRecord": "distcalib.report",
    "Evaluation": "distcalib.report",
    "EvaluationOptions": "distcalib.session.options",
    "Inspection": "distcalib.session.inspect",
    "Interrupted": "distcalib.calibration.run_record",
    "LayerInfo": "distcalib.session.inspect",
    "Reporter": "distcalib.session.progress",
    "calibrate": "distcalib.calibration.calibrate",
    "evaluate": "distcalib.session.evaluate",
    "inspect": "distcalib.session.inspect",
    "read_report": "distcalib.report",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'distcalib' has no attribute '{name}'")
    return getattr(import_module(_WHERE.get(name, "distcalib.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
