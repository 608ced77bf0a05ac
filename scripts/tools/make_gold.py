"""Write tests/gold: what the two examples give, to the byte; tests/test_gold.py compares it on 1, 2 and 8 actors.

    python -m scripts.tools.make_gold

To be run when a result is meant to change; the change of the files then belongs to the commit that made it.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from distcalib.caffe import write_atomically
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.report.form import json_text

ROOT = Path(__file__).resolve().parents[2]
GOLD = ROOT / "tests" / "gold"
EXAMPLES = {
    "digits": CalibrationOptions(iterations=18, blob_name="accuracy-top1", accuracy_loss=0.01),
    "digit_scenes": CalibrationOptions(iterations=25, detection=True, accuracy_loss=0.01, recover="off"),
}
"""What `make demo` and `make demo-detection` ask; of the latter with the weights given, so that layers fall back."""
_OF_THE_MACHINE = ("run", "environment", "pictures")


def made(name: str, out: Path, n_actors: int) -> tuple[str, dict[str, Any]]:
    """The prototxt of an example, and its report without what depends on machine, versions and folders."""
    folder = ROOT / "examples" / name
    options = replace(EXAMPLES[name], out=out, n_actors=n_actors)
    report = calibrate(folder / f"{name}.prototxt", folder / f"{name}.caffemodel", options)
    found = json.loads((out / "report.json").read_text(encoding="utf-8"))
    kept = {group: value for group, value in found.items() if group not in _OF_THE_MACHINE}
    text = Path(report.output).read_text(encoding="utf-8").replace(f"{ROOT}/", "")
    for group, key in (("model", "model"), ("model", "weights"), ("output", "output"), ("output", "sha256")):
        del kept[group][key]
    del kept["output"]["output_weights"]  # a path; what it holds is told by its hash
    return text, kept


def main() -> None:
    for name in EXAMPLES:
        with tempfile.TemporaryDirectory() as folder:
            text, report = made(name, Path(folder), 1)
        write_atomically(GOLD / f"{name}_quantized.prototxt", text)
        write_atomically(GOLD / f"{name}.json", json_text(report))


if __name__ == "__main__":
    main()
