"""A prototxt opened for a run."""

from pathlib import Path

import pytest

from distcalib.caffe import caffe_pb2
from distcalib.engine.net import open_net
from distcalib.errors import FormatError, UnsupportedError
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


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param("TEST", "TRAIN", ", for 'data' is not in it", id="training_alone"),
        pytest.param("", "", "", id="none"),
    ],
)
def test_open_net_says_what_a_net_without_test_data_needs(tmp_path: Path, old: str, new: str, reason: str) -> None:
    def edit(text: str) -> str:
        return text.replace(old, new, 1) if reason else text[text.index('layer { name: "conv1"') :]

    net = make_tiny(tmp_path, edit=edit)
    with pytest.raises(UnsupportedError) as caught:
        open_net(net.prototxt)
    assert str(caught.value) == (
        f"net.prototxt: has no data layer in the TEST phase{reason}; add one that makes 'data' and 'label' from the "
        "test set (AnnotatedData, Data, DummyData, HDF5Data, ImageData, Input; Input takes --data FILE)"
    )


def test_open_net_names_a_blob_that_the_data_layer_does_not_make(tmp_path: Path) -> None:
    net = make_tiny(tmp_path, edit=lambda text: text.replace('top: "label"', ""))
    with pytest.raises(FormatError, match=r"layer 'top1' \(Accuracy\) reads blob 'label', which no layer before it"):
        open_net(net.prototxt)
