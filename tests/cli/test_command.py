"""What the shell runs."""

import gc
from importlib.metadata import entry_points

import pytest

from distcalib import cli


def test_the_command_is_main_of_a_process_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "main", lambda: 7)
    try:
        assert cli.command() == 7
        assert gc.get_freeze_count() > 0, "nothing is looked through at the end"
    finally:
        gc.unfreeze()


def test_distcalib_is_the_command() -> None:
    [entry] = entry_points(group="console_scripts", name="distcalib")
    assert entry.load() is cli.command
