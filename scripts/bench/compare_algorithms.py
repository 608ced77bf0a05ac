"""What each algorithm of -a, `auto` too, does to a net's output and to its score, all layers in INT8; a table a way of
quantizing.

    python scripts/bench/compare_algorithms.py [-m net.prototxt -w net.caffemodel] [-i 100] [-s 10]

Without a net, resnet20 of the recorded data is taken (DISTCALIB_GOLDEN, or ../shared).  The errors are those of
`auto`'s report: on the sampled iterations, relative to the squares of the FP32 output.  The scores are over all
iterations.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.quantize.thresholds import ALGORITHMS, AUTO
from distcalib.report import CalibrationReport

# Name, -c, -1st.
WAYS = (
    ("single", "single", False),
    ("multiple", "multiple", False),
    ("single, `-1st`", "single", True),
    ("multiple, `-1st`", "multiple", True),
)


def main() -> None:
    """Calibrate once an algorithm and way, and print."""
    folder = Path(os.environ.get("DISTCALIB_GOLDEN") or Path(__file__).resolve().parents[3] / "shared") / "cifar10"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, default=folder / "resnet20.prototxt")
    parser.add_argument("-w", "--weights", type=Path, default=folder / "resnet20.caffemodel")
    parser.add_argument("-i", "--iterations", type=int, default=100)
    parser.add_argument("-s", "--sampling_iterations", type=int, default=10)
    args = parser.parse_args()
    base = CalibrationOptions(
        iterations=args.iterations, sampling_iterations=args.sampling_iterations, strategy="none", accuracy_loss=1.0
    )
    print(f"| way | | {' | '.join((*ALGORITHMS, AUTO))} |\n| --- | --- |{' --- |' * (len(ALGORITHMS) + 1)}")
    for way, channel, first in WAYS:
        options = replace(base, weights_channel=channel, enable_1st_conv=first)
        reports = {name: run(args, replace(options, calibration_algos=name)) for name in (*ALGORITHMS, AUTO)}
        errors = [f"{error:.2e}" for error in reports[AUTO].output_errors.values()]
        print(f"| {way} | error | {' | '.join(errors)} |")
        print(f"| | {reports[AUTO].metric} | {' | '.join(f'{report.score:.6g}' for report in reports.values())} |")
    print(f"\nFP32: {reports[AUTO].metric} {reports[AUTO].fp32_score:.6g}")


def run(args: argparse.Namespace, options: CalibrationOptions) -> CalibrationReport:
    """A calibration whose files nobody needs."""
    with tempfile.TemporaryDirectory() as folder:
        return calibrate(args.model, args.weights, replace(options, out=Path(folder)))


if __name__ == "__main__":
    main()
