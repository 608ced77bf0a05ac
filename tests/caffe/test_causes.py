"""One cause in place of many findings."""

from pathlib import Path

import pytest

from distcalib.caffe import caffe_pb2, read_net
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
    "a solver of its net alone": (
        'net: "a.prototxt"\n',
        "is a solver, not a net; give the net that it names: a.prototxt",
    ),
    "a solver with a type": (
        'net: "a.prototxt"\ntype: "SGD"\nmomentum: 0.9\n',
        "is a solver, not a net; give the net that it names: a.prototxt",
    ),
    "a solver of tests": (
        '# solver\ntest_iter: 5 net: "a.prototxt"\niter_size: 2\n',
        "is a solver, not a net; give the net that it names: a.prototxt",
    ),
    "a Darknet file": (
        "# Testing\n[net]\nbatch=1\n[convolutional]\nfilters=3\n",
        "is a Darknet file, not a prototxt; convert it to Caffe, and give the prototxt",
    ),
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
    "primes": (
        'layer { name: ″c″ type: "ReLU" }\n',
        'line 1 has typographic quotes, as word processors write them; write "',
    ),
    "backticks": ("layer { name: `c` }\n", 'line 1 has backticks for quotes; write "'),
    "an en dash": (
        "layer { name: 'c'\n power_param { shift: –1\n scale: –2 } }\n",
        "line 2 (and 1 more lines) has '–', EN DASH (U+2013), for a minus; write -",
    ),
    "a minus of mathematics": (
        "layer { power_param { shift: \u22121 } }\n",
        "line 1 has '−', MINUS SIGN (U+2212), for a minus; write -",
    ),
    "full-width colons": (
        "layer { name： 'c'\n type： 'ReLU' }\n",
        "line 1 (and 1 more lines) has '：', FULLWIDTH COLON (U+FF1A), which Caffe does not read; write :",
    ),
    "a full-width brace": (
        "layer ｛ name: 'c' }\n",
        "line 1 has '｛', FULLWIDTH LEFT CURLY BRACKET (U+FF5B), which Caffe does not read; write {",
    ),
    "full-width digits": (
        "layer { convolution_param { num_output: １６ } }\n",
        "line 1 has '１６', FULLWIDTH DIGIT ONE (U+FF11) and so on, which Caffe does not read; write 16",
    ),
    "decimal commas": (
        "layer { power_param {\n shift: 0,01\n scale: -2,5 } }\n",
        "line 2 (and 1 more lines) has a comma in a number, 0,01; write 0.01",
    ),
    "a no-break space": (
        "# \u00a0\nlayer { name:\u00a0'\u00a0c' }\n",
        "line 2 has NO-BREAK SPACE (U+00A0), which is no space to Caffe; write a plain one",
    ),
    "an ideographic space": (
        "layer { foo: 3\u3000include { phase: TRAIN } }\n",
        "line 1 has IDEOGRAPHIC SPACE (U+3000), which is no space to Caffe; write a plain one",
    ),
    "a line separator": (
        "layer { name: 'c' }\u2028layer { name: 'd' }\n",
        "line 1 has LINE SEPARATOR (U+2028), which is no line end to Caffe; write a line feed",
    ),
    "what cannot be seen": (
        "layer { \u200bname: 'c' }\n",
        "line 1 has ZERO WIDTH SPACE (U+200B), which cannot be seen; remove it",
    ),
    "a letter of another alphabet": (
        "layer { n\u0430me: 'c' }\n",
        "line 1 has 'а', CYRILLIC SMALL LETTER A (U+0430), outside of strings and comments, where Caffe reads ASCII "
        "only; correct it",
    ),
    "an ESC in a name": ("# a\nlayer { name: '\x1b[31m' }\n", "line 2 has the control character 0x1b; remove it"),
    "a NUL in a comment": (
        "# a\n# a\0b\nlayer { name: 'c' }\n",
        "line 2 has a NUL byte, which Caffe refuses in comments, too; remove it",
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
    path.write_bytes(text.encode())
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


@pytest.mark.parametrize("comment", ["# \x1b[31m\x07\x01\x7f 'a\n", "# “–\u00a0\u3000\u2028` ０,１\n", "# \x0e # '"])
def test_read_net_takes_comments_as_caffe_does(comment: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(f"{comment}\nlayer {{ name: 'c “–\u00a0`' # {comment}\n type: 'ReLU' }}\n{comment}".encode())
    assert read_net(path).layer[0].name == "c “–\u00a0`"


def test_read_net_names_a_mean_file(tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    old = caffe_pb2.BlobProto(num=1, channels=1, height=2, width=2, data=[1.0, 2.0, 3.0, 4.0])
    new = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=[1, 2]), double_data=[1.0, 2.0])
    for blob, n_values in ((old, 4), (new, 2)):
        path.write_bytes(blob.SerializeToString())
        with pytest.raises(
            FormatError, match=f"is a mean file, a blob of {n_values} values, not a net; give the proto"
        ):
            read_net(path)
