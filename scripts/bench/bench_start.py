"""Where the time goes from the command to the first images that are measured, on this machine.

    python scripts/bench/bench_start.py [--rounds 3] [--actors N]

Each round is `distcalib evaluate` of examples/digits in a new process, so Python and Ray start from nothing; the first
round is cold only as far as the files are not in the system's cache (`echo 3 > /proc/sys/vm/drop_caches` makes it so).
A line is the wall time of the driver between two moments; figures stand in docs/dispatch.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NET, WEIGHTS = (str(ROOT / "examples/digits" / name) for name in ("digits.prototxt", "digits.caffemodel"))
BEGUN = "DISTCALIB_BENCH_BEGUN"


def measure_here(n_actors: int | None) -> None:
    """In a process of its own: evaluate, and print as JSON how long each step took."""
    marks: list[tuple[str, float]] = [("", float(os.environ[BEGUN]))]

    def mark(name: str) -> None:
        marks.append((name, time.time()))

    def marked(owner: Any, method: str, before: str, after: str) -> None:
        """Mark the moments when `method` begins and has ended, the first time."""
        called: Callable[..., Any] = getattr(owner, method)
        seen: set[str] = {name for name in (before, after) if not name}

        def call(*args: Any, **kwargs: Any) -> Any:
            for name in {before} - seen:
                mark(name)
            result = called(*args, **kwargs)
            for name in {after} - seen:
                mark(name)
            seen.update((before, after))
            return result

        setattr(owner, method, call)

    mark("Python")
    import distcalib.cli  # noqa: F401  what the command imports
    from distcalib.actors import execution as call
    from distcalib.actors import fleet
    from distcalib.actors import ray_cluster as cluster
    from distcalib.session.evaluate import evaluate
    from distcalib.session.options import EvaluationOptions

    mark("imports")
    marked(cluster.RayCluster, "__init__", "read net, weights, data", "start Ray")
    marked(fleet.Fleet, "__init__", "", "start actors, which import OpenVINO")
    marked(call.Call, "_succeeded", "compile", "")

    succeeded = call.Call._succeeded

    def first_rows(one: call.Call, task: Any, outcome: Any) -> None:
        succeeded(one, task, outcome)
        if outcome.rows and marks[-1][0] == "compile":
            mark("first shard")

    setattr(call.Call, "_succeeded", first_rows)  # noqa: B010  mypy objects to assigning it
    evaluate(NET, WEIGHTS, EvaluationOptions(iterations=18, n_actors=n_actors))
    mark("rest of the pass, end of actors and Ray")
    spans = {name: at - marks[place][1] for place, (name, at) in enumerate(marks[1:])}
    print(json.dumps(spans))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--actors", type=int)
    args = parser.parse_args()
    if BEGUN in os.environ:
        measure_here(args.actors)
        return
    rounds = []
    for _ in range(args.rounds):
        command = [sys.executable, __file__] + ([] if args.actors is None else ["--actors", str(args.actors)])
        env = {**os.environ, BEGUN: repr(time.time())}
        out = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
        rounds.append(json.loads(out.splitlines()[-1]))
    print(f"{'seconds, by round':<44}" + "".join(f"{i + 1:>8}" for i in range(len(rounds))))
    for name in rounds[0]:
        print(f"{name:<44}" + "".join(f"{each[name]:8.2f}" for each in rounds))
        if name == "first shard":
            totals = [sum(each.values()) - each["rest of the pass, end of actors and Ray"] for each in rounds]
            print(f"{'to the first images':<44}" + "".join(f"{total:8.2f}" for total in totals))


if __name__ == "__main__":
    main()
