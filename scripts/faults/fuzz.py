"""Feed every reader of files of others with mutated files, and say what became of them.

    python -m scripts.faults.fuzz [--inputs 1000000] [--seed 1] [--reader NAME] [--keep DIR]

The readers, and the good files that are mutated, are those of tests/fuzz. Each reader runs in processes of its own, a
few thousand inputs each, so that one that is killed or stands still is counted and does not end the rest. Exit code 1
if anything but success or an error of distcalib came. A line: inputs, how many were read and refused, how many escaped
(another exception), killed the process, or took over 10 s; and the time. What did is put into DIR.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.mutations import edited, random_edits
from tests.fuzz.readers import READERS, outcome, shares

AT_ONCE = 5000
SLOW_SECONDS, PATIENCE_SECONDS = 10.0, 120.0


def run_some(name: str, begin: int, end: int, seed: int, sender: Connection) -> None:
    """In a process of its own: inputs `begin` to `end` of a reader; before each its bytes are put aside."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("error")
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        seeds = reader.seeds(folder)
        for number in range(begin, end):
            rng = random.Random(f"{seed} {name} {number}")
            data = edited(rng.choice(seeds), random_edits(rng), rng.choice(seeds))
            begun = time.monotonic()
            sender.send(("begins", number))
            try:
                kind, what = outcome(reader.read, data, folder), ""
            except BaseException as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                kind = "escaped"
                what = f"{type(error).__name__}: {str(error)[:80]!r} ({Path(frame.filename).name}:{frame.lineno})"
            if time.monotonic() - begun > SLOW_SECONDS:
                kind, what = "slow", f"{time.monotonic() - begun:.0f} s"
            sender.send((kind, what))
    sender.close()


def fuzz(name: str, n_inputs: int, seed: int) -> tuple[Counter[str], dict[str, int]]:
    """How often what became of the inputs of one reader, and of what went wrong the number of an input."""
    counts: Counter[str] = Counter()
    wrong: dict[str, int] = {}
    begin = 0
    while begin < n_inputs:
        end = min(begin + AT_ONCE, n_inputs)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=run_some, args=(name, begin, end, seed, sender))
        process.start()
        sender.close()
        number = begin
        try:
            while receiver.poll(PATIENCE_SECONDS):
                kind, what = receiver.recv()
                if kind == "begins":
                    number = what
                    continue
                counts[kind] += 1
                if kind in ("escaped", "slow"):
                    wrong.setdefault(f"{kind} {what}", number)
                begin = number + 1
            process.kill()
            counts["killed"] += 1
            wrong.setdefault("stands still", number)
            begin = number + 1
        except EOFError:
            process.join()
            if process.exitcode:
                counts["killed"] += 1
                wrong.setdefault(f"killed: exit code {process.exitcode}", number)
                begin = number + 1
    return counts, wrong


def keep(folder: Path, name: str, number: int, seed: int) -> None:
    """The input of that number as a file."""
    with tempfile.TemporaryDirectory() as made:
        seeds = READERS[name].seeds(Path(made))
    rng = random.Random(f"{seed} {name} {number}")
    folder.mkdir(parents=True, exist_ok=True)
    data = edited(rng.choice(seeds), random_edits(rng), rng.choice(seeds))
    (folder / f"{name.replace(' ', '_')}-{number}").write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", choices=tuple(READERS))
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    wanted = {args.reader: args.inputs} if args.reader else shares(args.inputs)
    columns = ("read", "refused", "escaped", "killed", "slow")
    print(f"{'reader':<20}{'inputs':>9}" + "".join(f"{name:>9}" for name in columns) + f"{'seconds':>9}", flush=True)
    total: Counter[str] = Counter()
    for name, n_inputs in wanted.items():
        begun = time.monotonic()
        counts, wrong = fuzz(name, n_inputs, args.seed)
        total += counts
        numbers = "".join(f"{counts[column]:>9,}" for column in columns)
        print(f"{name:<20}{sum(counts.values()):>9,}{numbers}{time.monotonic() - begun:>9.0f}", flush=True)
        for what, number in list(wrong.items())[:20]:
            print(f"    input {number}: {what}", flush=True)
            if args.keep:
                keep(args.keep, name, number, args.seed)
    print(f"{'all':<20}{sum(total.values()):>9,}" + "".join(f"{total[column]:>9,}" for column in columns), flush=True)
    if total["escaped"] or total["killed"] or total["slow"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
