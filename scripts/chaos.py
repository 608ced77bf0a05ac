"""Kill something at a random moment of a run on examples/digits, again and again: every run must end with the bytes of
one that nobody disturbed, after at most a resume.

    python scripts/chaos.py --runs 200 --seed 1

Killed (-9) is the driver or one of its actors. Prints a Markdown table: how often each was killed, how often the
command had to be given again, and what that cost. Exit code 1 if a result differs.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from distcalib.journal import FILE_NAME, read_runs
from distcalib.report import TIMING_KEYS

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits"
VICTIMS = ("driver", "actor")


@dataclass(frozen=True)
class Trial:
    """What was killed, if the run had not ended before, and what came of it."""

    victim: str
    killed: bool
    resumed: bool
    same: bool
    seconds: float
    n_again: int
    """Rows that were measured though they were in the journal."""


def command(out: Path) -> list[str]:
    """The run."""
    files = ["-m", str(DIGITS / "digits.prototxt"), "-w", str(DIGITS / "digits.caffemodel")]
    options = ["-i", "18", "-n", "accuracy-top1", "-l", "0.005", "--actors", "2", "--out", str(out)]
    return [sys.executable, "-m", "distcalib", "calibrate", *files, *options]


def start(out: Path) -> "subprocess.Popen[bytes]":
    """Begin the run in a session of its own, so that all its processes can be found."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(
        command(out), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def results(out: Path) -> tuple[bytes, dict[str, object]]:
    """What has to be the same."""
    report = json.loads((out / "report.json").read_text())
    kept = {key: value for key, value in report.items() if key not in (*TIMING_KEYS, "output")}
    return (out / "digits_quantized.prototxt").read_bytes(), kept


def actors_of(session: int) -> list[int]:
    """The actor processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            number = int((folder / "stat").read_text().rpartition(") ")[2].split()[3])
            if number == session and (folder / "cmdline").read_bytes().startswith(b"ray::ActorProcess"):
                found.append(int(folder.name))
        except OSError:
            continue  # ended meanwhile
    return sorted(found)


def n_rows(out: Path) -> int:
    """Rows in the journal; 0 if there is none yet."""
    try:
        connection = sqlite3.connect(f"{(out / FILE_NAME).as_uri()}?mode=rw", uri=True)
        try:
            return int(connection.execute("SELECT count(*) FROM result").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error:
        return 0


def kill(process: "subprocess.Popen[bytes]", victim: str, rng: random.Random) -> bool:
    """Whether there was something to be killed."""
    if process.poll() is not None:
        return False
    pids = [process.pid] if victim == "driver" else actors_of(process.pid)
    if not pids:
        return False
    try:
        os.kill(rng.choice(pids), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def trial(out: Path, reference: tuple[bytes, dict[str, object]], usual: float, rng: random.Random) -> Trial:
    """One run with a kill, and one more where that ended it."""
    begin = time.monotonic()
    victim, moment = rng.choice(VICTIMS), rng.uniform(0.0, usual)
    process = start(out)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=moment)
    killed = kill(process, victim, rng)
    code = process.wait()
    before, n_again = n_rows(out), 0
    resumed = code != 0
    if resumed:
        code = start(out).wait()
        last = read_runs(out)[-1]
        n_again = before + last.n_measured - n_rows(out)
    same = code == 0 and results(out) == reference
    return Trial(victim, killed, resumed, same, time.monotonic() - begin - usual, n_again)


def table(trials: list[Trial]) -> str:
    """Markdown."""
    lines = [
        "| killed | runs | killed in time | given again | same bytes | seconds more | rows measured again |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for victim in VICTIMS:
        of = [one for one in trials if one.victim == victim]
        hit = [one for one in of if one.killed]
        more = sum(one.seconds for one in hit) / len(hit) if hit else 0.0
        counts = [len(of), len(hit), sum(one.resumed for one in of), sum(one.same for one in of)]
        cells = [victim, *map(str, counts), f"{more:.1f}", str(sum(one.n_again for one in of))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Run all trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="begin no more trials after this time")
    args = parser.parse_args()
    rng, begin = random.Random(args.seed), time.monotonic()
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        first = time.monotonic()
        if start(Path(folder) / "reference").wait() != 0:
            raise SystemExit("the run that nobody disturbs failed")
        usual = time.monotonic() - first
        reference = results(Path(folder) / "reference")
        for number in range(args.runs):
            if args.seconds is not None and time.monotonic() - begin >= args.seconds:
                break
            trials.append(trial(Path(folder) / str(number), reference, usual, rng))
            print(f"{number + 1}: {trials[-1]}", file=sys.stderr, flush=True)
    print(table(trials))
    return 0 if all(one.same for one in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
