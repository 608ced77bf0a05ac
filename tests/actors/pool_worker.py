"""A worker for tests of the pool: its rows tell what happened, its specs say what shall go wrong."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.cloudpickle

from distcalib.actors import Blob, Job, Placement
from distcalib.actors.affinity import stray_threads
from distcalib.errors import EngineError

# This file cannot be imported by name in an actor.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]


class EchoWorker:
    """Rows say where, when and with what they were made; specs say what shall go wrong."""

    def __init__(self, shared: dict[str, Any], placement: Placement) -> None:
        self.shared = shared
        self.placement = placement
        self.programs: dict[str, Blob] = {}
        self.made_env = os.environ.get("DISTCALIB_TEST_ISA")
        self.last_compiled: Blob | None = None
        if self.shared.get("fail_to_make"):
            raise EngineError("net.prototxt: cannot be built; try another")
        if self.shared.get("die_to_make"):
            os._exit(3)

    def compile(self, spec: object) -> Blob:
        assert isinstance(spec, dict)
        note(self.shared, f"compile {spec['name']}")
        if spec.get("compile_raises"):
            raise spec["compile_raises"]
        large = repr(spec).encode().ljust(300_000)  # Ray would send a small one along with the task
        self.last_compiled = np.frombuffer(large, np.uint8).copy()
        return self.last_compiled

    def load(self, key: str, blob: Blob) -> None:
        note(self.shared, f"load {key} {'kept' if blob is self.last_compiled else 'shipped'} {blob.flags.writeable}")
        self.programs[key] = blob

    def run(self, key: str, iterations: Sequence[int]) -> list[object]:
        spec = eval(bytes(self.programs[key]).decode())
        time.sleep(sum(spec.get("sleep_at", {}).get(iteration, spec.get("sleep", 0.0)) for iteration in iterations))
        for iteration in set(spec.get("die_at", [])) & set(iterations):
            if spec["name"] == "always" or note(self.shared, f"death {iteration}") < spec["n_deaths"]:
                os._exit(3)
        if set(spec.get("raise_at", [])) & set(iterations):
            if spec["name"] == "unexpected":
                raise KeyError("pool5")
            raise EngineError("layer 'pool5': refused; drop it")
        rows: list[object] = [self.row(spec, iteration) for iteration in iterations]
        return rows[: spec.get("n_rows", len(rows))]

    def row(self, spec: dict[str, Any], iteration: int) -> object:
        if spec.get("row") != "inside":
            return (spec["name"], iteration)
        return {
            "pid": os.getpid(),
            "actor": self.placement.actor,
            "cpus": self.placement.cpus,
            "affinity": tuple(sorted(os.sched_getaffinity(0))),
            "stray": stray_threads(self.placement.cpus),
            "env": self.made_env,
            "writeable": self.shared["weights"].flags.writeable,
            "owner": self.shared["weights"].flags.owndata,
            "sum": float(self.shared["weights"].sum()),
            "held": sorted(self.programs),
            "caught": [name for name in ("SIGBUS", "SIGSEGV", "SIGABRT") if is_caught(signal.Signals[name])],
        }

    def drop(self, key: str) -> None:
        note(self.shared, f"drop {key}")
        del self.programs[key]


def is_caught(number: signal.Signals) -> bool:
    """Whether this process has a handler for a signal, whoever has set it."""
    [mask] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "SigCgt" in line]
    return bool(int(mask, 16) >> (number - 1) & 1)


def note(shared: dict[str, Any], line: str) -> int:
    """Append a line to the diary that all actors share; how many equal lines were there before."""
    diary = Path(shared["diary"])
    before = diary.read_text().splitlines().count(line) if diary.exists() else 0
    with diary.open("a") as file:
        file.write(f"{line}\n")
    return before


def shared(folder: Path, **more: object) -> dict[str, object]:
    return {"diary": str(folder / "diary"), "weights": np.ones(1_000_000, np.float32), **more}


def job(name: str, n_iterations: int, **spec: object) -> Job:
    return Job(f"key of {name}", {"name": name, **spec}, n_iterations, f"candidate {name}")


def rows(name: str, n_iterations: int) -> tuple[object, ...]:
    return tuple((name, iteration) for iteration in range(n_iterations))
