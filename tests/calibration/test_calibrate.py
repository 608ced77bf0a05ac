"""calibrate() from end to end, in real actors: what it delivers is what it measured."""

import hashlib
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from distcalib.caffe import read_net
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.errors import EngineError, OptionError, UnsupportedError, WeightsError
from distcalib.report import TIMING_KEYS, CalibrationReport
from tests.calibration.reports import fields_of
from tests.session.evaluated import evaluate
from tests.session.tiny import BATCH, ITERATIONS, QUANTIZABLE, Tiny, make_tiny

pytestmark = pytest.mark.usefixtures("actors")

OPTIONS = CalibrationOptions(iterations=ITERATIONS, recover="off", sampling_iterations=2, strategy="greedy", n_actors=1)

REQUIRED = {  # by the users of report.json
    *("fp32_score", "score", "metric", "tolerance", "met", "int8_layers", "fp32_layers", "n_iterations", "batch"),
    *("n_actors", "seconds", "cost_passes", "sha256", "isa", "versions", "candidates"),
}


class Notes:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int, int]] = []
        self.done: list[int] = []
        self.notes: list[str] = []

    def phase(self, name: str, n_iterations: int, batch: int) -> None:
        self.phases.append((name, n_iterations, batch))

    def advance(self, n_done: int, n_total: int) -> None:
        self.done.append(n_done)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def notes() -> Notes:
    return Notes()


@pytest.fixture(scope="module")
def greedy(tiny: Tiny, out: Path, notes: Notes) -> CalibrationReport:
    """A run that had to search, on two actors."""
    return calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=out, n_actors=2), reporter=notes)


def without_times(path: Path) -> dict[str, object]:
    return {key: value for key, value in fields_of(path).items() if key not in TIMING_KEYS}


def test_calibrate_finds_the_one_layer_that_int8_ruins(greedy: CalibrationReport) -> None:
    assert greedy.met
    assert greedy.fp32_layers == ("conv3",)
    assert greedy.int8_layers == ("conv2", "conv4")
    assert greedy.fp32_score is not None
    assert greedy.all_int8_score is not None
    assert greedy.fp32_score - greedy.all_int8_score > 0.3
    assert greedy.drop is not None
    assert greedy.drop <= greedy.tolerance == 0.01
    assert [record.fp32_layers for record in greedy.candidates] == [(), ("conv2",), ("conv3",), ("conv4",)]
    assert greedy.refused_layers.keys() == {"conv1", "fc"}


def test_calibrate_delivers_the_file_that_it_measured(greedy: CalibrationReport, tiny: Tiny, out: Path) -> None:
    file = out / "net_quantized.prototxt"
    assert greedy.output == str(file)
    assert greedy.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    params = {layer.name for layer in read_net(file).layer if layer.HasField("quantization_param")}
    assert params == set(greedy.int8_layers)
    found = evaluate(file, tiny.weights, ITERATIONS, n_actors=1)
    assert found.scores[greedy.metric] == greedy.score
    assert found.int8_layers == greedy.int8_layers


def test_calibrate_reports_all_that_was_asked_for(greedy: CalibrationReport, out: Path) -> None:
    written = fields_of(out / "report.json")
    assert (out / "report.json").read_text() == greedy.to_json()
    assert written.keys() >= REQUIRED
    assert written["batch"] == BATCH
    assert written["n_iterations"] == ITERATIONS
    assert written["n_sampled"] == 2
    assert written["n_actors"] == 2
    assert written["metric"] == "accuracy-top1"
    assert written["cost_passes"] > 1.0
    assert written["seconds"] > 0.0
    assert written["versions"].keys() >= {"distcalib", "openvino", "ray"}
    assert len(written["candidates"]) == 4


