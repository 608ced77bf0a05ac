"""Pipes and devices in the place of files that the command line names: told at once, neither waited for nor read."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from distcalib.cli.exit_codes import ERROR, OK
from distcalib.cli.main import main
from distcalib.errors import FormatError
from distcalib.exporters.runtimes import open_model
from tests.session.tiny import Tiny

SECONDS = 20
COMMANDS = {
    "MODEL": ["inspect", "{}"],
    "init": ["init", "{}"],
    "verify": ["verify", "{}", "-m", "{net}", "-w", "{weights}"],
    "-w": ["evaluate", "{net}", "-w", "{}"],
    "--data": ["inspect", "{net}", "--data", "{}"],
    "--config": ["evaluate", "{net}", "--config", "{}"],
    "report": ["report", "{}"],
    "compare": ["compare", "{}", "{}"],
}


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Ends a test that waits for a pipe."""

    def ring(number: int, frame: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_file_is_told_at_once(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, kind: str
) -> None:
    path = tmp_path / "p"
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    words = [word.format(path, net=tiny.prototxt, weights=tiny.weights) for word in COMMANDS[command]]
    assert main(words) == ERROR
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"distcalib: {path}: is {kind}, not a file; ")


def test_the_weights_of_an_exported_file_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "net.xml").write_text("<net/>")
    os.mkfifo(tmp_path / "net.bin")
    with pytest.raises(FormatError, match=r"net\.bin: is a pipe, not a file; name a model.xml or model.onnx"):
        open_model(tmp_path / "net.xml")


def test_a_log_waits_for_no_reader(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "p")
    assert main(["calibrate", *tiny.args, "-i", "1", "--log-file", f"{tmp_path}/p"]) == ERROR
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"distcalib: --log-file {tmp_path}/p: is a pipe that nobody reads; name another file"


@pytest.mark.parametrize(
    ("words", "content", "code"),
    [
        (["evaluate", "{net}", "--print-config", "--config", "{}"], b"iterations: 18", OK),
        (["report", "{}"], b"{}", ERROR),
        (["inspect", "{}"], b"layer { name: 'x' type: 'Silence' }", ERROR),
    ],
    ids=["--config", "report", "a net, which is read more than once"],
)
def test_a_pipe_that_the_shell_has_opened_is_read_where_once_is_enough(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], words: list[str], content: bytes, code: int
) -> None:
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    try:
        assert main([word.format(f"/dev/fd/{reading}", net=tiny.prototxt) for word in words]) == code
    finally:
        os.close(reading)
    told = capsys.readouterr()
    said = {"evaluate": "iterations: 18", "report": "has schema_version None", "inspect": "is a pipe, not a file"}
    assert said[words[0]] in told.out + told.err
