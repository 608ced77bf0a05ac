"""--config and --print-config: a file says what flags say, and the command line comes first."""

import json
from pathlib import Path

import pytest
import yaml

from distcalib.cli.exit_codes import ERROR, OK
from distcalib.cli.main import main
from tests.session.tiny import Tiny


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settled(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, object]:
    """What --print-config shows."""
    assert main([*args, "--print-config"]) == OK
    found: dict[str, object] = yaml.safe_load(capsys.readouterr().out)
    return found


def test_config_says_what_flags_say(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run.yaml").write_text(
        "model: net.prototxt\nweights: w.caffemodel\niterations: 18\naccuracy-loss: 1e-3\nblob_name: yes\n"
        "keep_int8: [conv1, 'fc*']\nfc_int8: on\npareto: false\nstages: deploy,test\nn_actors: 2\nmax_time:\nout: ~\n"
    )
    found = settled(capsys, "calibrate", "--config", "run.yaml")
    flags = "-m net.prototxt -w w.caffemodel -i 18 -l 1e-3 -n yes --keep-int8 conv1 --keep-int8 fc* -fc --actors 2"
    by_flags = settled(capsys, "calibrate", *flags.split(), "--stage", "deploy,test")
    assert found == by_flags
    assert found["accuracy_loss"] == 0.001
    assert found["stage"] == ["deploy", "test"]
    assert found["max_time"] is None


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (["-i", "3"], "iterations", 3),
        (["-i3"], "iterations", 3),
        (["--isa", "native"], "isa", "native"),
        (["--keep-int8", "b"], "keep_int8", ["b"]),
        (["--stage", "c"], "stage", ["c"]),
        (["other.prototxt"], "model", "other.prototxt"),
        (["-m", "other.prototxt"], "model", "other.prototxt"),
        (["--recover"], "recover", "on"),
        (["--keep-weights"], "recover", "off"),
        ([], "recover", "on"),
        ([], "keep_int8", ["a"]),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_the_command_line_comes_first(
    here: Path, capsys: pytest.CaptureFixture[str], flags: list[str], key: str, value: object, is_first: bool
) -> None:
    (here / "run.yaml").write_text(
        "{model: net.prototxt, iterations: 18, isa: skylake, recover: on, keep_int8: [a], stage: [a, b], weights: w}"
    )
    config = ["--config=run.yaml"]
    found = settled(capsys, "calibrate", *(flags + config if is_first else config + flags))
    assert found[key] == value


@pytest.mark.parametrize("command", ["calibrate", "evaluate", "export"])
def test_print_config_is_read_again(here: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    flags = ["net.prototxt", "-w", "w", "-i", "3", "--skip-bad-records", "--plugin", "a.py", "--plugin", "b"]
    assert main([command, *flags, "--print-config"]) == OK
    text = capsys.readouterr().out
    assert text.startswith(f"# distcalib {command} --config ")
    (here / "run.yaml").write_text(text)
    assert main([command, "--config", "run.yaml", "--print-config"]) == OK
    assert capsys.readouterr().out == text


def test_print_config_without_anything_lists_all_flags(capsys: pytest.CaptureFixture[str]) -> None:
    found = settled(capsys, "export")
    assert found["to"] is None
    assert found["ap_version"] == "11point"
    assert not {"help", "config", "print_config", "json"} & found.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("iteratons: 18", "run.yaml:1: iteratons: is not a flag of this command; did you mean iterations?"),
        ("frob: 1", "run.yaml:1: frob: is not a flag of this command; --print-config lists all"),
        ("\niterations: x", "run.yaml:2: iterations: invalid int value: 'x'"),
        ("isa: z80", "run.yaml:1: isa: invalid choice: 'z80' (choose from "),
        ("accuracy_loss: 1%", "run.yaml:1: accuracy_loss: '1%' is not a number; 0.01 is one point"),
        ("pareto: maybe", "run.yaml:1: pareto: 'maybe' is neither true nor false"),
        ("out: [a]", "run.yaml:1: out: takes one value, not a list"),
        ("out: {a: b}", "run.yaml:1: out: takes one value, nothing nested"),
        ("stage: [[a]]", "run.yaml:1: stage: takes a list of values, nothing nested"),
        ("out: a\nout: b", "run.yaml:2: out: stands in line 1 too; keep one of them"),
        ("- a", "run.yaml: is not a list of flags; write a flag a line, such as iterations: 18"),
        ("a: b: c", "run.yaml:1: is not YAML ("),
        ("[" * 3000, "run.yaml: is nested too deeply"),
        ("!!python/object/apply:os.system ['touch x']: 1", "is not a flag of this command"),
        (b"\xff\xfe\x00", "run.yaml: is not text in UTF-8; save it as such"),
        (None, "run.yaml: cannot be read (No such file or directory); check the path"),
    ],
)
def test_config_names_what_is_wrong(
    here: Path, capsys: pytest.CaptureFixture[str], text: str | bytes | None, said: str
) -> None:
    if text is not None:
        (here / "run.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["calibrate", "--config", "run.yaml", "-m", "a", "-w", "b"]) == ERROR
    err = capsys.readouterr().err
    assert err.startswith("distcalib: ")
    assert said in err
    assert err.count("\n") == 1
    assert {path.name for path in here.iterdir()} <= {"run.yaml"}


def test_config_names_all_that_is_wrong_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run.yaml").write_text("iteratons: 1\nmax_time: x\n")
    assert main(["evaluate", "--config", "run.yaml"]) == ERROR
    err = capsys.readouterr().err
    assert "run.yaml:1: iteratons" in err
    assert "run.yaml:2: max_time: is not a flag of this command" in err


def test_an_empty_file_says_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run.yaml").write_text("# nothing yet\n")
    assert settled(capsys, "evaluate", "--config", "run.yaml") == settled(capsys, "evaluate")


def test_config_without_a_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--config="]) == ERROR
    assert "--config: is empty; name a file or folder" in capsys.readouterr().err
    assert main(["calibrate", "--config"]) == ERROR
    assert "--config: expected one argument" in capsys.readouterr().err


def test_relative_paths_are_those_of_the_working_directory(
    here: Path, capfd: pytest.CaptureFixture[str], tiny: Tiny, actors: None
) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "run.yaml").write_text(f"model: net.prototxt\nweights: {tiny.weights}\niterations: 2\nactors: 1\n")
    (here / "net.prototxt").write_text(tiny.prototxt.read_text())
    assert main(["evaluate", "--config", "conf/run.yaml", "--json"]) == OK
    assert json.loads(capfd.readouterr().out)["n_iterations"] == 2


def test_a_second_file_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.yaml", "b.yaml"):
        (here / name).write_text("iterations: 3\n")
    assert main(["calibrate", "--config", "a.yaml", "--config=b.yaml"]) == ERROR
    assert "--config: is given more than once; put all flags into one file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1, 2]: 3\n", "a key that is not a word: is not a flag"), (None, "is a device, not a file; name a file")],
    ids=["a list for a key", "a device"],
)
def test_what_is_not_a_file_of_flags_is_refused_in_words(
    here: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    path = "/dev/zero" if text is None else "run.yaml"
    if text is not None:
        (here / path).write_text(text)
    assert main(["calibrate", "--config", path]) == ERROR
    assert said in capsys.readouterr().err
