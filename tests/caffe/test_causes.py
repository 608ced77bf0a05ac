"""One cause in place of many findings."""

from pathlib import Path

import pytest

from distcalib.caffe import read_net
from distcalib.errors import FormatError

LAYERS = "\n".join(
    f'{{word}} {{{{ name: "c{n}" type: {{kind}} bottom: "d" top: "d" }}}}' for n in range(5)
)  # fmt: skip
CAUSES = {
    "a solver": (
        'net: "train_val.prototxt"\nbase_lr: 0.1\nlr_policy: "step"\n',
        "is a solver, not a net; give the net that it names: train_val.prototxt",
    ),
    "a solver of two nets": (
        'train_net: "a.prototxt"\ntest_net: "b.prototxt"\nmax_iter: 3\n',
        "is a solver, not a net; give the net that it names: a.prototxt",
    ),
    "a solver without one": ("base_lr: 0.1\n", "is a solver, not a net; give the net that it names"),
    "a label map": (
        'item {\n  name: "cat"\n  label: 1\n}\n',
        "is a label map, not a net; give the prototxt of the net",
    ),
    "quotes": (
        'name: "n"  # “quoted” here does no harm\nlayer { name: “c” type: "ReLU" }\n',
        'line 2 has typographic quotes, as word processors write them; write "',
    ),
    "more quotes": (
        "layer {\n  name: «c»\n  type: ‘ReLU’\n}\n",
        'line 2 (and 1 more lines) has typographic quotes, as word processors write them; write "',
    ),
    "JSON": ('{"name": "n", "layer": []}', "is JSON, not a prototxt; give the prototxt of the net"),
    "a brace that is missing": (
        LAYERS.format(word="layer", kind='"ReLU"').replace(" }", "", 1),
        "line 2: a layer begins inside another message; a '}' is missing before it",
    ),
    "a brace that is missing in a layer": (
        'layer { name: "a" lrn_param {\n }\nlayer { name: "b" }\nlayer { name: "c" }\n',
        "line 3: a layer begins inside another message; a '}' is missing before it",
    ),
    "a brace behind a value": (
        'layer { name: "a"\n convolution_param { pad: 1 { } }\n stride: 2 } }\nlayer { name: "b" type: "ReLU" }\n',
        "line 2: '{' is one too many, or one is missing before it; make the braces match",
    ),
    "a brace too many": (
        'layer { name: "a" } }\nlayer { name: "b" typ: "ReLU" }\n',
        "line 1: '}' is one too many, or one is missing before it; make the braces match",
    ),
    "comments of C": (
        '# a // comment\n// another\nlayer { name: "//" type: "ReLU" }\n',
        "line 2: a comment begins with #, not with //",
    ),
    "a colon that is missing": (
        'layer { name: "a"\n convolution_param { stride 2 } }\n',
        "line 2: no ':' or '{' after 'stride'; write `stride: value`",
    ),
    "an equals sign": (
        'layer { name = "a" }\n',
        "line 1: no ':' or '{' after 'name'; write `name: value`",
    ),
    "a merge": (
        'layer { name: "a" }\n<<<<<<< HEAD\nlayer { name: "b" }\n=======\n>>>>>>> other\n',
        "line 2 is the mark of a merge that was not finished; choose one of its sides",
    ),
    "too many layers": (
        'layer { name: "a" }\n' * 20_001,
        "has more than 20000 layers; no net has, so give another file",
    ),
    "new types in layers": (
        LAYERS.format(word="layers", kind='"ReLU"'),
        "line 1 and 4 more: `layers` with types of the new format, in quotes; write `layer` in place of `layers`",
    ),
    "old types in layer": (
        LAYERS.format(word="layer", kind="RELU"),
        "line 1 and 4 more: `layer` with types of the old format, without quotes; write `layers` in place of `layer`",
    ),
}


@pytest.mark.parametrize(("text", "said"), CAUSES.values(), ids=list(CAUSES))
def test_read_net_tells_the_one_cause(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    with pytest.raises(FormatError) as refused:
        read_net(path)
    assert str(refused.value) == f"{path}: {said}"


def test_read_net_still_names_a_single_wrong_type(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "c" type: RELU }')
    with pytest.raises(FormatError, match="line 1: 'type' is RELU; in `layer` a type is a string in quotes"):
        read_net(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (("layer { " * 1200 + "}" * 1200).encode(), "has messages in messages, some hundred deep"),
        (b'layer { name: "a\\377" type: "ReLU" }', "line 1: .*'utf-8' codec can't decode byte 0xff"),
        (b"\xa2\x06\x05\x0a\x03a\xff\x00", r"layer\[0\].name: is not text in UTF-8"),
    ],
    ids=["nested", "text", "binary"],
)
def test_read_net_refuses_what_is_no_text(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=said):
        read_net(path)
