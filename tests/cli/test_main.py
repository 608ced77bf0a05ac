"""Every mistake of a user is one sentence on stderr, exit code 1, and nothing is written."""

import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distcalib.caffe import caffe_pb2, read_net, read_weights, write_weights
from distcalib.cli import calibrate, inspect
from distcalib.cli.exit_codes import ERROR, INTERRUPTED, TERMINATED
from distcalib.cli.main import main, make_parser
from scripts.faults.chaos import processes
from tests.conftest import ROOT
from tests.data.databases import noise, raw_datum, write_datums, write_lmdb
from tests.every import every
from tests.session.tiny import Tiny


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The sentence with which a command line is refused."""
    assert main([str(arg) for arg in args]) == ERROR
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert err.startswith("distcalib: ")
    assert err.count("\n") == 1, "one sentence"
    return err.removeprefix("distcalib: ").rstrip("\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        pytest.param("-i 0", "-i 0: must be at least 1", id="no_iterations"),
        pytest.param("-i -3", "-i -3: must be at least 1", id="negative_iterations"),
        pytest.param("-i x", "-i/--iterations: invalid int value: 'x'; see distcalib calibrate --help", id="no_number"),
        pytest.param("-s 0", "-s 0: must be at least 1", id="no_sampling"),
        pytest.param("-l -0.1", "-l -0.1: must be 0 or more", id="negative_tolerance"),
        pytest.param("-l -1", "-l -1: must be 0 or more", id="tolerance_minus_1"),
        pytest.param("-i -1", "-i -1: must be at least 1", id="iterations_minus_1"),
        pytest.param("-i 99999999999", "-i 99999999999: is more than 10000000; give images", id="many_iterations"),
        pytest.param("-i10000000000", "-i 10000000000: is more than", id="value_behind_its_flag"),
        pytest.param("-1s", "unrecognized arguments: -1s; see", id="abbreviated_short_flag"),
        pytest.param("-p -q", "-p and -q exclude each other: one writes scales of 1.0", id="p_and_q"),
        pytest.param("-l inf", "-l inf: must be 0 or more", id="tolerance_inf"),
        pytest.param("-l 1.5", "-l 1.5: is more than the accuracy 'accuracy-top1' can lose", id="large_tolerance"),
        pytest.param("-l nan", "-l nan: must be 0 or more", id="tolerance_nan"),
        pytest.param(
            "-n foo",
            "net.prototxt: -n foo: the net has no output blob 'foo' to score by; choose one of 'accuracy-top1'",
            id="blob",
        ),
        pytest.param("-c foo", "invalid choice: 'foo' (choose from", id="channel"),
        pytest.param("-a FOO", "-a FOO: unknown; choose DIRECT", id="algorithm"),
        pytest.param(
            "-d 1", "-d 1: the net has no DetectionEvaluate or EvalDetection layer to be scored by", id="detection"
        ),
        pytest.param("-d 2", "-d 2: is neither 0, classification, nor 1, detection", id="no_detection"),
        pytest.param("--ap-version 12point", "invalid choice: '12point' (choose from", id="ap_version"),
        pytest.param("-r none", "-r none: has no tools/caffe; give the build folder of Intel Caffe", id="no_caffe"),
        pytest.param("-r none --isa skylake", "--isa skylake: with -r the kernels are those that", id="caffe_and_isa"),
        pytest.param("-a direct", "-a direct: unknown; choose DIRECT, MA", id="lower_case"),
        pytest.param("--actors 3000000", "--actors 3000000: is more than 64 for each of", id="many_actors"),
        pytest.param("--cores-per-actor -1", "--cores-per-actor -1: must be at least 1", id="negative_cores"),
        pytest.param("--isa foo", "argument --isa: invalid choice: 'foo'", id="isa"),
        pytest.param("--out=", "argument --out: is empty; name a file or folder", id="empty_out"),
        pytest.param("--data=", "argument --data: is empty; name a file or folder", id="empty_data"),
        pytest.param("--data x.npz", "x.npz: does not exist; give a .npz with an array a top", id="absent_data"),
        pytest.param("--out=/dev/null/x", "/dev/null/x: cannot be written to", id="out_below_a_file"),
        pytest.param("--strategy foo", "--strategy foo: unknown; choose ranked, greedy", id="strategy"),
        pytest.param("--actors 0", "--actors 0: must be at least 1; leave it out", id="no_actors"),
        pytest.param("--cores-per-actor 99", "--cores-per-actor 99: an actor may use", id="cores"),
        pytest.param("--out /proc/none", "/proc/none: cannot be written to (", id="out_read_only"),
        pytest.param("--frob", "unrecognized arguments: --frob; see distcalib calibrate --help", id="unknown_flag"),
        pytest.param("--iter=3", "unrecognized arguments: --iter=3; see", id="abbreviated_flag"),
    ],
)
def test_calibrate_refuses_a_flag(
    tiny: Tiny, here: Path, capsys: pytest.CaptureFixture[str], args: str, said: str
) -> None:
    before = sorted(tiny.prototxt.parent.rglob("*"))
    assert said in refusal(capsys, "calibrate", *tiny.args, *args.split())
    assert list(here.iterdir()) == []
    assert sorted(tiny.prototxt.parent.rglob("*")) == before


# The table of the predecessor's flags that are not there yet.
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("-d 1", "net.prototxt: -d 1: the net has no DetectionEvaluate or EvalDetection layer to be scored by"),
        ("--detection 2", "-d 2: is neither 0, classification, nor 1, detection"),
    ],
)
def test_evaluate_takes_detection_as_calibrate_does(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], flags: str, said: str
) -> None:
    assert refusal(capsys, "evaluate", *tiny.args, *flags.split()).startswith(said)


@pytest.mark.parametrize("flags", calibrate.NOT_YET, ids=[flags[0] for flags, *_ in calibrate.NOT_YET])
def test_calibrate_refuses_by_name_what_the_predecessor_had(
    tiny: Tiny, capsys: pytest.CaptureFixture[str], flags: tuple[tuple[str, ...], bool, str]
) -> None:
    names, takes_value, reason = flags
    for name in names:
        said = refusal(capsys, "calibrate", *tiny.args, name, *(["x"] if takes_value else []))
        assert said == f"{name}: {reason}"
        assert "leave it out" in said or ";" in said, "what would do"


def test_calibrate_knows_every_flag_of_the_predecessor() -> None:
    known = """-r --root -m --model -w --weights -i --iterations -n --blob_name -l --accuracy_loss -d --detection
    -fu --first_conv_force_u8 -clx -c --weights_channel -s --sampling_iterations -ss --sampling_single -a
    --calibration_algos -q --quantize_model -p --performance_model -u --unsigned_range -t --concat_use_fp32 -f
    --unify_concat_scales -1st --enable_1st_conv -uff --disable_force_fp32 -ucac --disable_cac_unify -fc --fc_int8
    -wi --conv_algo"""
    parser = make_parser()
    [commands] = [action for action in parser._actions if action.dest == "command"]
    assert commands.choices is not None
    options = dict(commands.choices)["calibrate"]._option_string_actions
    assert [name for name in known.split() if name not in options] == []


def test_calibrate_without_weights_names_who_finds_them(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "calibrate", "-m", tiny.prototxt)
    assert said.endswith(
        "required: -w/--weights; see distcalib calibrate --help, or let distcalib init MODEL print the command"
    )
    assert refusal(capsys, "evaluate", tiny.prototxt).endswith(
        "net.prototxt: does not tell which caffemodel it runs with; give it with -w"
    )


def cut(tiny: Tiny, folder: Path) -> list[object]:
    (folder / "cut.caffemodel").write_bytes(tiny.weights.read_bytes()[:-100])
    return ["-m", tiny.prototxt, "-w", "cut.caffemodel"]


def hdf5(tiny: Tiny, folder: Path) -> list[object]:
    (folder / "h5.caffemodel").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    return ["-m", tiny.prototxt, "-w", "h5.caffemodel"]


def nan(tiny: Tiny, folder: Path) -> list[object]:
    weights = dict(read_weights(tiny.weights))
    weights["conv2"] = (weights["conv2"][0] * np.float32(np.nan), weights["conv2"][1])
    write_weights("nan.caffemodel", "net", read_net(tiny.prototxt).layer, weights)
    return ["-m", tiny.prototxt, "-w", "nan.caffemodel"]


def edited(old: str, new: str) -> Callable[[Tiny, Path], list[object]]:
    def make(tiny: Tiny, folder: Path) -> list[object]:
        text = tiny.prototxt.read_text()
        assert old in text
        (folder / "my.prototxt").write_text(text.replace(old, new))
        return ["-m", "my.prototxt", "-w", tiny.weights]

    return make


def on_database(make: Callable[[Path], object]) -> Callable[[Tiny, Path], list[object]]:
    def with_source(tiny: Tiny, folder: Path) -> list[object]:
        make(folder / "mine")
        return edited(str(tiny.database), "mine")(tiny, folder)

    return with_source


MISUSE: list[tuple[str, Callable[[Tiny, Path], list[object]], str]] = [
    ("no prototxt", lambda t, _: ["-m", "no.prototxt", "-w", t.weights], "no.prototxt: no such file; check the path"),
    ("no caffemodel", lambda t, _: ["-m", t.prototxt, "-w", "no.caffemodel"], "no.caffemodel: no such file; check"),
    ("swapped", lambda t, _: ["-m", t.weights, "-w", t.prototxt], "is a caffemodel, not a prototxt; give the prototxt"),
    ("text as weights", lambda t, _: ["-m", t.prototxt, "-w", t.prototxt], "is text, not weights; give the binary"),
    ("folder as model", lambda t, f: ["-m", f, "-w", t.weights], "is a folder; name the file inside it"),
    ("folder as weights", lambda t, f: ["-m", t.prototxt, "-w", f], "is a folder; name the file inside it"),
    ("no model", lambda t, _: ["-w", t.weights], "MODEL: give the prototxt once, as -m MODEL or alone"),
    ("no weights", lambda t, _: ["-m", t.prototxt], "-w"),
    ("truncated", cut, "cut.caffemodel: is cut off at byte "),
    ("hdf5", hdf5, "h5.caffemodel: is a caffemodel in HDF5; only binary protobuf is read"),
    ("nan", nan, "nan.caffemodel: layer 'conv2': has weights that are NaN or infinite; train or copy it again"),
    ("no lmdb", edited('db"', 'nowhere"'), "nowhere: does not exist; "),
    ("empty lmdb", on_database(lambda path: write_lmdb(path, [])), "mine: the database is empty; write at least"),
    (
        "no data layer",
        edited("phase: TEST", "phase: TRAIN"),
        "layer 'data' (AbsentData): no data layer of the TEST phase makes 'data' and 'label'; give",
    ),
    ("no batch", edited("batch_size: 8", ""), "data_param has no batch_size; give"),
    ("unknown type", edited('"InnerProduct"', '"Frob"'), "my.prototxt: layer 'fc' (Frob): is not a layer type"),
    ("unknown field", edited("num_output: 5", "n_out: 5"), "my.prototxt: line 23: unknown field 'n_out'"),
]


@pytest.mark.parametrize("command", ["calibrate", "evaluate"])
@pytest.mark.parametrize(("make", "said"), [case[1:] for case in MISUSE], ids=[case[0] for case in MISUSE])
def test_misuse_is_told_before_actors_start(
    tiny: Tiny,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    make: Callable[[Tiny, Path], list[object]],
    said: str,
) -> None:
    args = make(tiny, here)
    before = sorted(here.rglob("*"))
    assert said in refusal(capsys, command, *args)
    assert sorted(here.rglob("*")) == before


def bad_image(path: Path) -> None:
    datums = [raw_datum(noise(3, 8, 8, seed=i)) for i in range(20)]
    datums[13] = caffe_pb2.Datum(data=b"no image", encoded=True)
    write_datums(path, datums)


def bad_label(path: Path) -> None:
    write_datums(path, [raw_datum(noise(3, 8, 8), label=9) for _ in range(8)])


@pytest.mark.usefixtures("actors")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(on_database(bad_image), "mine: record '00000013' is not an image that can be decoded", id="image"),
        pytest.param(on_database(bad_label), "labels lie outside the classes 0 to 4 (such as 9); correct", id="label"),
        pytest.param(
            edited("num_output: 8", "num_output: 9"), "has shape (8, 6, 3, 3) but the prototxt needs (9, 6", id="shape"
        ),
    ],
)
def test_misuse_that_actors_meet_is_told_alike(
    tiny: Tiny,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Tiny, Path], list[object]],
    said: str,
) -> None:
    """What was measured by then stays, for the same command with the data mended; nothing else is there."""
    assert said in refusal(capsys, "calibrate", *make(tiny, here), "-i", "6", "--out", "new")
    assert {path.name for path in here.glob("new/*")} <= {"distcalib.db"}


def test_main_refuses_a_command_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "frob").startswith("argument COMMAND: invalid choice: 'frob'")
    assert "required: COMMAND; see distcalib --help" in refusal(capsys)


def test_main_shows_each_finding_in_a_line_and_escapes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("layer { nam: 'a' }\nlayer { phase: 'a\u202e' }\n")
    assert main(["inspect", str(path)]) == ERROR
    first, *findings = capsys.readouterr().err.splitlines()
    assert first.endswith("things cannot be read:")
    assert findings[0] == "  line 1: unknown field 'nam' in LayerParameter; 'name' is meant?"
    assert every(line.startswith("  line 2: ") for line in findings[1:])
    assert "\\u202e" in findings[-1]


def test_main_verbose_shows_where_it_happened(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "no.prototxt", "-w", str(tiny.weights), "--verbose"]) == ERROR
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("distcalib: no.prototxt: no such file; check the path\n")


def test_main_says_that_it_was_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "inspect", interrupt)
    assert main(["inspect", "net.prototxt"]) == INTERRUPTED
    assert capsys.readouterr().err == "distcalib: interrupted; no result was written\n"


@pytest.mark.parametrize("command", ["", "calibrate", "evaluate", "inspect"])
def test_help_ends_with_an_example_that_can_be_run(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "-h"])
    assert ended.value.code == 0
    program, *args = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert program == "distcalib"
    assert args[0] == (command or "calibrate")
    parsed = make_parser().parse_args(args)
    monkeypatch.chdir(ROOT)
    assert (parsed.model or parsed.model_path).is_file()
    assert parsed.weights.is_file()


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.startswith("distcalib 0.")


@pytest.mark.parametrize(
    ("how", "code", "moment"),
    [
        (signal.SIGINT, INTERRUPTED, "in the middle"),
        pytest.param(signal.SIGTERM, TERMINATED, "in the middle", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, INTERRUPTED, "actors start", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, TERMINATED, "actors start", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_or_sigterm_ends_a_run_at_once_and_leaves_nothing(
    tiny: Tiny, here: Path, moment: str, how: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "distcalib", "calibrate", *tiny.args, "-i", "10000000", "--out", "new"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**env, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().endswith("starting actors\n")
        if moment == "in the middle":
            assert any(line.startswith("FP32 and ranges: ") for line in process.stdout)  # behind notes of the CPU
        time.sleep(0.5)
        begun = time.monotonic()
        os.killpg(process.pid, how)
        _, err = process.communicate(timeout=60)
        # Ray's start is waited for, and takes longer on a busy machine.
        assert time.monotonic() - begun < (5.0 if moment == "in the middle" else 20.0)
    assert process.returncode == code
    is_measured = (here / "new" / "distcalib.db").exists()
    continues = "; the same command continues from the journal" if is_measured else ""
    assert err == f"distcalib: interrupted; no result was written{continues}\n"
    end = time.monotonic() + 5.0
    while (left := processes(process.pid, "")) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []
    assert {path.name for path in here.iterdir()} <= {"new"}
    assert {path.name for path in here.glob("new/*")} == ({"distcalib.db"} if is_measured else set())


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "JSON"])
def test_stdout_on_a_full_disk_is_told_in_one_sentence(tiny: Tiny, flags: list[str]) -> None:
    command = [sys.executable, "-m", "distcalib", "inspect", str(tiny.prototxt), *flags]
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert run.stderr == "distcalib: stdout: No space left on device; free some, or send the output elsewhere\n"
    assert run.returncode == ERROR


def test_another_full_disk_is_not_taken_for_stdout(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> None:
    def full(*args: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("distcalib.cli.inspect.inspect", full)
    with pytest.raises(OSError, match="No space left"):
        main(["inspect", str(tiny.prototxt)])


def test_a_temporary_folder_too_deep_for_sockets_is_told(tiny: Tiny, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "distcalib", "evaluate", *tiny.args, "-i", "1", "--actors", "1"]
    run = subprocess.run(
        command, capture_output=True, text=True, env={**env, "TMPDIR": str(deep)}, cwd=ROOT, check=False
    )
    assert run.returncode == ERROR
    said = f"distcalib: Ray cannot start on this machine: {deep}: is too long a path for the sockets"
    assert run.stderr.startswith(said)
    assert run.stderr.endswith("set TMPDIR to a shorter one, such as /tmp\n")


def test_calibrate_takes_no_percentage_for_a_loss(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "calibrate", *tiny.args, "-l", "1%")
    assert said.startswith("argument -l/--accuracy_loss: '1%' is not a number; 0.01 is one point of accuracy or mAP;")
