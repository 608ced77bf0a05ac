"""--log-file: never into an input, and a full disk is one sentence."""

from pathlib import Path

import pytest

from distcalib.cli.exit_codes import ERROR
from distcalib.cli.main import main
from tests.session.tiny import Tiny, make_tiny


@pytest.fixture
def own(tmp_path: Path) -> Tiny:
    """A net that may be destroyed."""
    return make_tiny(tmp_path)


@pytest.mark.parametrize("which", ["prototxt", "weights"])
def test_a_log_is_never_written_into_what_the_run_reads(
    own: Tiny, which: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path: Path = getattr(own, which)
    before = path.read_bytes()
    assert main(["calibrate", *own.args, "-i", "1", "--log-file", str(path)]) == ERROR
    assert f"--log-file {path}: is a file that the run reads; name another file" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_full_disk_is_one_sentence(own: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *own.args, "-i", "1", "--log-file", "/dev/full"]) == ERROR
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("distcalib: --log-file /dev/full: cannot be written (No space left on device); name another")
