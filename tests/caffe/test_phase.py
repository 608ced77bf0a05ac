"""The TEST phase by Caffe's rules."""

import pytest
from google.protobuf import text_format

from distcalib.caffe import caffe_pb2, test_net
from distcalib.caffe.phase import State
from distcalib.errors import FormatError, UnsupportedError


def net(text: str) -> caffe_pb2.NetParameter:
    return text_format.Parse(text, caffe_pb2.NetParameter())


@pytest.mark.parametrize(
    ("rules", "level", "stages", "kept"),
    [
        pytest.param("", 0, (), True, id="no_rules"),
        pytest.param("include { phase: TEST }", 0, (), True, id="include_test"),
        pytest.param("include { phase: TRAIN }", 0, (), False, id="include_train"),
        pytest.param("exclude { phase: TEST }", 0, (), False, id="exclude_test"),
        pytest.param("exclude { phase: TRAIN }", 0, (), True, id="exclude_train"),
        pytest.param("include { phase: TRAIN } include { phase: TEST }", 0, (), True, id="any_include"),
        pytest.param("exclude { phase: TRAIN } exclude { stage: 'a' }", 0, ("a",), False, id="any_exclude"),
        pytest.param("include { }", 0, (), True, id="empty_include"),
        pytest.param("exclude { }", 0, (), False, id="empty_exclude"),
        pytest.param("include { min_level: 2 }", 1, (), False, id="below_min_level"),
        pytest.param("include { min_level: 2 }", 2, (), True, id="at_min_level"),
        pytest.param("include { max_level: 2 }", 2, (), True, id="at_max_level"),
        pytest.param("include { max_level: 2 }", 3, (), False, id="above_max_level"),
        pytest.param("include { stage: 'a' }", 0, (), False, id="stage_absent"),
        pytest.param("include { stage: 'a' stage: 'b' }", 0, ("a",), False, id="one_of_two_stages"),
        pytest.param("include { stage: 'a' stage: 'b' }", 0, ("b", "a", "c"), True, id="both_stages"),
        pytest.param("include { not_stage: 'a' }", 0, (), True, id="not_stage_absent"),
        pytest.param("include { not_stage: 'a' not_stage: 'b' }", 0, ("b",), False, id="one_of_two_not_stages"),
        pytest.param("include { phase: TEST stage: 'a' }", 0, (), False, id="all_conditions_of_a_rule"),
    ],
)
def test_test_net_keeps_what_the_rules_say(rules: str, level: int, stages: tuple[str, ...], kept: bool) -> None:
    result = test_net(net(f'layer {{ name: "x" type: "ReLU" {rules} }}'), State(tuple(stages), level))
    assert [layer.name for layer in result.layer] == ["x"] * kept


def test_test_net_takes_stages_but_neither_phase_nor_level_from_the_file() -> None:
    text = """
        state { phase: TRAIN level: 7 stage: "a" }
        layer { name: "stage" type: "ReLU" include { stage: "a" stage: "b" } }
        layer { name: "level" type: "ReLU" include { min_level: 7 } }
        layer { name: "train" type: "ReLU" include { phase: TRAIN } }
    """
    result = test_net(net(text), State(("b",)))
    assert [layer.name for layer in result.layer] == ["stage"]
    assert result.state == caffe_pb2.NetState(phase=caffe_pb2.TEST, level=0, stage=["a", "b"])


def test_test_net_copies() -> None:
    original = net('layer { name: "a" } layer { name: "b" include { phase: TRAIN } }')
    test_net(original).layer[0].name = "changed"
    assert [layer.name for layer in original.layer] == ["a", "b"]


def test_test_net_leaves_out_what_detection_nets_are_trained_by() -> None:
    text = "".join(f'layer {{ name: "{kind}" type: "{kind}" top: "a" }}' for kind in ("MultiBoxLoss", "RegionLoss"))
    original = net(f'{text} layer {{ name: "last" type: "EuclideanLoss" }}')
    assert [layer.name for layer in test_net(original).layer] == ["last"]
    assert len(original.layer) == 3


@pytest.mark.parametrize(("bottoms", "left"), [(["loss"], []), (["loss", "x"], [["x"]]), (["x"], [["x"]]), ([], [[]])])
def test_test_net_silences_no_loss_that_is_left_out(bottoms: list[str], left: list[list[str]]) -> None:
    given = net('layer { name: "l" type: "MultiBoxLoss" top: "loss" } layer { name: "s" type: "Silence" }')
    given.layer[1].bottom.extend(bottoms)
    assert [list(layer.bottom) for layer in test_net(given).layer] == left


def test_test_net_makes_an_input_layer_of_legacy_inputs() -> None:
    result = test_net(net('input: "x" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4 layer { name: "a" }'))
    assert [(layer.name, layer.type) for layer in result.layer] == [("input", "Input"), ("a", "")]


def test_test_net_refuses_include_beside_exclude() -> None:
    both = "include { phase: TEST } exclude { stage: 's' }"
    with pytest.raises(FormatError, match="net '': layers 'a', 'b' have include and exclude rules both; keep one kind"):
        test_net(net(f'layer {{ name: "a" {both} }} layer {{ name: "b" {both} }}'))


def test_test_net_refuses_layers_that_would_train() -> None:
    text = """
        layer { name: "out" phase: TRAIN include { phase: TRAIN } }
        layer { name: "in" phase: TEST }
        layer { name: "drop" type: "Dropout" phase: TRAIN }
    """
    with pytest.raises(UnsupportedError, match=r"^net '': layers 'drop' say `phase: TRAIN`"):
        test_net(net(text))


def test_test_net_names_the_file() -> None:
    both = net('layer { name: "a" include { phase: TEST } exclude { stage: "s" } }')
    with pytest.raises(FormatError, match=r"^net\.prototxt: layers 'a' have include and exclude rules both"):
        test_net(both, where="net.prototxt")
    with pytest.raises(UnsupportedError, match=r"^net\.prototxt: layers 'drop' say `phase: TRAIN`"):
        test_net(net('layer { name: "drop" type: "Dropout" phase: TRAIN }'), where="net.prototxt")


@pytest.mark.parametrize(("method", "refused"), [("MAX", False), ("AVE", False), ("STOCHASTIC", True)])
def test_test_net_takes_a_pooling_that_trains_unless_it_draws(method: str, refused: bool) -> None:
    pooling = net(
        f'layer {{ name: "p" type: "Pooling" bottom: "a" top: "p" phase: TRAIN pooling_param {{ pool: {method} }} }}'
    )
    if refused:
        with pytest.raises(UnsupportedError, match="layers 'p' say `phase: TRAIN`"):
            test_net(pooling)
    else:
        assert [layer.name for layer in test_net(pooling).layer] == ["p"]