def test_calibrate_tells_its_phases_and_their_progress(greedy: CalibrationReport, notes: Notes) -> None:
    assert notes.phases == [
        ("FP32 and ranges", 1 + ITERATIONS, BATCH),
        ("all INT8", ITERATIONS, BATCH),
        ("round 1, 3 candidates", 3 * ITERATIONS, BATCH),
        ("speeds", 3 * 3, BATCH),
        ("details for the report", 1, BATCH),
    ]
    assert {1 + ITERATIONS, ITERATIONS, 3 * ITERATIONS} <= set(notes.done)
    assert notes.notes[-2].startswith("round 1, 3 candidates: accuracy-top1 = ")
    assert notes.notes[-2].endswith("1 layer in FP32: conv3")
    assert re.fullmatch(
        r"images/s of one core: FP32 \S+, all INT8 \S+, delivered \S+ \(\S+ times FP32\)", notes.notes[-1]
    )


def test_a_ranking_of_fewer_images_than_a_batch_says_so(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distcalib.calibration.ranking_sample.PICKED_IMAGES", 5)
    notes = Notes()
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, strategy="ranked"), reporter=notes)
    assert ("ranking 3 layers", 15, 1) in notes.phases
    assert {phase.name: phase.n_images for phase in report.phases}["ranking 3 layers"] == 15
    assert report.fp32_layers == ("conv3",)


def test_calibrate_tells_how_fast_the_nets_are_and_what_changed(greedy: CalibrationReport) -> None:
    assert list(greedy.core_images_per_second) == ["FP32", "all INT8", "delivered"]
    assert min(greedy.core_images_per_second.values()) > 0.0
    assert greedy.candidate_shares == (1.0,) * 4
    changes, n = greedy.changes, ITERATIONS * BATCH
    assert changes is not None
    assert changes.n_images == n
    assert (changes.lost - changes.gained) / n == pytest.approx(greedy.drop)
    assert len(changes.lost_images) == min(changes.lost, 50)


def test_calibrate_counts_iterations_where_a_row_is_of_several(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distcalib.calibration.observation.MAX_ROWS", 2)
    notes = Notes()
    options = replace(OPTIONS, out=tmp_path, strategy="none", sampling_iterations=ITERATIONS)
    calibrate(tiny.prototxt, tiny.weights, options, reporter=notes)
    assert notes.phases[0] == ("FP32 and ranges", 2 * ITERATIONS, BATCH)
    ends = [one for one, following in pairwise(notes.done) if following < one]
    assert ends[0] == 2 * ITERATIONS


def test_calibrate_gives_the_same_bytes_on_one_actor(
    greedy: CalibrationReport, tiny: Tiny, out: Path, tmp_path: Path
) -> None:
    one = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, n_actors=1))
    assert one.n_actors == 1
    name = "net_quantized.prototxt"
    assert (tmp_path / name).read_bytes() == (out / name).read_bytes()
    two = {**without_times(out / "report.json"), "output": str(tmp_path / name)}
    assert without_times(tmp_path / "report.json") == two


def test_calibrate_topological_goes_front_to_back(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, strategy="topological"))
    assert report.met
    assert report.fp32_layers == ("conv2", "conv3"), "conv2 stands before the one at fault"
    assert [record.fp32_layers for record in report.candidates] == [(), ("conv2",), ("conv2", "conv3")]


@pytest.mark.slow
def test_calibrate_none_delivers_all_int8_and_says_that_it_is_not_met(tiny: Tiny, tmp_path: Path) -> None:
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, strategy="none", accuracy_loss=0.0))
    assert report.met is False
    assert report.int8_layers == QUANTIZABLE
    assert "NOT met" in report.verdict
    assert (tmp_path / "net_quantized.prototxt").exists()
    assert fields_of(tmp_path / "report.json")["met"] is False


def test_calibrate_takes_a_gain_for_no_loss(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, int8_is_right=True)
    report = calibrate(net.prototxt, net.weights, replace(OPTIONS, accuracy_loss=0.0))
    assert report.met
    assert report.drop is not None
    assert report.drop < -0.3
    assert report.fp32_layers == ()
    assert len(report.candidates) == 1
    assert "gain" in report.verdict


def test_calibrate_by_a_loss_takes_lower_for_better(tiny: Tiny, tmp_path: Path) -> None:
    notes = Notes()
    report = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, blob_name="loss"), reporter=notes)
    assert report.met
    assert any(line.startswith("FP32: loss (lower is better) = ") for line in notes.notes)
    assert any(line.startswith("all INT8: loss = ") and ", rise " in line for line in notes.notes)
    assert "loss (lower is better)" in report.verdict
    assert report.lower_is_better
    assert report.score is not None
    assert report.fp32_score is not None
    assert report.all_int8_score is not None
    assert report.all_int8_score > report.fp32_score
    assert report.drop == pytest.approx(report.score - report.fp32_score)
    assert "conv3" in report.fp32_layers


