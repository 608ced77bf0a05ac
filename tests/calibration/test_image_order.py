"""Searches that take hard images first come to the same file, and say where they cannot."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.caffe.graph import Blob
from distcalib.calibration.calibrate import calibrate, run_calibration
from distcalib.calibration.image_order import why_natural
from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.scoreboard import Scoreboard
from distcalib.calibration.search_driver import Switches
from distcalib.data import open_source
from distcalib.engine.checking import checked_shapes
from distcalib.engine.net import Net, open_net
from distcalib.engine.worker import data_nodes
from distcalib.report import CalibrationReport
from scripts.bench.plant import main as plant
from tests.calibration.reports import lasting
from tests.session.tiny import ITERATIONS, Tiny, make_tiny

OPTIONS = CalibrationOptions(iterations=ITERATIONS, recover="off", sampling_iterations=2)
ROOT = Path(__file__).parents[2]
TOP1 = "accuracy-top1"


def why(net: Net, metric: str = TOP1, options: CalibrationOptions = OPTIONS) -> str:
    shapes = {
        top: shape for node in data_nodes(net.graph) for top, shape in open_source(node.layer, net.path).shapes.items()
    }
    given = {Blob(name, 0): shape for name, shape in shapes.items()}
    return why_natural(net, metric, {**given, **checked_shapes(net.graph, shapes, net.name)}, options)


def put(before: str, text: str) -> Callable[[str], str]:
    """Put a layer in front of the one called `before`, which then reads it."""
    return lambda net: net.replace(f'layer {{ name: "{before}"', text + f'\nlayer {{ name: "{before}"')


MIXING = {
    "statistics of the batch": (
        put(
            "fc",
            'layer { name: "bn" type: "BatchNorm" bottom: "conv4" top: "conv4" batch_norm_param { use_global_stats: '
            "false } }",
        ),
        "layer 'bn' (BatchNorm) makes something of several images",
    ),
    "weights by place": (
        put("fc", 'layer { name: "s" type: "Scale" bottom: "conv4" top: "conv4" scale_param { axis: 0 } }'),
        "layer 's' (Scale) makes something of several images",
    ),
    "mean of the batch": (
        put("fc", 'layer { name: "mean" type: "Reduction" bottom: "conv4" top: "mean" }'),
        "blob 'mean' has no row for each image",
    ),
    "softmax over the batch": (
        put("fc", 'layer { name: "soft" type: "Softmax" bottom: "conv4" top: "soft" softmax_param { axis: 0 } }'),
        "layer 'soft' (Softmax) makes something of several images",
    ),
    "reshaped over the batch": (
        put(
            "fc",
            'layer { name: "r" type: "Reshape" bottom: "conv4" top: "r" reshape_param { shape { dim: 4 dim: -1 } } }',
        ),
        "blob 'r' has no row for each image",
    ),
    "other data": (
        put("fc", 'layer { name: "more" type: "DummyData" top: "more" dummy_data_param { shape { dim: 8 } } }'),
        "layer 'more' (DummyData) does not read images by number",
    ),
    "other batches": (
        put("conv1", 'layer { name: "more" type: "Input" top: "more" input_param { shape { dim: 2 dim: 3 } } }'),
        "blob 'more' has no row for each image",
    ),
    "ignored labels": (
        lambda net: net.replace('top: "accuracy-top1"', 'top: "accuracy-top1" accuracy_param { ignore_label: 3 }'),
        "'accuracy-top1' ignores a label",
    ),
}


@pytest.mark.parametrize(("edit", "said"), MIXING.values(), ids=list(MIXING))
def test_images_stay_where_they_are_not_apart(tmp_path: Path, edit: Callable[[str], str], said: str) -> None:
    assert why(open_net(make_tiny(tmp_path, edit=edit).prototxt)) == said


KEPT = {
    "pooling": 'layer { name: "p" type: "Pooling" bottom: "conv4" top: "p" pooling_param { kernel_size: 2 } }',
    "softmax": 'layer { name: "s" type: "Softmax" bottom: "conv4" top: "s" }',
    "shape": 'layer { name: "r" type: "Reshape" bottom: "conv4" top: "r" reshape_param { shape { dim: 0 dim: -1 } } }',
    "scale": 'layer { name: "s" type: "Scale" bottom: "conv4" top: "s" }',
    "normalized": 'layer { name: "b" type: "BatchNorm" bottom: "conv4" top: "b" }',
}


@pytest.mark.parametrize("text", ["", *KEPT.values()], ids=["plain", *KEPT])
def test_images_are_taken_where_they_are_apart(tmp_path: Path, text: str) -> None:
    assert why(open_net(make_tiny(tmp_path, edit=put("fc", text)).prototxt)) == ""


@pytest.mark.parametrize(
    ("options", "metric", "said"),
    [
        (replace(OPTIONS, quantize_model=True), TOP1, "nothing is measured"),
        (replace(OPTIONS, root=Path("build")), TOP1, "Intel Caffe reads the data as they lie"),
        (OPTIONS, "loss", "'loss' (SoftmaxWithLoss) is not an accuracy"),
    ],
    ids=["nothing_measured", "caffe", "loss"],
)
def test_images_stay_where_the_run_needs_it(tiny: Tiny, options: CalibrationOptions, metric: str, said: str) -> None:
    assert why(open_net(tiny.prototxt), metric, options) == said


def in_both_orders(net: Tiny, options: CalibrationOptions, folder: Path) -> list[CalibrationReport]:
    """Reports of the search with hard images first, and in natural order on one actor."""
    found = [calibrate(net.prototxt, net.weights, replace(options, out=folder / "hard"))]
    natural = replace(options, out=folder / "natural", n_actors=1)
    return [*found, run_calibration(net.prototxt, net.weights, natural, switches=Switches(hard_first=False))]


def verdicts(report: CalibrationReport) -> list[tuple[tuple[str, ...], bool]]:
    """What the strategy was told of each candidate."""
    return [(record.fp32_layers, record.meets) for record in report.candidates]


@pytest.mark.usefixtures("actors")
@pytest.mark.parametrize(
    "strategy", ["ranked", *(pytest.param(name, marks=pytest.mark.slow) for name in ("greedy", "topological"))]
)
def test_the_file_is_that_of_the_natural_order(tiny: Tiny, tmp_path: Path, strategy: str) -> None:
    options = replace(OPTIONS, strategy=strategy, iterations=ITERATIONS * 4, n_actors=2)  # records come four times
    hard, natural = in_both_orders(tiny, options, tmp_path)
    assert Path(hard.output).read_bytes() == Path(natural.output).read_bytes()
    assert verdicts(hard) == verdicts(natural)
    assert hard.image_order == "hard first"
    assert (hard.score, hard.drop, hard.minimal) == (natural.score, natural.drop, natural.minimal)
    # Of `ranked` it was enough to see that all INT8 loses too much.
    assert (hard.all_int8_score is None) == (strategy == "ranked")
    assert natural.all_int8_score is not None


@pytest.mark.slow
@pytest.mark.usefixtures("actors")
def test_a_killed_search_goes_on_with_the_batches_that_it_had(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = calibrate(tiny.prototxt, tiny.weights, replace(OPTIONS, out=tmp_path / "whole", n_actors=1))
    take, n_taken = Scoreboard.take, 0

    def die(self: Scoreboard, *args: object) -> None:
        nonlocal n_taken
        n_taken += 1
        if n_taken == 2:  # what was measured of it is in the journal
            raise RuntimeError("killed")
        take(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Scoreboard, "take", die)
    options = replace(OPTIONS, out=tmp_path / "out", n_actors=2)
    with pytest.raises(RuntimeError, match="killed"):
        calibrate(tiny.prototxt, tiny.weights, options)
    monkeypatch.undo()
    found = calibrate(tiny.prototxt, tiny.weights, options)
    assert found.n_rows_from_journal > ITERATIONS, "those of FP32, and some of a candidate"
    assert lasting(found) == lasting(whole)
    assert Path(found.output).read_bytes() == Path(whole.output).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("actors")
@pytest.mark.parametrize("n_layers", [1, 2])
def test_planted_digits_fall_back_in_either_order(tmp_path: Path, n_layers: int) -> None:
    digits = ROOT / "examples" / "digits" / "digits.prototxt"
    weights = digits.with_suffix(".caffemodel")
    folder = tmp_path / "planted"
    plant(["-m", str(digits), "-w", str(weights), "--layers", str(n_layers), "-1st", "--out", str(folder)])
    net = Tiny(folder / digits.name, folder / weights.name, folder)
    options = CalibrationOptions(
        iterations=18, recover="off", accuracy_loss=0.005, weights_channel="multiple", enable_1st_conv=True, n_actors=2
    )
    hard, natural = in_both_orders(net, options, tmp_path)
    assert Path(hard.output).read_bytes() == Path(natural.output).read_bytes()
    # Their rankings look at other images, so the ways may differ; what is said of a net may not.
    said, of_natural = dict(verdicts(hard)), dict(verdicts(natural))
    both = said.keys() & of_natural.keys()
    assert len(both) >= 2
    assert {net: said[net] for net in both} == {net: of_natural[net] for net in both}
    assert hard.fp32_layers
