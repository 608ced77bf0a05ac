"""evaluate(): scores, which do not depend on who measured them."""

from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from distcalib.caffe import caffe_pb2, read_net
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.engine.net import make_net, open_net
from distcalib.errors import OptionError, UnsupportedError
from distcalib.session.checks import net_notes
from distcalib.session.evaluate import loss_weights
from tests.session.evaluated import evaluate
from tests.session.tiny import BATCH, ITERATIONS, Tiny, make_tiny

pytestmark = pytest.mark.usefixtures("actors")


@pytest.mark.slow
def test_evaluate_gives_every_output_and_the_loss_on_any_number_of_actors(tiny: Tiny) -> None:
    found = [evaluate(tiny.prototxt, tiny.weights, ITERATIONS, n_actors=n) for n in (1, 2)]
    assert [result.n_actors for result in found] == [1, 2]
    assert found[0].scores == found[1].scores
    result = found[0]
    assert list(result.scores) == ["accuracy-top1", "accuracy-top2", "loss"]
    assert result.scores["accuracy-top1"] == 41 / 48, "every 7th label is wrong on purpose"
    assert result.loss == result.scores["loss"]
    assert result.loss_weights == {"loss": 1.0}
    assert (result.batch, result.n_iterations, result.int8_layers) == (BATCH, ITERATIONS, ())
    assert result.images_per_second > 0.0


def test_evaluate_wraps_around_at_the_end_of_the_data(tiny: Tiny) -> None:
    once, twice = (evaluate(tiny.prototxt, tiny.weights, n * ITERATIONS, n_actors=1) for n in (1, 2))
    assert once.scores["accuracy-top1"] == twice.scores["accuracy-top1"]


def test_evaluate_refuses_no_iterations(tiny: Tiny) -> None:
    with pytest.raises(OptionError, match="-i 0: must be at least 1"):
        evaluate(tiny.prototxt, tiny.weights, 0)


@pytest.mark.parametrize(
    ("added", "weights"),
    [
        pytest.param("", {"loss": 1.0}, id="default"),
        pytest.param("loss_weight: 0.25", {"loss": 0.25}, id="given"),
        pytest.param("loss_weight: 0", {}, id="no_loss"),
    ],
)
def test_loss_weights_are_caffes(tmp_path: Path, added: str, weights: dict[str, float]) -> None:
    net = make_tiny(tmp_path, edit=lambda text: text.replace('top: "loss"', f'top: "loss" {added}'))
    assert loss_weights(open_net(net.prototxt)) == weights


def test_a_loss_without_a_top_gets_one(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, edit=lambda text: text.replace(' top: "loss"', ""))
    full = read_net(net.prototxt)
    assert loss_weights(make_net(net.prototxt, full)) == {"loss": 1.0}
    assert not full.layer[-1].top, "the file is written as it was"


def added(*layers: str) -> Callable[[str], str]:
    """An edit that puts layers in front of the classifier."""
    return lambda text: text.replace('layer { name: "fc"', "\n".join((*layers, 'layer { name: "fc"')))


def test_evaluate_warns_of_what_caffe_computes_otherwise_or_ends_at(tmp_path: Path) -> None:
    """A ReLU in place behind another reader of its blob."""
    edit = added(
        'layer { name: "p" type: "Power" bottom: "conv4" top: "p" }',
        'layer { name: "q" type: "Power" bottom: "p" top: "q" }',
        'layer { name: "n" type: "ReLU" bottom: "p" top: "p" }',
    )
    net = make_tiny(tmp_path, edit=edit)
    warnings = evaluate(net.prototxt, net.weights, 1, n_actors=1).warnings
    assert "layer 'n' (ReLU): works in place on 'p'" in warnings[0]
    assert "Intel Caffe cannot run the net" in warnings[1]


def test_calibrate_warns_of_what_allow_overwritten_lets_pass(tmp_path: Path) -> None:
    edit = added('layer { name: "n" type: "LRN" bottom: "conv4" top: "conv4" }')
    net = make_tiny(tmp_path, edit=edit)
    options = CalibrationOptions(
        iterations=1, strategy="none", allow_overwritten=True, n_actors=1, out=tmp_path / "out"
    )
    report = calibrate(net.prototxt, net.weights, options)
    assert "layer 'n' (LRN): works in place" in report.warnings[0]