@pytest.mark.slow
def test_calibrate_by_a_loss_tolerates_more_than_1(tiny: Tiny, tmp_path: Path) -> None:
    options = replace(OPTIONS, out=tmp_path, blob_name="loss", accuracy_loss=100.0)
    report = calibrate(tiny.prototxt, tiny.weights, options)
    assert report.met
    assert report.fp32_layers == ()


def test_calibrate_refuses_a_tolerance_that_no_accuracy_can_lose(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"-l 1\.5: is more than the accuracy 'accuracy-top1' can lose, which is at"):
        calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path, accuracy_loss=1.5))


@pytest.mark.parametrize("flag", ["quantize_model", "performance_model"])
def test_calibrate_without_measuring_needs_no_score(tmp_path: Path, flag: str) -> None:
    def without_scores(text: str) -> str:
        return text[: text.index('layer { name: "top1"')]

    net = make_tiny(tmp_path, edit=without_scores)
    report = calibrate(net.prototxt, net.weights, replace(OPTIONS, **{flag: True}))  # type: ignore[arg-type]
    assert (report.metric, report.lower_is_better, report.int8_layers) == ("", False, QUANTIZABLE)
    with pytest.raises(OptionError, match="no Accuracy layer to be scored by; add an Accuracy layer to its TEST phase"):
        calibrate(net.prototxt, net.weights, OPTIONS)


def test_calibrate_quantize_model_measures_nothing(tiny: Tiny, tmp_path: Path) -> None:
    notes = Notes()
    options = replace(OPTIONS, out=tmp_path, quantize_model=True)
    report = calibrate(tiny.prototxt, tiny.weights, options, reporter=notes)
    assert [name for name, *_ in notes.phases] == ["ranges"]
    assert (report.met, report.score, report.fp32_score, report.candidates) == (None, None, None, ())
    assert report.int8_layers == QUANTIZABLE
    assert report.verdict.startswith("Quantized, not measured")


def test_calibrate_channel_scales_and_first_convolution(tiny: Tiny, tmp_path: Path) -> None:
    options = replace(
        OPTIONS, out=tmp_path, quantize_model=True, weights_channel="multiple", enable_1st_conv=True, n_actors=1
    )
    report = calibrate(tiny.prototxt, tiny.weights, options)
    assert report.int8_layers == ("conv1", *QUANTIZABLE)
    layers = {layer.name: layer for layer in read_net(tmp_path / "net_quantized.prototxt").layer}
    assert len(layers["conv2"].quantization_param.scale_params) == 6
    assert layers["conv1"].quantization_param.is_negative_input


@pytest.mark.parametrize(
    "is_here",
    [pytest.param(True, marks=pytest.mark.slow), False],
    ids=["in_the_working_directory", "beside_the_prototxt"],
)
def test_calibrate_writes_a_file_that_evaluates_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_here: bool
) -> None:
    net = make_tiny(tmp_path / "model", source="db")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path / "model" if is_here else tmp_path)
    report = calibrate(net.prototxt, net.weights, replace(OPTIONS, out=tmp_path / "new" / "out", quantize_model=True))
    monkeypatch.chdir(elsewhere)
    assert evaluate(report.output, net.weights, 1, n_actors=1).int8_layers == QUANTIZABLE


def test_calibrate_keeps_a_relative_path_in_the_models_own_folder(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, source="db")
    report = calibrate(net.prototxt, net.weights, replace(OPTIONS, quantize_model=True, n_actors=1))
    assert 'source: "db"' in Path(report.output).read_text()


