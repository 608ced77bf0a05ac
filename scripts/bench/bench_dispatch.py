"""What the pool costs when workers cost nothing: time to start, overhead a task, busy share of the actors.

    python scripts/bench/bench_dispatch.py [--actors N]

Shards of one iteration are forced for the first figures; the last two let the dispatcher choose. On 2 cores with 2
actors the start takes 3.3 s, a task 0.75 ms, and shards of 100 ms keep them 98 % busy; docs/dispatch.md has 64 actors.
"""

import argparse
import time
from collections.abc import Mapping, Sequence

import numpy as np

from distcalib.actors import Blob, Job, Placement, dispatcher
from distcalib.actors.pool import ActorPool
from distcalib.actors.ray_cluster import RaySource


class SleepWorker:
    """Sleeps `spec` seconds an iteration."""

    def __init__(self, shared: object, placement: Placement) -> None:
        self._seconds: dict[str, float] = {}

    def compile(self, spec: object) -> Blob:
        """The number of seconds as bytes."""
        return np.frombuffer(np.float64(spec).tobytes(), np.uint8)  # type: ignore[arg-type]

    def load(self, key: str, blob: Blob) -> None:
        """Read the seconds back."""
        self._seconds[key] = float(np.frombuffer(blob.tobytes(), np.float64)[0])

    def run(self, key: str, iterations: Sequence[int]) -> list[object]:
        """Sleep, and return nothing worth keeping."""
        if self._seconds[key]:
            time.sleep(self._seconds[key] * len(iterations))
        return list(iterations)

    def drop(self, key: str) -> None:
        """Forget the seconds."""
        del self._seconds[key]


def run_timed(pool: ActorPool, n_iterations: int, seconds: float, n_jobs: int = 1) -> float:
    """Wall seconds of `n_jobs` jobs of `n_iterations` that take `seconds` each."""
    begun = time.perf_counter()
    pool.run([Job(f"{i}", seconds, n_iterations, f"job {i}") for i in range(n_jobs)])
    return time.perf_counter() - begun


def single_iteration_shards(single: bool, defaults: Mapping[str, float]) -> None:
    """Make every shard one iteration, or as long as the dispatcher would have it."""
    for name, seconds in defaults.items():
        setattr(dispatcher, name, 0.0 if single else seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, default=2)
    n_actors = parser.parse_args().actors
    defaults = {name: getattr(dispatcher, name) for name in ("TARGET_SECONDS", "LEAST_SECONDS", "DRIVER_SECONDS")}

    begun = time.perf_counter()
    with ActorPool(SleepWorker, RaySource(), n_actors=n_actors) as pool:
        started = time.perf_counter() - begun
        run_timed(pool, 100, 0.0)  # warm up
        single_iteration_shards(True, defaults)
        table = [("start of the pool, s", started)]
        table.append(("overhead a task, ms", run_timed(pool, 2000, 0.0) / 2000 * 1000))
        table += [
            (f"busy share, shards of {ms} ms", n * ms / 1000 / run_timed(pool, n * n_actors, ms / 1000))
            for ms, n in ((10, 40), (50, 100), (100, 100), (130, 75), (200, 50))
        ]
        single_iteration_shards(False, defaults)
        table.append(("busy share, 1 job of 100 x 20 ms", 100 * 0.02 / n_actors / run_timed(pool, 100, 0.02)))
        wall = run_timed(pool, 100, 0.02, n_jobs=8)
        table.append(("busy share, 8 jobs of 100 x 20 ms", 8 * 100 * 0.02 / n_actors / wall))
        begun = time.perf_counter()
    table.append(("end of the pool, s", time.perf_counter() - begun))
    print(f"{n_actors} actors{' that share cores' if pool.oversubscribed else ''}")
    for name, value in table:
        print(f"{name:<36}{value:8.3f}")


if __name__ == "__main__":
    main()
