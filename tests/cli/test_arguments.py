"""Options that several commands share."""

import argparse
from pathlib import Path

import pytest

from distcalib.cli.arguments import a_number_or_auto, add_model, console_of, example, model_of
from distcalib.errors import OptionError


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
