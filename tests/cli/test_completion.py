"""`distcalib completion`: what bash completes with its script."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from distcalib.cli.completion import SHELLS
from distcalib.cli.exit_codes import ERROR, OK
from distcalib.cli.main import COMMANDS, main

pytest.importorskip("shtab")

_ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
$(complete -p distcalib | sed 's/.*-F \\([^ ]*\\) .*/\\1/') distcalib
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == OK
    path = tmp_path / "completion.sh"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("distcalib cal", ["calibrate"]),
        ("distcalib calibrate --keep", ["--keep-fp32", "--keep-int8", "--keep-weights"]),
        ("distcalib export --to o", ["onnx", "openvino"]),
        ("distcalib calibrate -m n", ["net.prototxt", "nets"]),
        ("distcalib evaluate n", ["net.prototxt", "nets"]),
        ("distcalib calibrate --out n", ["nets"]),
        ("distcalib completion z", ["zsh"]),
    ],
)
def test_bash_completes(script: Path, tmp_path: Path, typed: str, completed: list[str]) -> None:
    (tmp_path / "net.prototxt").touch()
    (tmp_path / "nets").mkdir()
    done = subprocess.run(
        ["bash", "-c", _ASK, "bash", script, *shlex.split(typed)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert sorted(done.stdout.split()) == completed


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script_with_all_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == OK
    text = capsys.readouterr().out
    names = [module.__name__.rpartition(".")[2] for module in COMMANDS]
    assert [name for name in names if name not in text] == []


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "cmd"]) == ERROR
    assert "invalid choice: 'cmd'" in capsys.readouterr().err
