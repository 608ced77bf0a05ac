"""The table of what is in the way of public nets, and the list of those whose outcome is known."""

import os
from pathlib import Path

import pytest

from scripts.tools.read_nets import KINDS, RUNS, Outcome, kind_of, nets_below, outcome, table

LIST = Path(__file__).parent.parent / "data" / "public_nets.txt"
"""A line a net: owner/name@commit, path, and the outcome that `read_nets.py --run` has for it."""
NETS = os.environ.get("DISTCALIB_PUBLIC_NETS")
"""A folder with those files, as owner__name/path__of__the__file."""

GOOD = """
layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }
layer { name: "p" type: "Convolution" bottom: "x" top: "p" convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "l" type: "Python" top: "label" python_param { module: "m" layer: "L" } }
layer { name: "s" type: "SoftmaxWithLoss" bottom: "p" bottom: "label" top: "s" softmax_param { axis: -1 } }
"""


def listed() -> list[list[str]]:
    return [line.split("\t") for line in LIST.read_text("utf-8").splitlines() if not line.startswith("#")]


def test_list_has_enough_nets_of_enough_repositories() -> None:
    nets = listed()
    assert len(nets) >= 200
    assert len({address for address, *_ in nets}) >= 60
    assert len({(address, path) for address, path, _ in nets}) == len(nets)
    assert {kind for *_, kind in nets} <= {RUNS, "other"} | {kind for kind, _ in KINDS}


@pytest.mark.skipif(NETS is None, reason="DISTCALIB_PUBLIC_NETS names no folder")
@pytest.mark.slow
@pytest.mark.parametrize("net", listed(), ids=lambda net: f"{net[0]}/{net[1]}")
def test_public_nets_come_out_as_listed(net: list[str]) -> None:
    address, path, expected = net
    assert NETS is not None
    file = Path(NETS) / address.partition("@")[0].replace("/", "__") / path.replace("/", "__")
    found = outcome(file, Path(NETS), run=True)
    assert found.kind == expected, found.reasons


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("n: line 3: unknown field 'x' in LayerParameter; remove it", "a field that is not known"),
        ("n: 2 things: line 1: '$' where the name of a field is; line 2: unknown field", "a template or a broken text"),
        ("n: layer 'p' (Python): runs a.B, code from outside", "a Python layer"),
        ("n: layer 'p' (Odd): is not a layer type of Caffe or Intel Caffe", "a layer type that is not known"),
        ("n: has no data layer in the TEST phase; add one", "no data layer in TEST"),
        ("n: layer 'l' (Recurrent): is a recurrent layer of other forks", "a known type that is not converted"),
        ("n: layer 'c' (Concat): its bottoms have shapes", "other"),
        ("traceback ... unknown field", "a traceback"),
    ],
)
def test_kind_of_sorts_sentences(reason: str, kind: str) -> None:
    assert kind_of([reason]) == kind


def test_nets_below_passes_over_solvers_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "net.prototxt").write_text(GOOD)
    (tmp_path / "a" / "test.pt").write_text("layers { name: 'x' }")
    (tmp_path / "a" / "solver.prototxt").write_text("net_param { layer { } }\nbase_lr: 0.1")
    (tmp_path / "a" / "labels.prototxt").write_text("item { label: 1 }")
    (tmp_path / "a" / "net.txt").write_text(GOOD)
    assert [path.name for path in nets_below(tmp_path)] == ["net.prototxt", "test.pt"]


@pytest.mark.parametrize("run", [False, True])
def test_outcome_of_a_sound_net_is_that_it_runs(tmp_path: Path, run: bool) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(GOOD.replace('bottom: "label"', 'bottom: "p"').replace("SoftmaxWithLoss", "EuclideanLoss"))
    assert outcome(path, tmp_path, run) == Outcome("net.prototxt", RUNS)


def test_outcome_of_a_net_that_cannot_be_run_says_why(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(GOOD.replace('"Convolution"', '"Frobnicate"'))
    found = outcome(path, tmp_path, run=True)
    assert found.kind == "a layer type that is not known"
    assert "Frobnicate" in found.reasons[0]


def test_table_counts_each_file_once() -> None:
    outcomes = [
        Outcome(str(i), kind) for i, kind in enumerate(["other", RUNS, RUNS, "a Python layer", "other", "other"])
    ]
    assert table(outcomes).splitlines()[1:] == [
        "     2    33%  runs",
        "     3    50%  other",
        "     1    17%  a Python layer",
        "     6         in all",
    ]


def test_images_that_code_makes_are_assumed_where_they_are_joined(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("""
layer { name: "d" type: "Python" top: "color" top: "depth" top: "label" python_param { module: "m" layer: "L" } }
layer { name: "data" type: "Concat" bottom: "color" bottom: "depth" top: "data" }
layer { name: "p" type: "Convolution" bottom: "data" top: "p" convolution_param { num_output: 2 kernel_size: 3 } }
""")
    assert outcome(path, tmp_path, run=True).kind == RUNS