def test_calibrate_without_a_layer_for_int8_says_so(tmp_path: Path) -> None:
    def without_hidden_layers(text: str) -> str:
        start, end = text.index('layer { name: "conv2"'), text.index('layer { name: "fc"')
        return text[:start] + text[end:].replace('bottom: "conv4"', 'bottom: "conv1"')

    net, notes = make_tiny(tmp_path, edit=without_hidden_layers), Notes()
    with pytest.raises(WeightsError, match="layer 'fc': blob 0"):  # said later, by an actor
        calibrate(net.prototxt, net.weights, OPTIONS, reporter=notes)
    assert "no layer can run INT8; `distcalib inspect` tells why" in notes.notes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"iterations": 0}, "-i 0", id="iterations"),
        pytest.param({"sampling_iterations": 0}, "-s 0", id="sampling"),
        pytest.param({"accuracy_loss": -0.1}, "-l -0.1: must be 0 or more", id="negative_tolerance"),
        pytest.param({"accuracy_loss": float("nan")}, "-l nan: must be 0 or more", id="tolerance_nan"),
        pytest.param({"accuracy_loss": float("inf")}, "-l inf: must be 0 or more", id="tolerance_inf"),
        pytest.param({"calibration_algos": "MEDIAN"}, "-a MEDIAN", id="algorithm"),
        pytest.param({"weights_channel": "foo"}, "foo", id="channel"),
        pytest.param({"strategy": "magic"}, "--strategy magic", id="strategy"),
        pytest.param({"calibration_algos": "AUTO"}, "-a AUTO: unknown; choose .*, KL, MSE or auto", id="algorithm"),
        pytest.param({"clx": True}, "-clx: says for which CPU -fu scales weights, and -fu is not given", id="clx"),
        pytest.param(
            {"bias_correction": True, "performance_model": True},
            "--bias-correction: is for measured scales, and -p writes none",
            id="bias_correction_dummy",
        ),
        pytest.param(
            {"bias_correction": True, "equalize": True, "performance_model": True},
            "--equalize and --bias-correction: is for measured scales",
            id="recover_dummy",
        ),
        pytest.param(
            {"equalize": True, "first_conv_force_u8": True},
            "--equalize: and -fu each write a caffemodel of their own",
            id="equalize_u8",
        ),
        pytest.param(
            {"bias_correction": True, "first_conv_force_u8": True},
            "--bias-correction: and -fu each write a caffemodel of their own",
            id="bias_correction_u8",
        ),
        pytest.param(
            {"first_conv_force_u8": True, "performance_model": True},
            "-fu: needs scales, and -p writes none",
            id="fu_dummy",
        ),
    ],
)
def test_options_refuse_values_before_anything_is_read(options: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        CalibrationOptions(**options)  # type: ignore[arg-type]


def test_calibrate_leaves_what_is_there_alone_when_it_fails(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, edit=lambda text: text.replace("6 kernel_size: 1", "7 kernel_size: 1"))
    for name in ("net_quantized.prototxt", "report.json"):
        (tmp_path / name).write_text("old")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(WeightsError, match=r"conv3.*needs \(7, 6, 1, 1\)"):
        calibrate(net.prototxt, net.weights, OPTIONS)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "net_quantized.prototxt").read_text() == (tmp_path / "report.json").read_text() == "old"


def test_calibrate_makes_no_folder_when_it_fails(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(
        OptionError,
        match=r"net\.prototxt: -n foo: the net has no output blob 'foo' to score by; choose one of 'accuracy-top1'",
    ):
        calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, blob_name="foo", out=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_calibrate_refuses_a_score_that_fp32_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = make_tiny(tmp_path)
    monkeypatch.setattr("distcalib.calibration.fp32_pass.merged", lambda values, ap_version: float("nan"))
    with pytest.raises(EngineError, match=r"net\.prototxt: 'accuracy-top1' is nan in FP32 already; correct"):
        calibrate(net.prototxt, net.weights, replace(OPTIONS, n_actors=1))


def test_calibrate_refuses_a_net_that_is_quantized_already(tmp_path: Path) -> None:
    param = 'name: "conv2" quantization_param { scale_in: 1 scale_out: 1 scale_params: 1 } type'
    net = make_tiny(tmp_path, edit=lambda text: text.replace('name: "conv2" type', param))
    with pytest.raises(UnsupportedError, match=r"quantized already \(quantization_param in 'conv2'\); give"):
        calibrate(net.prototxt, net.weights, OPTIONS)
