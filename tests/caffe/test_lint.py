"""Every mistake of a prototxt at once, with its line and what would do."""

from typing import cast

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor

from distcalib.caffe import caffe_pb2
from distcalib.caffe.lint import lint

NET = cast(Descriptor, caffe_pb2.NetParameter.DESCRIPTOR)
VALID = """
# comments, 'quotes" and { braces } in them
name: 'a' "b" ; input: ["x", 'y'], input_dim: [1, 0x2] input_dim: 03
layer < name: "c\\"}" loss_weight: -.5 loss_weight: 1e-3f loss_weight: [inf, -inf, nan] >
layer: { convolution_param { pad: 1 bias_term: t engine: 4, weight_filler { value: 1. } } }
state { phase: TEST level: -2 }
"""


def test_lint_finds_nothing_in_what_protobuf_accepts() -> None:
    text_format.Parse(VALID, caffe_pb2.NetParameter())
    assert lint(VALID, NET) == []


@pytest.mark.parametrize(
    ("text", "line", "finding"),
    [
        pytest.param(
            'layer {\n convolution_parm { a: "}" b { c: 1 } }\n}',
            2,
            "unknown field 'convolution_parm' in LayerParameter; 'convolution_param' is meant?",
            id="misspelt_parameter",
        ),
        pytest.param(
            "layer { negative_slope: 0.1 }",
            1,
            "unknown field 'negative_slope' in LayerParameter; "
            "it belongs into convolution_param or inner_product_param or relu_param { }",
            id="parameter_one_level_too_high",
        ),
        pytest.param(
            "layer { zzz: 1 }",
            1,
            "unknown field 'zzz' in LayerParameter; remove it, or is this file for another Caffe?",
            id="unknown_field",
        ),
        pytest.param(
            "layer { pooling_param { pool: AVERAGE } }",
            1,
            "'pool' is AVERAGE, which PoolMethod does not have; AVE is meant?",
            id="unknown_enum_value",
        ),
        pytest.param(
            "layer { pooling_param { pool: 9 } }",
            1,
            "'pool' is 9; it takes one of MAX, AVE, STOCHASTIC, AVE_EXC_PAD",
            id="unknown_enum_number",
        ),
        pytest.param(
            "layer { type: CONVOLUTION }",
            1,
            "'type' is CONVOLUTION; in `layer` a type is a string in quotes, names like CONVOLUTION belong to the "
            "old `layers`",
            id="v1_type_in_layer",
        ),
        pytest.param(
            'layers { type: "Convolution" }',
            1,
            "'type' is \"Convolution\"; in the old `layers` a type is a name like CONVOLUTION, strings in quotes "
            "belong to `layer`",
            id="v2_type_in_layers",
        ),
        pytest.param("name: net", 1, "'name' is net; it takes a string in quotes", id="unquoted_string"),
        pytest.param("force_backward: yes", 1, "'force_backward' is yes; it takes true or false", id="no_boolean"),
        pytest.param("input_dim: 1.5", 1, "'input_dim' is 1.5; it takes a whole number", id="fraction"),
        pytest.param("input_dim: 3000000000", 1, "'input_dim' is 3000000000; it takes a whole number", id="overflow"),
        pytest.param(
            "layer { convolution_param { pad: -1 } }",
            1,
            "'pad' is -1; it takes a whole number from 0 on",
            id="negative_unsigned",
        ),
        pytest.param(
            'layer { loss_weight: "1" }', 1, "'loss_weight' is \"1\"; it takes a number", id="string_for_number"
        ),
        pytest.param("layer: 3", 1, "'layer' is 3; it takes a message, `layer { ... }`", id="scalar_for_message"),
        pytest.param("name { }", 1, "'name' takes a string in quotes, not a message", id="message_for_scalar"),
        pytest.param('name: "a"\nname: "b"', 2, "'name' stands twice in one NetParameter; keep one", id="repeated"),
        pytest.param(
            'layer {\n name: "a"\n', 3, "the text ends inside the message that line 1 opens; add '}'", id="unclosed"
        ),
        pytest.param('}\nname: "a"', 1, "'}' where the name of a field is expected; remove it", id="one_too_many"),
        pytest.param('name "a"', 1, "no ':' or '{' after 'name'; write `name: value`", id="no_colon"),
        pytest.param('name: "a\nlayer { }', 1, "an unfinished string after 'name:'; write one", id="unfinished_string"),
        pytest.param(
            r"name: 'C:\\a' 'C:\data'", 1, r"'C:\data' has the unknown escape \d; write / or \\ in paths", id="escape"
        ),
        pytest.param("layer { name: }", 1, "no value after 'name:'; write one", id="no_value"),
        pytest.param("input_dim: [1, 2", 1, "a list that does not end; add ']'", id="unfinished_list"),
    ],
)
def test_lint_names_line_and_remedy(text: str, line: int, finding: str) -> None:
    with pytest.raises((text_format.ParseError, DeprecationWarning)):
        text_format.Parse(text, caffe_pb2.NetParameter())
    findings = [(found.line, found.text) for found in lint(text, NET)]
    assert (line, finding) in findings
    assert len(findings) == 1 or text.startswith('name "a"')  # there the value is a second finding


def test_lint_finds_all_at_once() -> None:
    text = """layer { nam: "a" }
layer { pooling_param { pool: MEAN stride: "2" } unknown_param { deep { deeper: 1 } } }
layer { include { phase: TESTING } }
"""
    assert [found.line for found in lint(text, NET)] == [1, 2, 2, 2, 3]


@pytest.mark.parametrize(
    "text", ["}" * 50, "{" * 50, "[", "'", '"\\', "name:", "layer {[{[", "\0\1", ": :", "a: [[1]]"]
)
def test_lint_ends_on_garbage(text: str) -> None:
    lint(text, NET)
