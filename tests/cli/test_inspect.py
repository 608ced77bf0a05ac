"""`distcalib inspect`: a listing that can be read, and everything that is wrong below it."""

import json
from pathlib import Path

import pytest

from distcalib.cli.exit_codes import ERROR, OK
from distcalib.cli.inspect import grouped
from distcalib.cli.main import main
from tests.session.tiny import Tiny, make_tiny


def test_inspect_lists_layers_in_columns(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", *tiny.args]) == OK
    head, *rows, summary = capsys.readouterr().out.splitlines()
    assert head.split() == ["layer", "type", "shape", "INT8"]
    assert len(rows) == 13
    column = head.index("INT8")
    assert rows[3][column:] == "quantizable"
    assert rows[0].split()[2:] == ["8×3×8×8,", "8"]
    assert summary == f"{tiny.prototxt}: 13 layers, 3 quantizable, 0 INT8"


def test_inspect_names_all_problems_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = make_tiny(
        tmp_path, edit=lambda text: text.replace("InnerProduct", "Recurrent").replace("top_k: 2", "top_k: 0")
    )
    assert main(["inspect", *net.args]) == ERROR
    shown = capsys.readouterr().out.splitlines()
    problems = [line for line in shown if line.startswith("cannot be run: ")]
    assert len(problems) == 2
    assert "layer 'fc' (Recurrent)" in problems[0]
    assert "layer 'top2' (Accuracy): top_k=0" in problems[1]
    assert shown[-1].endswith(", cannot be run as it is")


def test_inspect_json(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny.prototxt), "--json"]) == OK
    found = json.loads(capsys.readouterr().out)
    assert found["quantizable"] == ["conv2", "conv3", "conv4"]
    assert found["layers"][0]["shapes"] == [[8, 3, 8, 8], [8]]


def test_grouped_has_a_line_for_each_kind_of_fault() -> None:
    faults = [f"n.prototxt: layer 'b{i}' (Odd): is not known" for i in range(5)]
    faults += ["n.prototxt: layer 'c' (Odd): lacks a top", "n.prototxt: has no data", "n.prototxt: layer 'd' (Even) x"]
    assert grouped(faults) == [
        "n.prototxt: 5 layers 'b0', 'b1', 'b2' and 2 more (Odd): is not known",
        "n.prototxt: layer 'c' (Odd): lacks a top",
        "n.prototxt: has no data",
        "n.prototxt: layer 'd' (Even) x",
    ]
    assert grouped(faults[:2]) == ["n.prototxt: 2 layers 'b0', 'b1' (Odd): is not known"]
    assert grouped([]) == []
