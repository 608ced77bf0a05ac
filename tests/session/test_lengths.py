from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.data import open_source
from distcalib.errors import DataError, OptionError
from distcalib.session.lengths import Length, length_warnings, lengths_of, refuse_unequal, whole_iterations
from tests.data.databases import data_layer, numbered, write_datums


def layer(text: str) -> LayerParameter:
    return text_format.Parse(f'name: "data" type: "Input" {text}', LayerParameter())


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({"data": 20, "label": 15}, [("data", 20, 5), ("label", 15, 5)]),
        ({"data": 20, "label": 5}, [("data", 20, 5)]),  # a constant
        ({"data": 5, "label": 5}, []),
    ],
)
def test_lengths_of_arrays(rows: Mapping[str, int], expected: list[tuple[str, int, int]]) -> None:
    made = layer('top: "data" top: "label" input_param { shape { dim: 5 dim: 2 } shape { dim: 5 } }')
    arrays = {"data": np.zeros((rows["data"], 2)), "label": np.zeros(rows["label"])}
    source = open_source(made, Path("net.prototxt"), arrays=arrays)
    found = lengths_of([("data", source)], arrays)
    assert found == tuple(Length(f"the array of top '{top}'", n, batch) for top, n, batch in expected)
    assert lengths_of([("data", open_source(made, Path("net.prototxt")))], None) == ()


def test_lengths_of_databases(tmp_path: Path) -> None:
    sources = []
    for n in (20, 15):
        folder = write_datums(tmp_path / f"{n}", numbered(n))
        sources.append((f"db{n}", open_source(data_layer(folder, 5), tmp_path / "net.prototxt")))
    assert lengths_of(sources, None) == (Length("layer 'db20'", 20, 5), Length("layer 'db15'", 15, 5))


TWO = (Length("layer 'a'", 20, 5), Length("layer 'b'", 15, 5))


@pytest.mark.parametrize(
    ("lengths", "n_iterations", "refused"),
    [
        (TWO, 3, False),
        (TWO, 4, True),
        ((TWO[0], TWO[0]), 9, False),
        ((TWO[0], Length("layer 'c'", 40, 10)), 9, False),  # of two crops each
        ((TWO[0],), 9, False),
        ((), 9, False),
    ],
)
def test_refuse_unequal(lengths: tuple[Length, ...], n_iterations: int, refused: bool) -> None:
    if not refused:
        refuse_unequal(lengths, n_iterations, "net.prototxt")
        return
    with pytest.raises(DataError) as error:
        refuse_unequal(lengths, n_iterations, "net.prototxt")
    assert str(error.value) == (
        "net.prototxt: layer 'a' has 20, layer 'b' has 15: different numbers of records, so that 4 iterations would "
        "pair records that do not belong together; give sources of one length, or fewer iterations (-i)"
    )


@pytest.mark.parametrize(
    ("lengths", "n_iterations", "said"),
    [
        (TWO[:1], 4, []),
        (TWO[:1], 3, ["n: layer 'a': 5 records are never looked at (-i 3 x batch 5 = 15 of 20)"]),
        (
            (Length("layer 'a'", 16, 5),),
            3,
            ["n: layer 'a': 1 record is never looked at (-i 3 x batch 5 = 15 of 16); batch_size 4 reads each once"],
        ),
        (
            (Length("layer 'a'", 17, 5),),
            3,
            ["n: layer 'a': 2 records are never looked at (-i 3 x batch 5 = 15 of 17)"],  # 17 is prime
        ),
        (TWO[:1], 5, ["n: layer 'a': 5 records are counted more than once (-i 5 x batch 5 = 25 of 20)"]),
        (TWO[:1], 100, ["n: layer 'a': 20 records are counted more than once (-i 100 x batch 5 = 500 of 20)"]),
        (
            TWO,
            3,
            [
                "n: layer 'a' has 20, layer 'b' has 15: different numbers of records; see that they belong together",
                "n: layer 'a': 5 records are never looked at (-i 3 x batch 5 = 15 of 20)",
            ],
        ),
    ],
)
def test_length_warnings(lengths: tuple[Length, ...], n_iterations: int, said: list[str]) -> None:
    assert list(length_warnings(lengths, n_iterations, "n")) == said


@pytest.mark.parametrize(
    ("lengths", "n"),
    [
        (TWO[:1], 4),
        ((Length("layer 'a'", 19, 5),), 3),  # the last 4 records would not fill an iteration
        ((Length("layer 'a'", 3, 5),), 1),
        (TWO, 3),  # layer 'b' ends first
    ],
)
def test_whole_iterations_read_each_record_once_at_the_most(lengths: tuple[Length, ...], n: int) -> None:
    assert whole_iterations(lengths, [], None, "net.prototxt") == n


def test_whole_iterations_of_arrays_of_one_iteration_is_one() -> None:
    made = layer('top: "data" input_param { shape { dim: 5 dim: 2 } }')
    arrays = {"data": np.zeros((5, 2))}
    named = [("data", open_source(made, Path("net.prototxt"), arrays=arrays))]
    assert whole_iterations(lengths_of(named, arrays), named, arrays, "net.prototxt") == 1


def test_whole_iterations_of_data_without_an_end_ask_for_a_number() -> None:
    dummy = text_format.Parse(
        'name: "noise" type: "DummyData" top: "data" dummy_data_param { shape { dim: 5 } }', LayerParameter()
    )
    named = [("noise", open_source(dummy, Path("net.prototxt")))]
    with pytest.raises(OptionError) as error:
        whole_iterations(lengths_of(named, None), named, None, "net.prototxt")
    assert str(error.value) == (
        "net.prototxt: layer 'noise' does not tell how many records it has; give -i, the number of iterations"
    )
