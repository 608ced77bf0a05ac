"""`distcalib init`: a command that runs, or what keeps it from being run."""

import json
import shlex
from pathlib import Path

import pytest

from distcalib.cli.exit_codes import ERROR, OK
from distcalib.cli.init import lines
from distcalib.cli.main import main
from distcalib.session.proposal import Part, Proposal
from tests.session.tiny import Tiny


def test_init_prints_the_command_first_and_a_line_a_flag() -> None:
    found = Proposal("n", (Part("-m", "n.prototxt", "2 layers"), Part("-l", "0.01", "a point")), ())
    assert lines(found) == [
        "distcalib calibrate -m n.prototxt -l 0.01",
        "",
        "  -m n.prototxt           2 layers",
        "  -l 0.01                 a point",
    ]


def test_init_ends_with_what_is_missing() -> None:
    found = Proposal("n", (Part("-m", "n" * 30, "2 layers"),), ("n: has no data",))
    assert lines(found)[2:] == [
        f"  -m {'n' * 30}",
        "                          2 layers",
        "",
        "before it can be run:",
        "  n: has no data",
    ]


@pytest.mark.usefixtures("actors")
def test_the_command_of_init_runs_as_it_stands(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", str(tiny.prototxt)]) == OK
    command = capfd.readouterr().out.splitlines()[0]
    assert main([*shlex.split(command)[1:], "--actors", "1"]) == OK
    assert (tmp_path / "net_int8" / "net_quantized.prototxt").exists()


def test_init_json_says_whether_it_can_be_run(tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tiny.prototxt), "--json"]) == OK
    found = json.loads(capfd.readouterr().out)
    assert found["can_run"] is True
    assert found["command"].startswith("distcalib calibrate -m ")
    assert {"flag": "-n", "value": "accuracy-top1"}.items() <= found["parts"][3].items()
    net = tmp_path / "net.prototxt"
    net.write_text(tiny.prototxt.read_text())
    assert main(["init", str(net), "--json"]) == ERROR
    found = json.loads(capfd.readouterr().out)
    assert found["can_run"] is False
    assert found["missing"] == ["net.prototxt: no .caffemodel is beside it; give the FP32 caffemodel with -w"]
