"""What surrounds a run: telemetry, other packages, standard streams, names that a terminal would obey."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distcalib.cli.exit_codes import ERROR, HUNG_UP, OK
from distcalib.errors import printable
from tests.session.tiny import Tiny

ROOT = Path(__file__).resolve().parents[2]
DISTCALIB = [sys.executable, "-m", "distcalib"]


def environment(**changed: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "PYTHONPATH": str(ROOT), **changed}


def python(code: str, **changed: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment(**changed), capture_output=True, text=True
    )


def test_openvino_sends_nothing_and_needs_no_home(tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('the network is asked')\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
        "import distcalib.engine.builder, openvino\n"
        "print(sys.modules['openvino_telemetry'], callable(openvino.convert_model))\n"
    )
    for home in (str(tmp_path / "nowhere"), str(tmp_path)):
        done = python(code, HOME=home)
        assert (done.stdout, done.stderr) == ("None True\n", "")
    assert list(tmp_path.iterdir()) == []


THEIRS = """
import sys
from google.protobuf import descriptor_pb2, descriptor_pool
file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
message = file.message_type.add(name="BlobShape")
message.field.add(name="dim", number=1, label=3, type=3)
def theirs(): descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
def ours():
    from distcalib.caffe import caffe_pb2
    assert caffe_pb2.BlobShape.FromString(caffe_pb2.BlobShape(dim=[3]).SerializeToString()).dim == [3]
for step in sys.argv[1:]: globals()[step]()
"""


@pytest.mark.parametrize("order", ["theirs ours", "ours theirs"])
def test_caffe_pb2_lives_beside_that_of_another_caffe(order: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, *order.split()], env=environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv1 (ReLU): 3×3, “über” 漢字", "conv1 (ReLU): 3×3, “über” 漢字"),
        ("\x1b]0;owned\x07\x1b[31m", r"\x1b]0;owned\x07\x1b[31m"),
        ("a\nforged line\r", r"a\nforged line\r"),
        ("\u202egnp.\ufeff\u2028", r"\u202egnp.\ufeff\u2028"),
        ("\udcff\x9b2J", r"\udcff\x9b2J"),
    ],
    ids=["text", "escape", "lines", "direction", "no text"],
)
def test_printable_leaves_a_terminal_nothing_to_obey(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_names_are_escaped_in_every_line_of_inspect(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        r'layer { name: "d\033[2J" type: "DummyData" top: "d" dummy_data_param { shape { dim: 2 dim: 2 } } }'
        r'layer { name: "x\nerror: forged" type: "Frob\a" bottom: "d" top: "x" }'
    )
    for argument in (str(net), str(tmp_path / "no\nsuch\x1b[1m.prototxt")):
        done = subprocess.run([*DISTCALIB, "inspect", argument], env=environment(), capture_output=True, text=True)
        assert done.returncode == ERROR
        for line in (done.stdout + done.stderr).splitlines():
            assert line.isprintable()
            assert not line.startswith("error: forged")


@pytest.mark.parametrize("closed", ["0", "1", "2", "0 1 2"])
def test_a_command_runs_with_standard_streams_closed(closed: str, tiny: Tiny) -> None:
    shut = " ".join(f"{number}>&-" if number != "0" else "0<&-" for number in closed.split())
    command = f'"{sys.executable}" -m distcalib inspect "{tiny.prototxt}" {shut}'
    done = subprocess.run(["sh", "-c", command], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (OK, "")


@pytest.mark.slow
def test_a_closed_terminal_ends_a_run_as_sigterm_does(tiny: Tiny, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*DISTCALIB, "calibrate", *tiny.args, "-i", "1000000", "--out", str(tmp_path / "out")]
    code = (
        "import fcntl, os, signal, sys, termios\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # whoever started the tests may ignore it (nohup)
        "os.setsid()\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment()
    )
    os.close(theirs)
    shown, end = b"", time.monotonic() + 60
    while b"FP32 and ranges" not in shown and time.monotonic() < end:
        shown += os.read(ours, 65536)
    assert b"FP32 and ranges" in shown
    os.close(ours)  # the terminal is gone: SIGHUP
    assert process.wait(60) == HUNG_UP
