"""What is said of layers in place."""

from pathlib import Path

import pytest

from distcalib.engine.net import open_net
from distcalib.errors import UnsupportedError
from distcalib.session.in_place import refuse_in_place, shared_notes
from tests.session.tiny import make_tiny


def test_refuse_in_place_asks_for_a_flag(tmp_path: Path) -> None:
    def in_place(text: str) -> str:
        extra = 'layer { name: "n" type: "LRN" bottom: "conv4" top: "conv4" }'
        return text.replace('layer { name: "fc"', extra + 'layer { name: "fc"')

    with pytest.raises(UnsupportedError, match=r"layer 'n' \(LRN\): works in place .* give --allow-overwritten$"):
        refuse_in_place(open_net(make_tiny(tmp_path, edit=in_place).prototxt))


def test_refuse_in_place_takes_what_is_computed_as_caffe_does(tmp_path: Path) -> None:
    def flatten(text: str) -> str:
        extra = 'layer { name: "f" type: "Flatten" bottom: "conv4" top: "f" }'
        extra += 'layer { name: "n" type: "TanH" bottom: "f" top: "f" }'
        return text.replace('layer { name: "fc"', extra + 'layer { name: "fc"')

    net = open_net(make_tiny(tmp_path, edit=flatten).prototxt)
    refuse_in_place(net)
    [said] = shared_notes(net)
    assert "layer 'n' (TanH): works in place on memory that 'conv4' shares, and 'fc', which reads that later" in said
