"""A file in place of the engine: the same scores, whatever the size of its batch."""

from pathlib import Path

import pytest

from distcalib.caffe import read_weights
from distcalib.data import open_source
from distcalib.engine.net import open_net
from distcalib.engine.spec import ElsewhereSpec
from distcalib.engine.worker import NetWorker, Setting, data_nodes
from distcalib.errors import OptionError
from distcalib.export import save_ir
from distcalib.export.measured import blobs_of, read_file
from distcalib.metrics import merged
from tests.export.exports import ROOT, exported, rows, score

DIGITS, SCENES = ROOT / "examples" / "digits", ROOT / "examples" / "digit_scenes"
CASES = {
    "digits": (DIGITS / "digits.prototxt", DIGITS / "digits.caffemodel", "accuracy-top1"),
    "scenes": (SCENES / "digit_scenes.prototxt", SCENES / "digit_scenes.caffemodel", "detection_eval"),
}


@pytest.mark.parametrize("batch", [None, 1, 7, 64], ids=["open", "1", "7", "64"])
@pytest.mark.parametrize("case", CASES)
def test_a_file_scores_as_the_engine_does(case: str, batch: int | None, tmp_path: Path) -> None:
    model, weights, blob = CASES[case]
    net, path = open_net(model), tmp_path / "model.xml"
    made = exported(model, weights, batch=batch)
    assert made.batch == batch
    save_ir(made, path, {})
    file = read_file(path, blobs_of(made.names, net.graph, path, net.name), net.graph)
    path.unlink()  # an actor on another node has none
    indexes = {node.name: open_source(node.layer, net.path).index for node in data_nodes(net.graph)}
    worker = NetWorker(Setting(net.path, read_weights(weights), weights.name, indexes), 1)
    worker.load("file", worker.compile(ElsewhereSpec(net.spec(), made.outputs, file)))
    found = worker.run("file", range(2))
    assert merged([row.scores[blob] for row in found]) == pytest.approx(score(rows(model, weights, 2), blob), abs=1e-3)


def test_blobs_of_names_outputs_that_the_net_has_not() -> None:
    net = open_net(DIGITS / "digits.prototxt")
    assert list(blobs_of(["fc6"], net.graph, Path("model.xml"), net.name)) == ["fc6"]
    with pytest.raises(OptionError, match=r"model.xml: its output 'prob' is no blob of digits.prototxt"):
        blobs_of(["fc6", "prob"], net.graph, Path("model.xml"), net.name)
