"""Without `-i` a score is that of the whole test set, each record once; `--like-intel` takes 10 iterations."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import distcalib
from distcalib.cli.exit_codes import ERROR, OK
from distcalib.cli.main import main
from tests.session.tiny import BATCH, ITERATIONS, N_RECORDS, Tiny, make_tiny

pytestmark = pytest.mark.usefixtures("actors")


def test_evaluate_reads_each_record_once(tiny: Tiny) -> None:
    whole = distcalib.evaluate(tiny.prototxt, tiny.weights)
    asked = distcalib.evaluate(tiny.prototxt, tiny.weights, distcalib.EvaluationOptions(iterations=ITERATIONS))
    assert whole.n_iterations == ITERATIONS == N_RECORDS // BATCH
    assert whole.scores == asked.scores
    assert not any("looked at" in said or "counted" in said for said in whole.warnings)


@pytest.mark.parametrize(("batch", "n", "better", "left"), [(9, 5, 8, "3 records are"), (47, 1, 24, "1 record is")])
def test_evaluate_leaves_the_rest_of_a_batch_and_says_so(
    tmp_path: Path, batch: int, n: int, better: int, left: str
) -> None:
    tiny = make_tiny(tmp_path, edit=lambda text: text.replace("batch_size: 8", f"batch_size: {batch}"))
    found = distcalib.evaluate(tiny.prototxt, tiny.weights)
    assert found.n_iterations == n
    [said] = [one for one in found.warnings if "never looked at" in one]
    assert said.endswith(
        f"{left} never looked at (-i {n} x batch {batch} = {n * batch} of 48); batch_size {better} reads each once"
    )


def test_calibrate_writes_the_same_file_and_the_number_into_the_report(tiny: Tiny, tmp_path: Path) -> None:
    found = []
    for name, iterations in (("whole", None), ("asked", ITERATIONS)):
        options = distcalib.CalibrationOptions(iterations=iterations, sampling_iterations=9, out=tmp_path / name)
        found.append(distcalib.calibrate(tiny.prototxt, tiny.weights, options))
    whole, asked = found
    assert whole.n_iterations == ITERATIONS
    assert (whole.sha256, whole.score, whole.candidates) == (asked.sha256, asked.score, asked.candidates)
    assert f"-i {ITERATIONS}" in whole.commands["calibrate"]
    assert f"-i {ITERATIONS}" in whole.commands["evaluate"]


@pytest.mark.slow
def test_calibrate_reads_what_is_sampled_beyond_the_whole(tmp_path: Path) -> None:
    """Shipped records are those of the sampled iterations, too, which a whole of one iteration does not have."""
    tiny = make_tiny(tmp_path / "net", edit=lambda text: text.replace("batch_size: 8", "batch_size: 30"))
    options = distcalib.CalibrationOptions(sampling_iterations=2, strategy="none", ship_data=True, out=tmp_path / "out")
    plain = replace(options, ship_data=False, out=tmp_path / "plain")
    shipped, read = (distcalib.calibrate(tiny.prototxt, tiny.weights, one) for one in (options, plain))
    assert shipped.n_iterations == read.n_iterations == 1
    assert shipped.score == read.score


def test_calibrate_quantize_model_scores_nothing(tiny: Tiny, tmp_path: Path) -> None:
    options = distcalib.CalibrationOptions(quantize_model=True, sampling_iterations=2, out=tmp_path)
    found = distcalib.calibrate(tiny.prototxt, tiny.weights, options)
    assert found.n_iterations == 0
    assert "-i" not in found.commands["evaluate"].split(), "the next command takes all of the data"


@pytest.mark.slow
def test_export_and_verify_measure_over_all(tiny: Tiny, tmp_path: Path) -> None:
    [one] = distcalib.export(tiny.prototxt, tiny.weights, distcalib.ExportOptions(out=tmp_path, n_actors=1))
    assert one.n_iterations == ITERATIONS
    again = distcalib.verify(one.path, tiny.prototxt, tiny.weights, distcalib.ExportOptions(n_actors=1))
    assert again.n_iterations == ITERATIONS
    assert again.scores == one.scores


def test_like_intel_takes_ten_iterations(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *tiny.args, "--like-intel", "--actors", "1", "--json"]) == OK
    found = json.loads(capfd.readouterr().out)
    assert found["n_iterations"] == 10


@pytest.mark.parametrize("command", ["calibrate", "evaluate"])
def test_like_intel_and_a_number_exclude_each_other(
    tiny: Tiny, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    assert main([command, *tiny.args, "--like-intel", "-i", "3"]) == ERROR
    assert capfd.readouterr().err == (
        "distcalib: --like-intel: says what a run without -i takes, and -i 3 is given; leave out one\n"
    )


def test_data_without_an_end_ask_for_a_number(tmp_path: Path, tiny: Tiny) -> None:
    text = tiny.prototxt.read_text()
    begin, end = text.index('layer { name: "data"'), text.index('layer { name: "conv1"')
    dummy = (
        'layer { name: "noise" type: "DummyData" top: "data" top: "label" dummy_data_param {\n'
        "  shape { dim: 8 dim: 3 dim: 8 dim: 8 } shape { dim: 8 } } }\n"
    )
    net = tmp_path / "dummy.prototxt"
    net.write_text(text[:begin] + dummy + text[end:])
    with pytest.raises(distcalib.OptionError) as error:
        distcalib.evaluate(net, tiny.weights)
    assert "layer 'noise' does not tell how many records it has; give -i, the number of iterations" in str(error.value)
    asked = distcalib.EvaluationOptions(iterations=2, n_actors=1)
    assert distcalib.evaluate(net, tiny.weights, asked).n_iterations == 2
