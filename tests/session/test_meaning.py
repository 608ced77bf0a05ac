"""What is said of a verdict that rests on little or on nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from distcalib.engine.checking import checked_shapes
from distcalib.engine.net import open_net
from distcalib.errors import DataError
from distcalib.metrics import Detections, Partial, PartialScore
from distcalib.session.meaning import Rests
from tests.session.tiny import BATCH, Tiny, make_tiny
from tests.session.tiny_ssd import make_tiny_ssd

SHAPES = {"data": (BATCH, 3, 8, 8), "label": (BATCH,)}
GUESS = "no better than guessing among 5 classes"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def rests(tiny: Tiny, values: Sequence[PartialScore], metric: str = "accuracy-top1") -> Rests:
    net = open_net(tiny.prototxt)
    return Rests(net, metric, values, checked_shapes(net.graph, SHAPES, net.name), {})


@pytest.mark.parametrize(
    ("n_hits", "n", "tolerance", "said"),
    [
        pytest.param(900, 1000, 0.01, [], id="sound"),
        pytest.param(900, 1000, 0.0, [], id="no_tolerance"),
        pytest.param(900, 1000, 1.0, ["-l 1 tolerates a loss of 100 points; 0.01 is one point"], id="whole_point"),
        pytest.param(900, 1000, 0.5, ["-l 0.5 tolerates a loss of 50 points"], id="half"),
        pytest.param(900, 1000, 0.0005, ["1000 labels cannot tell a loss of 0.0005: one of them is 0.001"], id="finer"),
        pytest.param(4, 4, 0.01, ["4 labels cannot tell a loss of 0.01: one of them is 0.25"], id="four_images"),
        pytest.param(200, 1000, 0.01, [f"'accuracy-top1' is 0.2 in FP32, {GUESS} (0.2)"], id="chance"),
        pytest.param(100, 1000, 0.01, [GUESS], id="below_chance"),
        pytest.param(205, 1000, 0.01, [GUESS], id="chance_by_luck"),
        pytest.param(230, 1000, 0.01, [], id="above_chance"),
        pytest.param(
            0, 1000, 0.01, ["'accuracy-top1' is 0 in FP32: a net that finds nothing loses nothing"], id="zero"
        ),
        pytest.param(250, 1000, 0.3, ["-l 0.3 is all that the FP32 net has (0.25), so any net meets it"], id="all"),
    ],
)
def test_warnings_of_an_accuracy(tiny: Tiny, n_hits: int, n: int, tolerance: float, said: list[str]) -> None:
    found = rests(tiny, [Partial(n_hits, n)]).warnings(n_hits / n, tolerance)
    assert len(found) == len(said)
    for text, warning in zip(said, found, strict=True):
        assert text in warning


def test_warnings_of_top_2_know_its_chance(tiny: Tiny) -> None:
    [said] = rests(tiny, [Partial(400, 1000)], "accuracy-top2").warnings(0.4)
    assert said.startswith("'accuracy-top2' is 0.4, no better than guessing among 5 classes (0.4); ")
    assert rests(tiny, [Partial(500, 1000)], "accuracy-top2").warnings(0.5) == []


@pytest.mark.parametrize(
    ("loss", "tolerance", "said"),
    [(0.4, 0.01, None), (0.4, 2.0, None), (1.7, 0.01, GUESS), (0.0, 0.01, "'loss' is 0 in FP32")],
)
def test_warnings_of_a_loss(tiny: Tiny, loss: float, tolerance: float, said: str | None) -> None:
    found = rests(tiny, [Partial(loss, 1)], "loss").warnings(loss, tolerance)
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


@pytest.mark.parametrize("metric", ["accuracy-top1", "loss"])
def test_refuse_nothing_names_the_ignored_label(tmp_path: Path, metric: str) -> None:
    def ignore(text: str) -> str:
        text = text.replace('top: "accuracy-top1"', 'top: "accuracy-top1" accuracy_param { ignore_label: 255 }')
        return text.replace('top: "loss"', 'top: "loss" loss_param { ignore_label: 255 }')

    made = make_tiny(tmp_path, edit=ignore)
    values = [Partial(0, 0) if metric != "loss" else Partial(0.0, 0)] * 3
    with pytest.raises(DataError, match=rf"nothing counts for '{metric}'.*: all labels are ignore_label 255; correct"):
        rests(made, values, metric).refuse_nothing()
    rests(made, [*values, Partial(0, 8)], metric).refuse_nothing()


NO_BOXES = Detections(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.bool_), {1: 0, 2: 0})


def test_refuse_nothing_takes_an_object_for_something(tmp_path: Path) -> None:
    made = make_tiny_ssd(tmp_path)
    net = open_net(made.prototxt)
    one = Detections(NO_BOXES.labels, NO_BOXES.scores, NO_BOXES.hits, {1: 0, 2: 1})
    Rests(net, "map", [NO_BOXES, one], {}, {}).refuse_nothing()
    with pytest.raises(
        DataError, match="nothing counts for 'map', so its score says nothing: the data has no object that"
    ):
        Rests(net, "map", [NO_BOXES, NO_BOXES], {}, {}).refuse_nothing()
    assert "'map' is 0 in FP32" in Rests(net, "map", [one], {}, {}).warnings(0.0, 0.01)[0]
    assert (
        "1 object cannot tell a loss of 0.01: it is all of the score; "
        in Rests(net, "map", [one], {}, {}).warnings(0.5, 0.01)[0]
    )
