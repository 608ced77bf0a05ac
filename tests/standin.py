"""A stand-in for ROOT/tools/caffe of Intel Caffe: the same command line, log and exit codes, by the embedded engine.

A stand-in is a shell script made in a test's folder, which becomes this file as a program. What it does amiss is told
by the file `fault` beside it, and it appends what it was called with to `calls`.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()

FATAL = "Check failed: source_layer.blobs_size() == target_blobs.size() (1 vs. 2) Incompatible number of blobs"


@dataclass(frozen=True)
class StandIn:
    """The build folder."""

    root: Path

    @property
    def executable(self) -> Path:
        return self.root / "tools" / "caffe"

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What it was called with, in the order of the calls."""
        file = self.executable.with_name("calls")
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def fail_by(self, fault: str) -> None:
        """From now on; see `main`."""
        self.executable.with_name("fault").write_text(fault)


def make_standin(root: Path) -> StandIn:
    """A build folder with it."""
    made = StandIn(root)
    made.executable.parent.mkdir(parents=True)
    made.executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE}" "$0" "$@"\n')
    made.executable.chmod(0o755)
    return made


def header(severity: str, line: int, text: str) -> str:
    return f"{severity}1122 10:11:12.131415  {os.getpid()} caffe.cpp:{line}] {text}"


def say(line: int, text: str) -> None:
    if os.environ.get("GLOG_minloglevel", "0") == "0":  # noqa: SIM112  # glog's own spelling
        print(header("I", line, text), file=sys.stderr, flush=True)


def main(program: str, *args: str) -> int:
    command, *flags = args
    assert command == "test"
    detection = flags[-1] == "-detection"
    flags = flags[:-1] if detection else flags
    assert flags[::2] == ["-model", "-weights", "-iterations", "-engine"], flags
    model, weights, iterations, engine = flags[1::2]
    assert engine == "MKLDNN"
    call = {
        "args": args,
        "pid": os.getpid(),
        "threads": os.environ["OMP_NUM_THREADS"],
        "cpus": sorted(os.sched_getaffinity(0)),
        "folder": os.getcwd(),
        "model": Path(model).read_text(),
    }
    with Path(program).with_name("calls").open("a") as calls:
        calls.write(json.dumps(call) + "\n")
    file = Path(program).with_name("fault")
    fault = file.read_text() if file.exists() else ""
    if fault == "hang":
        time.sleep(600)
    if fault == "garbage":
        print("Usage: caffe <command>\n\x00\x80\n]] = [[", file=sys.stderr)
        return 0
    if fault == "exit":
        print(f"{program}: error while loading shared libraries: libmkldnn.so.0", file=sys.stderr)
        return 127
    if fault == "abort":
        print(header("F", 99, FATAL + " "), file=sys.stderr)
        print("*** Check failure stack trace: ***\n    @     0x7f038079c9fd  (unknown)", file=sys.stderr)
        os.abort()
    return test(Path(model), Path(weights), int(iterations), fault, detection)


def test(model: Path, weights: Path, n_iterations: int, fault: str, detection: bool) -> int:
    from distcalib.actors.isa import isa_here
    from distcalib.caffe import read_weights
    from distcalib.engine.net import open_net
    from distcalib.engine.worker import NetWorker, Setting
    from distcalib.session.evaluate import loss_weights, scores

    net = open_net(model)
    setting = Setting(model, read_weights(weights), weights.name, {})
    worker = NetWorker(setting, int(os.environ["OMP_NUM_THREADS"]), arithmetic=isa_here().arithmetic)
    worker.load("net", worker.compile(net.spec()))
    rows = worker.run("net", range(n_iterations))
    say(300, "Use CPU.")
    if detection:
        for i, (name, score) in enumerate(scores(rows).items() if fault != "truncate" else ()):
            say(441, f"    Test net output #{i}: {name} = {score:.6g}")
        return 0
    for i, row in enumerate(rows):
        if fault == "truncate" and i == len(rows) - 1:
            return 0
        for name, partial in row.scores.items():
            say(506, f"Batch {i}, {name} = {partial.value:.6g}")
    means, of_loss = scores(rows), loss_weights(net)
    say(511, f"Loss: {sum(of_loss[name] * means[name] for name in of_loss):.6g}")
    for name, mean in means.items():
        weight = of_loss.get(name)
        loss = "" if weight is None else f" (* {weight:.6g} = {weight * mean:.6g} loss)"
        say(523, f"{name} = {mean:.6g}{loss}")
    return 0


test.__test__ = False  # type: ignore[attr-defined]  # keeps pytest from collecting it

if __name__ == "__main__":
    sys.path[0] = str(HERE.parent.parent)
    sys.exit(main(*sys.argv[1:]))
