"""INT8 calibration of Caffe models, with the accuracy measured on real INT8 kernels.

    report = distcalib.calibrate("net.prototxt", "net.caffemodel", distcalib.CalibrationOptions(accuracy_loss=0.01))
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
    from distcalib.report import CalibrationReport, CandidateRecord, Evaluation, ExportedFile, read_report
    from distcalib.session.evaluate import evaluate
    from distcalib.session.export import export
    from distcalib.session.export_options import ExportOptions
    from distcalib.session.inspect import Inspection, LayerInfo, inspect
    from distcalib.session.options import EvaluationOptions
    from distcalib.session.progress import Reporter
    from distcalib.session.verify import verify

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
    "ExportOptions",
    "ExportedFile",
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
    "export",
    "inspect",
    "read_report",
    "verify",
]

_WHERE = {
    "CalibrationOptions": "distcalib.calibration.options",
    "CalibrationReport": "distcalib.report",
    "Cancellation": "distcalib.actors.cancellation",
    "Cancelled": "distcalib.actors.cancellation",
    "CandidateRecord": "distcalib.report",
    "Evaluation": "distcalib.report",
    "EvaluationOptions": "distcalib.session.options",
    "ExportOptions": "distcalib.session.export_options",
    "ExportedFile": "distcalib.report",
    "Inspection": "distcalib.session.inspect",
    "Interrupted": "distcalib.calibration.run_record",
    "LayerInfo": "distcalib.session.inspect",
    "Reporter": "distcalib.session.progress",
    "calibrate": "distcalib.calibration.calibrate",
    "evaluate": "distcalib.session.evaluate",
    "export": "distcalib.session.export",
    "inspect": "distcalib.session.inspect",
    "read_report": "distcalib.report",
    "verify": "distcalib.session.verify",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'distcalib' has no attribute '{name}'")
    return getattr(import_module(_WHERE.get(name, "distcalib.errors")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
