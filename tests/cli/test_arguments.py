"""Options that several commands share."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from distcalib.caffe.belonging import belonging_line
from distcalib.cli.arguments import a_number_or_auto, add_model, console_of, example, model_of, weights_of
from distcalib.errors import OptionError
from tests.report.reports import REPORT


@pytest.mark.parametrize("given", [["-m", "a.prototxt"], ["a.prototxt"], ["--model", "a.prototxt"]])
def test_model_is_given_as_the_predecessor_has_it_or_alone(given: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_model(parser)
    assert model_of(parser.parse_args([*given, "-w", "w"])) == Path("a.prototxt")


@pytest.mark.parametrize("given", [[], ["-m", "a", "b"]])
def test_model_is_given_once(given: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_model(parser)
    with pytest.raises(OptionError, match="MODEL: give the prototxt once, as -m MODEL or alone"):
        model_of(parser.parse_args([*given, "-w", "w"]))


@pytest.mark.parametrize("json", [True, False])
def test_console_leaves_stdout_to_json(json: bool) -> None:
    assert console_of(argparse.Namespace(json=json)).stderr is json


def test_example_ends_with_the_commands() -> None:
    assert example("a b", "c").splitlines()[1:] == ["  a b", "  c"]


@pytest.mark.parametrize(("text", "number"), [("auto", None), ("2", 2), ("-1", -1)])
def test_a_number_or_auto(text: str, number: int | None) -> None:
    assert a_number_or_auto(text) == number


@pytest.mark.parametrize("text", ["", "AUTO", "1.5"])
def test_a_number_or_auto_refuses(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is neither a whole number nor auto"):
        a_number_or_auto(text)


def test_weights_are_those_given_else_those_that_the_prototxt_was_measured_with(tmp_path: Path) -> None:
    net, new, old, other = (tmp_path / name for name in ("net.prototxt", "w_new.caffemodel", "w.caffemodel", "other"))
    given, left_out = argparse.Namespace(weights=other), argparse.Namespace(weights=None)
    net.write_text("name: 'net'")
    with pytest.raises(OptionError, match="does not tell which caffemodel it runs with; give it with -w"):
        weights_of(left_out, net)
    old.touch()
    (tmp_path / "report.json").write_text(replace(REPORT, output=str(net), weights=str(old)).to_json())
    assert weights_of(left_out, net) == old
    assert weights_of(given, net) == other
    with pytest.raises(OptionError):  # the report is of another prototxt
        weights_of(left_out, tmp_path / "other.prototxt")
    new.touch()
    net.write_text(belonging_line(new.name, "0" * 64))
    assert weights_of(left_out, net) == new
    (tmp_path / "report.json").write_text("{")
    net.write_text("name: 'net'")
    with pytest.raises(OptionError):
        weights_of(left_out, net)
