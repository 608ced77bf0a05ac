"""`distcalib calibrate`: exit codes, the last line, JSON."""

import json
from pathlib import Path

import pytest

from distcalib.cli.arguments import model_of
from distcalib.cli.calibrate import options_of
from distcalib.cli.exit_codes import BELOW_FLOOR, OK
from distcalib.cli.main import main, make_parser
from distcalib.report.form import ungrouped
from tests.session.tiny import ITERATIONS, Tiny, make_tiny

pytestmark = pytest.mark.usefixtures("one_ray")

COUNTS = ["-i", str(ITERATIONS), "-s", "2", "--keep-weights"]


def test_calibrate_ends_with_the_verdict(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *tiny.args, *COUNTS, "-n", "accuracy-top1", "-l", "0.01", "--out", str(tmp_path)]) == OK
    out, err = capsys.readouterr()
    assert err == ""
    *lines, listed, verdict = out.splitlines()
    assert lines[0] == "net.prototxt: 13 layers, batch 8; starting actors"
    assert "FP32: accuracy-top1 = 0.854167" in lines
    assert listed == "in FP32 again: conv3"
    assert verdict.startswith("Tolerance 0.01 met: accuracy-top1 ")
    assert verdict.endswith(f"with 2 of 3 quantizable layers in INT8; wrote {tmp_path}/net_quantized.prototxt")


def test_calibrate_exits_with_2_when_the_tolerance_is_not_met(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*tiny.args, *COUNTS, "--actors", "1", "--strategy", "none", "-l", "0", "--out", str(tmp_path)]
    assert main(["calibrate", *args]) == BELOW_FLOOR == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("Tolerance 0 NOT met: ")
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"net_quantized.prototxt", "report.json", "report.html", "distcalib.db"}


def test_calibrate_pareto_is_a_table_that_marks_what_was_delivered(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *tiny.args, *COUNTS, "--actors", "1", "--pareto", "--out", str(tmp_path)]) == OK
    out = capsys.readouterr().out
    [head] = [line for line in out.splitlines() if "images/s an actor" in line]
    assert head.split()[-3:] == ["layers", "in", "FP32"]
    assert "drop" in head
    delivered = [line for line in out.splitlines() if line.lstrip(" *").startswith("> ")]
    assert len(delivered) == 1
    assert delivered[0].endswith("1: conv3") or "1: conv3 " in delivered[0]
    assert "3: conv2, conv3, conv4" in out
    assert out.splitlines()[-1].startswith("Tolerance 0.01 met")


def test_calibrate_json_is_alone_on_stdout(tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    args = [*tiny.args, *COUNTS, "--actors", "1", "-c", "multiple", "-1st", "--json", "--out", str(tmp_path)]
    assert main(["calibrate", *args]) == OK
    out, err = capfd.readouterr()
    assert out == (tmp_path / "report.json").read_text()
    found = ungrouped(json.loads(out))
    assert found["weights_channel"] == "multiple"
    assert "conv1" in found["int8_layers"] + found["fp32_layers"]
    assert "starting actors" in err


def test_calibrate_quantize_model_writes_without_measuring(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *tiny.args, "-q", "-s", "2", "--actors", "1", "--out", str(tmp_path)]) == OK
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"Quantized, not measured: 3 of 3 quantizable layers in INT8; wrote {tmp_path}/net_quantized.prototxt"
    )


@pytest.mark.parametrize("flags", [["-fu"], ["--first_conv_force_u8", "-clx"]], ids=["halved", "clx"])
def test_calibrate_force_u8_names_both_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    tiny = make_tiny(tmp_path / "net", encoded=True)
    assert main(["calibrate", *tiny.args, "-q", "-s", "2", *flags, "--actors", "1", "--out", str(tmp_path)]) == OK
    assert capsys.readouterr().out.splitlines()[-1] == (
        "Quantized, not measured: 4 of 4 quantizable layers in INT8; "
        f"wrote {tmp_path}/net_quantized_force_u8.prototxt and {tmp_path}/net_new.caffemodel"
    )


@pytest.mark.parametrize(
    ("words", "recover", "both"),
    [
        (["net.prototxt"], "auto", False),
        (["--recover", "net.prototxt"], "auto", True),
        (["net.prototxt", "--recover"], "auto", True),
        (["--recover", "on", "net.prototxt"], "auto", True),
        (["--recover", "off", "net.prototxt"], "off", False),
        (["--recover=off", "net.prototxt"], "off", False),
        (["--keep-weights", "net.prototxt"], "off", False),
        (["--recover", "auto", "net.prototxt"], "auto", False),
        (["--recover", "off", "net.prototxt", "--recover"], "auto", True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_recover_takes_no_word_that_it_does_not_know(words: list[str], recover: str, both: bool) -> None:
    args = make_parser().parse_args(["calibrate", *words, "-w", "net.caffemodel"])
    options = options_of(args)
    assert str(model_of(args)) == "net.prototxt"
    assert (options.recover, options.equalize, options.bias_correction) == (recover, both, both)
