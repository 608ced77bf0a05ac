"""A prototxt opened for a run."""

from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import caffe_pb2
from distcalib.data import ABSENT
from distcalib.engine.net import open_net
from distcalib.errors import FormatError
from distcalib.session.checks import net_problems
from tests.session.tiny import Tiny, make_tiny


def test_open_net_keeps_all_phases_and_runs_one(tmp_path: Path) -> None:
    extra = 'layer { name: "train" type: "Silence" bottom: "fc" include { phase: TRAIN } }'
    net = open_net(make_tiny(tmp_path, edit=lambda text: text + extra).prototxt)
    assert net.name == "net.prototxt"
    assert net.full.layer[-1].name == "train"
    assert "train" not in {layer.name for layer in net.test.layer}


def test_open_net_makes_paths_absolute_for_actors_only(tmp_path: Path) -> None:
    net = open_net(make_tiny(tmp_path, source="db").prototxt)
    sent = caffe_pb2.NetParameter.FromString(net.spec().net)
    assert sent.layer[0].data_param.source == str(tmp_path / "db")
    assert net.full.layer[0].data_param.source == "db"


def test_open_net_tells_a_caffemodel(tiny: Tiny) -> None:
    with pytest.raises(FormatError, match="is a caffemodel, not a prototxt; give the prototxt as -m"):
        open_net(tiny.weights)


@pytest.mark.parametrize("old", ["TEST", ""], ids=["training_alone", "none"])
def test_open_net_puts_a_layer_where_the_test_phase_has_no_data(tmp_path: Path, old: str) -> None:
    def edit(text: str) -> str:
        return text.replace(old, "TRAIN", 1) if old else text[text.index('layer { name: "conv1"') :]

    net = open_net(make_tiny(tmp_path, edit=edit).prototxt)
    layer = net.test.layer[0]
    assert (layer.name, layer.type, list(layer.top)) == ("data", ABSENT, ["data", "label"])
    assert layer.data_param.batch_size == (8 if old else 0)
    assert ABSENT not in {written.type for written in net.full.layer}
    [said] = net_problems(net)
    assert said == (
        "net.prototxt: layer 'data' (AbsentData): no data layer of the TEST phase makes 'data' and 'label'; give such "
        "arrays with --data FILE.npz, or add a data layer"
    )


def test_open_net_takes_arrays_where_the_test_phase_has_no_data(tmp_path: Path) -> None:
    arrays = tmp_path / "arrays.npz"
    np.savez(arrays, data=np.zeros((16, 3, 8, 8), np.float32), label=np.zeros(16, np.float32))
    made = make_tiny(tmp_path, edit=lambda text: text.replace("TEST", "TRAIN", 1))
    net = open_net(made.prototxt, arrays)
    assert net_problems(net, fed=True) == []
    assert [list(shape.dim) for shape in net.test.layer[0].input_param.shape] == [[8, 3, 8, 8], [8]]


def test_open_net_names_a_blob_that_the_data_layer_does_not_make(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, edit=lambda text: text.replace('top: "label"', ""))
    with pytest.raises(FormatError, match=r"layer 'top1' \(Accuracy\) reads blob 'label', which no layer before it"):
        open_net(net.prototxt)


def test_open_net_puts_a_layer_where_a_net_to_deploy_has_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        """input: "x"
        layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 2 } }
        layer { name: "top1" type: "Accuracy" bottom: "fc" bottom: "label" top: "top1" }"""
    )
    assert [(layer.type, list(layer.top)) for layer in open_net(path).test.layer[:1]] == [(ABSENT, ["x", "label"])]
    path.write_text(path.read_text().replace('input: "x"', 'input: "x" input_shape { dim: 1 dim: 3 }'))
    found = [(layer.type, list(layer.top)) for layer in open_net(path).test.layer[:2]]
    assert found == [(ABSENT, ["label"]), ("Input", ["x"])]
