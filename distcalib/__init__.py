"""INT8 calibration of Caffe models, with the accuracy measured on real INT8 kernels.

report = distcalib.calibrate("net.prototxt", "net.caffemodel", distcalib.CalibrationOptions(iterations=100))
print(report.verdict)
"""

from distcalib.report import CalibrationReport, CandidateRecord, Evaluation
from distcalib.run.calibration import calibrate
from distcalib.run.evaluation import evaluate
from distcalib.run.options import CalibrationOptions
from distcalib.version import __version__

__all__ = [
    "CalibrationOptions",
    "CalibrationReport",
    "CandidateRecord",
    "Evaluation",
    "__version__",
    "calibrate",
    "evaluate",
]
