"""Kill something at a random moment of a run on examples/digits, again and again: every run must end with the bytes of
one that nobody disturbed, after at most a resume.

    python scripts/faults/chaos.py --runs 200 --seed 1

Killed (-9) is, in turn: the driver; one of its actors; Ray's node of a run on one machine; one of the two nodes of a
cluster, both on this machine. The moment is random within the time for which the victim lives; a run that was quicker
than that is made again, with an earlier moment. Prints a Markdown table: how often each was killed, how often the
command had to be given again, and what that cost. With --log FILE every trial is a line of FILE, and those that are
there are not made again. Exit code 1 if a result differs, a run ends for
another reason than the kill of its driver without saying so, or an actor outlives its run.
"""

import argparse
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distcalib.journal import FILE_NAME, read_runs
from distcalib.report import TIMING_KEYS
from distcalib.report.form import ungrouped

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
DRIVER, ACTOR, NODE, ONE_OF_TWO = VICTIMS = ("driver", "actor", "node", "one of two nodes")
MEASURES = "FP32 and ranges"  # what a run says once Ray has started
HANGS_SECONDS = 240.0  # a run takes ten
LIVES_ON_SECONDS = 30.0
ATTEMPTS = 6  # to kill something in time
LOOK_SECONDS = 0.05

# Ray takes a node for dead after a minute without an answer; here it does so after some seconds.
QUICK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}


@dataclass(frozen=True)
class Trial:
    """What was killed, if the run had not ended before, and what came of it."""

    number: int
    victim: str
    killed: bool
    resumed: bool
    same: bool
    told: bool
    """The run did not end for it, or said so in a sentence; a killed driver says nothing, and nothing can be said while
    Ray starts."""
    left: bool
    """An actor was there long after its run."""
    seconds: float
    """More than a run that nobody disturbed."""
    n_again: int
    """Rows that were measured though they were in the journal."""

    @property
    def is_well(self) -> bool:
        """Nothing to complain of."""
        return self.same and self.told and not self.left


@dataclass(frozen=True)
class Usual:
    """A run that nobody disturbed."""

    result: tuple[bytes, dict[str, object]]
    seconds: float
    alive: Mapping[str, float]
    """How long it had something that can be killed, by victim."""


