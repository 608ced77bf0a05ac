"""What stands for blobs that nothing in the TEST phase makes, and what is refused instead."""

from pathlib import Path

import pytest

from distcalib.caffe.phase import State
from distcalib.engine.net import open_net
from distcalib.errors import UnsupportedError

NET = """
layer {{ name: "data" type: "Data" top: "data" include {{ phase: TRAIN }} }}
layer {{ name: "data" type: "Input" top: "data" {data} input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "data" top: "relu" {middle} }}
layer {{ name: "end" type: "ReLU" bottom: "relu" top: "end" }}
"""
DATA, MIDDLE = "layer 'data' (Input) makes #", "layer 'relu' (ReLU) makes #"


def write(folder: Path, data: str = "", middle: str = "", state: str = "") -> Path:
    path = folder / "net.prototxt"
    path.write_text(state + NET.format(data=data, middle=middle))
    return path


@pytest.mark.parametrize(
    ("fields", "given", "said"),
    [
        (
            {"data": "include { min_level: 3 }"},
            State(),
            f"{DATA}, from level 3 on (min_level), and it is 0; give --level 3",
        ),
        (
            {"data": "include { phase: TEST max_level: -1 }"},
            State(),
            f"{DATA}, up to level -1 (max_level), and it is 0; give --level -1",
        ),
        (
            {"data": 'include { phase: TEST not_stage: "val" }', "state": 'state { stage: "val" }'},
            State(),
            f"{DATA}, but not in stage 'val' (not_stage), which is set; take stage 'val' out of the state in the file",
        ),
        (
            {"data": 'include { phase: TEST not_stage: "val" }'},
            State(("val",)),
            f"{DATA}, but not in stage 'val' (not_stage), which is set; leave out --stage val",
        ),
        (
            {"middle": 'include { stage: "x" }'},
            State(),
            f"{MIDDLE}, in a stage that is not set; give --stage x",
        ),
        (
            {"middle": 'include { stage: "x" min_level: 2 }'},
            State(),
            f"{MIDDLE}, from level 2 on (min_level), and it is 0, in a stage that is not set; give --level 2 and give "
            "--stage x",
        ),
        (
            {"middle": 'exclude { stage: "x" }'},
            State(("x",)),
            f"{MIDDLE}, but not in stage 'x' (exclude), which is set; leave out --stage x",
        ),
        (
            {"middle": "exclude { min_level: 2 }"},
            State((), 2),
            f"{MIDDLE}, below level 2 (exclude), and it is 2; give --level 1",
        ),
    ],
)
def test_add_absent_names_the_stage_or_level(fields: dict[str, str], given: State, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as refused:
        open_net(write(tmp_path, **fields), state=given)
    assert str(refused.value) == "net.prototxt: " + said.replace("#", "what the TEST phase reads")


def test_add_absent_stands_for_what_the_phase_leaves_out(tmp_path: Path) -> None:
    net = open_net(write(tmp_path, data='include { phase: TRAIN stage: "x" }'))
    assert next((layer.name, layer.type) for layer in net.test.layer) == ("data", "AbsentData")
