"""Errors: what they are called, in Python and on the command line."""

import argparse
import pickle
from collections.abc import Iterator
from contextvars import Context
from dataclasses import fields
from pathlib import Path

import pytest

import distcalib
import distcalib.data.left_out
from distcalib.calibration.options import CalibrationOptions
from distcalib.cli.main import make_parser
from distcalib.errors import FLAGS, DistcalibError, OptionError, flags_named, listed, options_named
from distcalib.session.export_options import ExportOptions
from distcalib.session.options import EvaluationOptions
from tests.every import every
from tests.session.tiny import Tiny

MESSAGES = Path(__file__).resolve().parents[1] / "docs" / "messages.md"


@pytest.mark.parametrize(
    ("by_flag", "by_option"),
    [
        ("-l -1: must be 0 or more", "accuracy_loss=-1: must be 0 or more"),
        ("-p and -q exclude each other: give one", "performance_model and quantize_model exclude each other: give one"),
        ("--ship-data: leave it out", "ship_data: leave it out"),
        ("-d 1: no layer", "detection=True: no layer"),
        ("name one, or give -d 1 for mAP", "name one, or give detection=True for mAP"),
        ("fewer iterations (-i)", "fewer iterations (iterations)"),
        ("with `convert_imageset --encoded`", "with `convert_imageset --encoded`"),
        ("with --object-store-memory=5000", "with --object-store-memory=5000"),
        ("a-w.prototxt: 4-d, -1 and -2.5", "a-w.prototxt: 4-d, -1 and -2.5"),
        ("db/-i/data.mdb: no such file", "db/-i/data.mdb: no such file"),
        ("-1st and -a auto", "enable_1st_conv and calibration_algos auto"),
    ],
)
def test_an_error_names_options_in_python_and_flags_on_the_command_line(by_flag: str, by_option: str) -> None:
    error = OptionError(by_flag)
    assert Context().run(str, error) == options_named(by_flag) == by_option  # the tests name flags, a new context not
    with flags_named():
        assert str(error) == by_flag
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args) == (OptionError, (by_flag,))


def flags_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Each flag of the sub-commands, and where its value goes."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from flags_of(one)
        else:
            yield from ((flag, action.dest) for flag in action.option_strings)


def test_every_flag_that_sets_an_option_is_known_by_it() -> None:
    names = {field.name for kind in (CalibrationOptions, EvaluationOptions, ExportOptions) for field in fields(kind)}
    found = {flag: dest for flag, dest in flags_of(make_parser()) if dest in names and "_" not in flag}
    assert len(found) > 40
    missing = {flag: dest for flag, dest in found.items() if FLAGS.get(flag) != dest and flag[2:] != dest}
    assert missing == {}
    every(option in names | {"model", "weights"} for option in FLAGS.values())


def kinds(kind: type[DistcalibError]) -> Iterator[type[DistcalibError]]:
    for one in kind.__subclasses__():
        yield one
        yield from kinds(one)


def test_every_kind_of_error_has_a_code_of_its_own_and_an_entry_in_the_docs() -> None:
    codes = [kind.code for kind in kinds(DistcalibError) if kind.__module__.startswith("distcalib.")]
    assert len(codes) == len(set(codes)) >= 8
    text = MESSAGES.read_text(encoding="utf-8")
    assert [code for code in codes if f"## {code}\n" not in text] == []


def test_calibrate_names_the_option_to_a_user_of_python(tiny: Tiny, tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(OptionError) as caught:
            distcalib.calibrate(tiny.prototxt, tiny.weights, CalibrationOptions(accuracy_loss=1.5, out=tmp_path))
        return str(caught.value)

    assert Context().run(said).startswith("accuracy_loss=1.5: ")


def test_long_words_and_long_messages_are_cut_in_their_middle() -> None:
    path = "/".join(["folder"] * 30)
    assert str(OptionError(f"{path}: is wrong; correct it")) == f"{path}: is wrong; correct it"
    word = str(OptionError(f"image '{'x' * 5000}': is not there; correct the list"))
    assert word == f"image '{'x' * 299} [... 4,603 letters ...] {'x' * 98}': is not there; correct the list"
    message = str(OptionError("net: " + "a, " * 10**6 + "is not there; correct the list"))
    assert len(message) < 10_100
    assert message.startswith("net: a, a, ")
    assert message.endswith(" a, is not there; correct the list")


def test_listed_names_the_first() -> None:
    assert [listed([]), listed("ab"), listed("abc", 2)] == ["none", "a, b", "a, b and 1 more"]