class Pair:
    """A Ray cluster of two nodes on this machine; a context manager."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        self.env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.head = self._start("--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false")
        self.second = 0

    def renew(self) -> None:
        """See that the second node lives, and is one that was not there before."""
        if self.second:
            end_session(self.second)
        self.second = self._start(f"--address={self.address}")

    def _start(self, *role: str) -> int:
        """The session of a node's processes."""
        small = ("--num-cpus=1", "--object-store-memory=200000000", "--disable-usage-stats")
        ports = [f"--{name}=0" for name in ("min-worker-port", "max-worker-port", "dashboard-agent-listen-port")]
        command = [str(Path(sys.executable).with_name("ray")), "start", *role, *small, *ports]
        process = subprocess.Popen(
            command,
            env={**plain_environment(), **QUICK, **self.env, "RAY_enable_metrics_collection": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._stack.callback(end_session, process.pid)
        if process.wait() != 0:
            raise SystemExit(f"{' '.join(command)}: failed")
        return process.pid

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Run:
    """The command, in a session of its own so that all its processes can be found; on this machine or on a pair."""

    def __init__(self, out: Path, pair: Pair | None = None) -> None:
        self.out, self.pair = out, pair
        out.mkdir(parents=True, exist_ok=True)
        files = ["-m", str(DIGITS / "digits.prototxt"), "-w", str(DIGITS / "digits.caffemodel")]
        options = ["-i", "180", "-n", "accuracy-top1", "-l", "0.005", "--actors", "2", "--out", str(out)]
        if pair is not None:
            options += ["--address", pair.address]
        env = {**plain_environment(), **({} if pair is None else pair.env)}
        with (out / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "distcalib", "calibrate", *files, *options],
                env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def victims(self, victim: str) -> list[int]:
        """What of that kind lives."""
        if victim == DRIVER:
            return [self.process.pid]
        if victim == ACTOR:
            return processes(self.process.pid, "ray::ActorProcess")
        session = self.process.pid if self.pair is None else self.pair.second
        return processes(session, "raylet")

    def actors(self) -> list[int]:
        """All of its actors, wherever they are."""
        sessions = [self.process.pid] if self.pair is None else [self.pair.head, self.pair.second]
        return [pid for session in sessions for pid in processes(session, "ray::ActorProcess")]

    def said(self) -> str:
        """What it printed."""
        return (self.out / "log").read_text(errors="replace")

    def wait(self, seconds: float = HANGS_SECONDS) -> int:
        """Its exit code; one that hangs is killed."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            end_session(self.process.pid)
            return self.process.wait()

    def ends_before(self, ready: Callable[[], bool]) -> bool:
        """Wait until it is `ready` or has ended."""
        while not ready():
            if self.process.poll() is not None:
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def results(self) -> tuple[bytes, dict[str, object]]:
        """What has to be the same."""
        report = ungrouped(json.loads((self.out / "report.json").read_text()))
        kept = {key: value for key, value in report.items() if key not in (*TIMING_KEYS, "output", "output_weights")}
        return (self.out / "digits_quantized.prototxt").read_bytes(), kept


def plain_environment() -> dict[str, str]:
    """Ours without what is Ray's, and with this distcalib."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**ours, "PYTHONPATH": str(ROOT)}


def processes(session: int, name: str) -> list[int]:
    """The living processes of a session whose program is called so, or begins so."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, number = (folder / "stat").read_text().rpartition(") ")[2].split()[:4]
            program = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode()
        except OSError:
            continue  # ended meanwhile
        if int(number) == session and state != "Z" and Path(program).name.startswith(name):
            found.append(int(folder.name))
    return sorted(found)


def end_session(session: int) -> None:
    """Kill all processes of a session."""
    for pid in processes(session, ""):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


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


def undisturbed(out: Path, pair: Pair | None) -> Usual:
    """One run, and when in it there was what."""
    begin = time.monotonic()
    run = Run(out, pair)
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    while run.process.poll() is None:
        for victim in (DRIVER, NODE, ACTOR) if pair is None else (ONE_OF_TWO,):
            if run.victims(victim):
                last[victim] = time.monotonic()
                first.setdefault(victim, last[victim])
        time.sleep(LOOK_SECONDS)
    if run.wait() != 0:
        raise SystemExit(f"the run that nobody disturbs failed:\n{run.said()}")
    return Usual(run.results(), time.monotonic() - begin, {victim: last[victim] - first[victim] for victim in first})


def kill(run: Run, victim: str, rng: random.Random, seconds: float) -> bool:
    """Wait until there is a victim, then at random for at most `seconds`; whether there was still one to be killed."""
    if run.ends_before(lambda: bool(run.victims(victim))):
        return False
    moment = time.monotonic() + rng.uniform(0.0, seconds)
    run.ends_before(lambda: time.monotonic() >= moment)
    pids = run.victims(victim)
    if run.process.poll() is not None or not pids:
        return False
    try:
        os.kill(rng.choice(pids), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def in_time(number: int, out: Path, usual: Usual, pair: Pair | None, seed: int) -> Trial:
    """A trial whose victim was killed. The run that nobody disturbed may have been slower than all that follow it: a
    moment after the victim's end shows nothing, and the next is drawn from a shorter time."""
    for attempt in range(ATTEMPTS):
        rng = random.Random(f"{seed}/{number}/{attempt}")
        made = trial(number, out / str(attempt), usual, pair, rng, share=1 / (attempt + 1))
        if made.killed or not made.is_well:
            break
    return made


def trial(number: int, out: Path, usual: Usual, pair: Pair | None, rng: random.Random, share: float) -> Trial:
    """One run with a kill in the first `share` of its victim's life, and one more run where that ended it."""
    victim = VICTIMS[number % len(VICTIMS)]
    if pair is not None:
        pair.renew()
    begin = time.monotonic()
    runs = [Run(out, pair)]
    killed = kill(runs[0], victim, rng, share * usual.alive[victim])
    code = runs[0].wait()
    before, n_again, said = n_rows(out), 0, runs[0].said()
    told = code == 0 or victim == DRIVER or MEASURES not in said or "\ndistcalib: " in said
    if code != 0:
        runs.append(Run(out, pair))
        code = runs[1].wait()
        last = read_runs(out)[-1]
        n_again = before + last.n_measured - n_rows(out)
    seconds = time.monotonic() - begin - usual.seconds
    same = code == 0 and runs[-1].results() == usual.result
    end = time.monotonic() + LIVES_ON_SECONDS
    while (left := any(run.actors() for run in runs)) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    made = Trial(number, victim, killed, len(runs) > 1, same, told, left, round(seconds, 1), n_again)
    if not made.is_well:
        print(said, *(run.said() for run in runs[1:]), sep="\n-- given again --\n", file=sys.stderr)
    return made


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


def trials_of(numbers: Sequence[int], seed: int) -> Iterator[Trial]:
    """Make these trials."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        alone = undisturbed(folder / "alone", None)
        pair, together = None, alone
        for number in numbers:
            out = folder / str(number)
            if VICTIMS[number % len(VICTIMS)] != ONE_OF_TWO:
                yield in_time(number, out, alone, None, seed)
                continue
            if pair is None:
                pair = stack.enter_context(Pair())
                pair.renew()
                together = undisturbed(folder / "together", pair)
                assert together.result == alone.result, "two nodes make something else of it than one"
            yield in_time(number, out, together, pair, seed)


def main() -> int:
    """Run all trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the number of the first run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="a line for each trial; those in it are not made again")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that no node is left
    trials: list[Trial] = []
    if args.log is not None and args.log.exists():
        trials = [Trial(**json.loads(line)) for line in args.log.read_text().splitlines()]
    done = {one.number for one in trials}
    numbers = [number for number in range(args.first, args.first + args.runs) if number not in done]
    for made in trials_of(numbers, args.seed):
        trials.append(made)
        line = json.dumps(asdict(made))
        print(line, file=sys.stderr, flush=True)
        if args.log is not None:
            with args.log.open("a") as log:
                log.write(f"{line}\n")
    print(table(trials))
    return 0 if all(one.is_well for one in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
