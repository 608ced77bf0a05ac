"""`calibrate --export`: files of the delivered net beside it, and what the report says of them."""

from pathlib import Path

import pytest

from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.errors import OptionError
from tests.calibration.reports import fields_of
from tests.cpu import needs_vnni
from tests.session.tiny import ITERATIONS, Tiny

pytest.importorskip("onnxruntime")


@needs_vnni
@pytest.mark.slow
@pytest.mark.usefixtures("actors")
@pytest.mark.parametrize("recovered", [False, True], ids=["its weights", "new weights"])
def test_calibrate_exports_what_it_delivers(tiny: Tiny, tmp_path: Path, recovered: bool) -> None:
    options = CalibrationOptions(
        recover="off",
        iterations=ITERATIONS,
        out=tmp_path,
        n_actors=1,
        export=("openvino", "onnx"),
        accuracy_loss=0.05,
        equalize=recovered,
    )
    report = calibrate(tiny.prototxt, tiny.weights, options)
    assert {path.name for path in tmp_path.iterdir()} >= {"model.xml", "model.bin", "model.onnx"}
    assert [one.target for one in report.exported] == ["openvino", "onnx"]
    for one in report.exported:
        assert one.verified
        assert one.n_int8_kernels == len(report.int8_layers)
        assert one.scores["accuracy-top1"] == pytest.approx(report.score, abs=1e-9)
        assert one.images_per_second is None  # the same bytes on any machine
    assert sorted(report.exported_images_per_second) == ["onnx FP32", "onnx INT8", "openvino FP32", "openvino INT8"]
    written = fields_of(tmp_path / "report.json")
    assert [one["verified"] for one in written["exported"]] == [True, True]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Files to deploy</h2>" in page
    assert "model.onnx" in page


@pytest.mark.parametrize(("others", "flag"), [({"performance_model": True}, "-p"), ({"root": "caffe/build"}, "-r")])
def test_options_refuse_to_export_what_cannot_be_measured_so(others: dict[str, object], flag: str) -> None:
    with pytest.raises(OptionError, match=f"--export: cannot go with {flag}"):
        CalibrationOptions(export=("openvino",), **others)  # type: ignore[arg-type]