def test_evaluate_runs_in_a_stage(tmp_path: Path) -> None:
    def in_stage(text: str) -> str:
        return text.replace("include { phase: TEST }", 'include { phase: TEST stage: "val" min_level: 2 }', 1)

    plain = make_tiny(tmp_path / "plain")
    staged = make_tiny(tmp_path / "staged", edit=in_stage)
    wanted = evaluate(plain.prototxt, plain.weights, 2, n_actors=1)
    found = evaluate(staged.prototxt, staged.weights, 2, n_actors=1, stages=["val"], level=2)
    assert found.scores == wanted.scores
    with pytest.raises(UnsupportedError, match="give --stage val"):
        evaluate(staged.prototxt, staged.weights, 2, n_actors=1)


@pytest.mark.slow
def test_evaluate_gives_the_accuracy_of_each_class(tmp_path: Path) -> None:
    net = make_tiny(
        tmp_path, edit=lambda text: text.replace('top: "accuracy-top1"', 'top: "accuracy-top1" top: "each"')
    )
    found = evaluate(net.prototxt, net.weights, ITERATIONS, n_actors=2)
    net_without = make_tiny(tmp_path / "plain")
    plain = evaluate(net_without.prototxt, net_without.weights, ITERATIONS, n_actors=1)
    assert (found.scores, plain.class_accuracies) == (plain.scores, {})
    with lmdb.open(str(net.database), readonly=True, lock=False) as database, database.begin() as reading:
        labels = [caffe_pb2.Datum.FromString(value).label for _, value in reading.cursor()]
    accuracies = found.class_accuracies["each"]
    assert set(accuracies) | set(found.classes_without_labels["each"]) == set(range(5))
    hits = [accuracy * labels.count(label) for label, accuracy in accuracies.items()]
    assert hits == pytest.approx([round(hit) for hit in hits])
    assert round(sum(hits)) == 41, "as many as the accuracy of all has"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["none", "ranked"])
def test_calibrate_gives_the_accuracy_of_each_class(tmp_path: Path, strategy: str) -> None:
    net = make_tiny(
        tmp_path, edit=lambda text: text.replace('top: "accuracy-top1"', 'top: "accuracy-top1" top: "each"')
    )
    options = CalibrationOptions(
        iterations=ITERATIONS, strategy=strategy, accuracy_loss=0.05, n_actors=2, out=tmp_path / "out"
    )
    report = calibrate(net.prototxt, net.weights, options)
    before = evaluate(net.prototxt, net.weights, ITERATIONS, n_actors=1)
    after = evaluate(report.output, report.output_weights or net.weights, ITERATIONS, n_actors=1)
    assert report.fp32_class_accuracies == before.class_accuracies["each"]
    assert report.class_accuracies == after.class_accuracies["each"]
    assert report.classes_without_labels == before.classes_without_labels["each"]


def _of_losses(text: str) -> str:
    more = """
layer { name: "gain" type: "InfogainLoss" bottom: "fc" bottom: "label" top: "gain"
  infogain_loss_param { source: "h.bin" } }
layer { name: "sum" type: "Eltwise" bottom: "loss" bottom: "gain" top: "sum" eltwise_param { coeff: 1 coeff: 0.5 } }
layer { name: "half" type: "Power" bottom: "sum" top: "half" power_param { scale: 0.5 } }
layer { name: "quiet" type: "Silence" bottom: "loss" }
"""
    return text + more


def test_evaluate_gives_what_reads_losses(tmp_path: Path) -> None:
    matrix = caffe_pb2.BlobProto(data=[float(i == j) for i in range(5) for j in range(5)])
    (tmp_path / "h.bin").write_bytes(matrix.SerializeToString())
    net = make_tiny(tmp_path, edit=_of_losses)
    found = evaluate(net.prototxt, net.weights, ITERATIONS, n_actors=2)
    scores = found.scores
    assert scores["gain"] == pytest.approx(scores["loss"], rel=1e-9), "of the unit matrix"
    assert scores["sum"] == pytest.approx(1.5 * scores["loss"], rel=1e-9)
    assert scores["half"] == pytest.approx(0.75 * scores["loss"], rel=1e-9)
    assert found.loss == pytest.approx(2 * scores["loss"], rel=1e-9), "Caffe adds the losses alone"


def test_a_loss_whose_matrix_is_not_there_is_left_out_with_a_note(tmp_path: Path) -> None:
    def edit(text: str) -> str:
        return text + _of_losses("").partition('layer { name: "sum"')[0]

    net = open_net(make_tiny(tmp_path, edit=edit).prototxt)
    assert "gain" not in {layer.name for layer in net.test.layer}
    assert "layer 'gain' (InfogainLoss) is left out: its matrix, the file 'h.bin', is not there" in " ".join(
        net_notes(net)
    )
