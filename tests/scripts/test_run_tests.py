"""Tests in two processes: what both print, and that a failure of either is one of the whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.tools.run_tests import PARTS, run
from tests.every import every

ROOT = Path(__file__).resolve().parents[2]


def test_the_parts_are_all_tests() -> None:
    *some, rest = PARTS
    folders = [one for part in some for one in part if one.startswith("tests")]
    assert [one.removeprefix("--ignore=") for one in rest if one.startswith("--ignore=")] == folders
    assert every((ROOT / folder).is_dir() for folder in folders)
    assert "tests" in rest


@pytest.mark.parametrize(
    ("texts", "code", "said"),
    [
        pytest.param(("assert True", "assert True"), 0, "tests passed in 2 processes", id="both"),
        pytest.param(("assert False", "assert True"), 1, "(exit codes 1, 0)", id="the first fails"),
        pytest.param(("assert True", "assert False"), 1, "(exit codes 0, 1)", id="the second fails"),
        pytest.param(("assert True", "import os; os.abort()"), 1, "(exit codes 0, -6)", id="the second crashes"),
    ],
)
def test_run_shows_both_parts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], texts: tuple[str, str], code: int, said: str
) -> None:
    files = [tmp_path / f"test_{name}.py" for name in ("one", "two")]
    for file, text in zip(files, texts, strict=True):
        file.write_text(f"def test_it():\n    {text}\n")
    assert run(["-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)], [[str(file)] for file in files]) == code
    shown = capfd.readouterr().out
    assert said in shown.splitlines()[-1]
    for file, text in zip(files, texts, strict=True):
        assert (file.name in shown) == ("True" not in text), "a failure is shown with its file"


def test_ctrl_c_ends_both(tmp_path: Path) -> None:
    for name in ("one", "two"):
        body = f"pathlib.Path({str(tmp_path / name)!r}).touch(); time.sleep(60)"
        (tmp_path / f"test_{name}.py").write_text(f"import pathlib, time\ndef test_it():\n    {body}\n")
    code = (
        "import sys; from scripts.tools.run_tests import run; "
        f"sys.exit(run(['-q', '-p', 'no:cacheprovider', '--rootdir', {str(tmp_path)!r}], "
        f"[[{str(tmp_path / 'test_one.py')!r}], [{str(tmp_path / 'test_two.py')!r}]]))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, start_new_session=True, text=True) as process:
        while not ((tmp_path / "one").exists() and (tmp_path / "two").exists()) and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait() == 130
