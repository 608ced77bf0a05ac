"""What nets of real size cost: their speed, with --parts what an image takes where, with --memory what actors hold.

    python -m scripts.bench.bench_real_size FOLDER [--net ssd300-vgg16] [--seconds 3] [--rounds 1]
    python -m scripts.bench.bench_real_size FOLDER --parts
    python -m scripts.bench.bench_real_size FOLDER --memory --net vgg16

FOLDER is filled by scripts/bench/make_real_size.py where it lacks a net; each is quantized by `calibrate -q`.

`bare` is the compiled model alone, in a loop over batches that are ready in memory, in a process pinned to a core; two
at once for two cores.  `first` is what `evaluate` prints with as many actors, of iterations that they have not met:
LMDB, JPEG, resizing, boxes and mAP are in it.  `later` is the same pass again, with images that were kept, as all
candidates of a search after the FP32 pass.  They take turns.  --parts is in CPU time, so that a busy machine does not
matter: what the inference takes of the whole is the most that `first` can reach of `bare` on a core.  An actor's own
memory is what the kernel calls anonymous: neither code nor the object store, which all actors of a node share; its peak
is polled while it works.
"""

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distcalib.caffe import read_weights
from distcalib.calibration.calibrate import calibrate
from distcalib.calibration.options import CalibrationOptions
from distcalib.data import open_source
from distcalib.engine.net import Net, open_net
from distcalib.engine.program import Program
from distcalib.engine.worker import NetWorker, Setting, data_nodes
from distcalib.session.options import SessionOptions
from distcalib.session.progress import Silent
from distcalib.session.session import Session
from scripts.bench.bench_evaluate import evaluated
from scripts.bench.make_real_size import make
from scripts.bench.real_nets import NETS

MB = 2**20
N_READY = 2  # batches of a bare loop: 2 MB each and more, so none stays in the cache of a core
POLL_SECONDS = 0.05
DETECTORS = tuple(name for name in NETS if name != "vgg16")


# ---- a bare loop, in a process of its own


class Bare:
    """Processes that run a compiled program alone, each pinned to its core."""

    def __init__(self, program: Path, cores: Sequence[int]) -> None:
        command = [sys.executable, "-m", "scripts.bench.bench_real_size", str(program), "--bare"]
        self._running = [
            subprocess.Popen([*command, str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for core in cores
        ]
        for process in self._running:
            assert process.stdout is not None
            process.stdout.readline()

    def rate(self, seconds: float) -> float:
        """Batches/s of all together, for about so long."""
        for process in self._running:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        return sum(float(process.stdout.readline()) for process in self._running if process.stdout is not None)

    def close(self) -> None:
        """End them."""
        for process in self._running:
            process.communicate()


def run_bare(path: Path, core: int) -> None:
    """Load a program, then answer each line, a number of seconds, with the batches/s of a loop."""
    os.sched_setaffinity(0, {core})
    program = Program(np.asarray(np.memmap(path, np.uint8, mode="r")), 1)
    with np.load(path.with_suffix(".npz")) as ready:
        batches = [{i: ready[f"{k}/{name}"] for i, name in enumerate(program.header.inputs)} for k in range(N_READY)]
    program._request.infer(batches[0], share_inputs=True, share_outputs=True)
    print("ready", flush=True)
    for line in sys.stdin:
        done, begin = 0, time.perf_counter()
        while done < 2 or time.perf_counter() - begin < float(line):
            program._request.infer(batches[done % N_READY], share_inputs=True, share_outputs=True)
            done += 1
        print(done / (time.perf_counter() - begin), flush=True)


def compiled(net: Net, weights: Path, folder: Path) -> Path:
    """The program of `net` as a file, with ready batches beside it."""
    setting = Setting(net.path, read_weights(weights), weights.name, {})
    path = folder / f"{net.path.stem}.program"
    NetWorker(setting, 1).compile(net.spec()).tofile(path)
    [node] = data_nodes(net.graph)
    source = open_source(node.layer, net.path)
    ready = {f"{k}/{top}": values for k in range(N_READY) for top, values in source.batch(k).items()}
    source.close()
    np.savez(path.with_suffix(".npz"), allow_pickle=False, **ready)
    return path


# ---- what actors hold


def actor_processes() -> list[int]:
    """The actors that descend from this process."""
    parents: dict[int, int] = {}
    actors: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if (entry / "cmdline").read_bytes().startswith(b"ray::ActorProcess"):
                    actors.append(int(entry.name))
        except OSError:
            continue  # it has ended
    return [pid for pid in actors if os.getpid() in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid in parents:
        pid = parents[pid]
        yield pid


def own_bytes(pid: int) -> int:
    """What a process has in memory and shares with none; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return int(next(line for line in lines if line.startswith("Anonymous:")).split()[1]) * 1024


@contextmanager
def watched() -> Iterator[dict[int, int]]:
    """The peaks of own memory, by process, of the actors there are; complete at the end."""
    peaks = dict.fromkeys(actor_processes(), 0)
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            for pid in peaks:
                peaks[pid] = max(peaks[pid], own_bytes(pid))

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


# ---- the tables


@dataclass(frozen=True)
class Prepared:
    """A net in FP32 and INT8."""

    name: str
    weights: Path
    nets: dict[str, Net]


def prepare(folder: Path, name: str, batch: int) -> Prepared:
    """Make and quantize what is not there."""
    stem = NETS[name]().name
    prototxt, caffemodel = folder / f"{stem}.prototxt", folder / f"{stem}.caffemodel"
    int8 = folder / f"{stem}_int8.prototxt"
    if not caffemodel.exists():
        make(folder, name, 32, batch, 1)
    if not int8.exists():
        options = CalibrationOptions(quantize_model=True, iterations=1, sampling_iterations=1, out=folder / f"{stem}_q")
        int8.write_bytes(Path(calibrate(prototxt, caffemodel, options).output).read_bytes())
    return Prepared(name, caffemodel, {"FP32": open_net(prototxt), "INT8": open_net(int8)})


def speed(prepared: Prepared, seconds: float, rounds: int) -> Iterator[str]:
    """A line for each kind and number of cores."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    with tempfile.TemporaryDirectory() as scratch:
        for kind, net in prepared.nets.items():
            program = compiled(net, prepared.weights, Path(scratch))
            n_program = program.stat().st_size / MB
            for n_cores in range(1, len(cores) + 1):
                with Session(
                    net, prepared.weights, Silent(), SessionOptions(n_actors=n_cores, cores_per_actor=1)
                ) as session:
                    with watched() as peaks:
                        [peak] = session.measure("peak", [(net.spec(), 2 * n_cores)])
                    bare = Bare(program, cores[:n_cores])
                    rates: list[tuple[float, float, float]] = []
                    for turn in range(rounds):
                        batches = bare.rate(seconds)
                        n_iterations = max(2 * n_cores, round(seconds * batches))
                        fresh = range((turn + 1) << 20, ((turn + 1) << 20) + n_iterations)
                        first, later = (evaluated(session, net, fresh) for _ in range(2))
                        # Before and after it: what slows the machine down for a while slows both.
                        rates.append(((batches + bare.rate(seconds)) / 2 * session.batch, first, later))
                    bare.close()
                    weights = sum(blob.nbytes for blobs in session.inputs.weights.values() for blob in blobs) / MB
                    alone, *passes = zip(*rates, strict=True)
                    found = " | ".join(f"{statistics.median(one):.2f} | {spread(one, alone)}" for one in passes)
                    row = len(pickle.dumps(peak.rows[0])) / 1024
                    yield (
                        f"| {prepared.name} {kind} | {n_cores} | {statistics.median(alone):.2f} | {found} | "
                        f"{max(peaks.values()) / MB:.0f} | {peak.compile_seconds:.1f} | "
                        f"{peak.load_seconds / n_cores:.2f} | {weights:.0f} | {n_program:.0f} | {row:.1f} |"
                    )


SPEED_HEAD = (
    "| net | cores | bare, images/s | first | ratio | later | ratio | peak an actor, MB | compile, s | import, s | "
    "weights, MB | program, MB | a row, kB |\n|" + " --- |" * 13
)


def spread(rates: Sequence[float], alone: Sequence[float]) -> str:
    """The median of the ratios, the least and the largest."""
    ratios = [one / bare for one, bare in zip(rates, alone, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def parts(prepared: Prepared, seconds: float) -> Iterator[str]:
    """A line for each kind: CPU milliseconds an image on one core, by what an actor does with it."""
    for kind, net in prepared.nets.items():
        setting = Setting(net.path, read_weights(prepared.weights), prepared.weights.name, {})
        worker = NetWorker(setting, 1)
        began = time.process_time()
        program = worker.compile(net.spec())
        compiling = time.process_time() - began
        worker.load("net", program)
        importing = time.process_time() - began - compiling
        timed = TimedParts(worker)
        worker.run("net", [0])
        timed.clear()
        [node] = data_nodes(net.graph)
        batch, n = node.layer.data_param.batch_size, 0
        began = time.thread_time()
        while n < 2 or time.thread_time() - began < seconds:
            n += 1
            worker.run("net", [n])
        whole = (time.thread_time() - began) / (n * batch) * 1000
        reading, inferring = (timed.seconds[name] / (n * batch) * 1000 for name in ("batch", "run"))
        host = whole - reading - inferring
        yield (
            f"| {prepared.name} {kind} | {inferring:.1f} | {reading:.1f} | {host:.1f} | {inferring / whole:.2f} | "
            f"{1000 / whole:.2f} | {compiling:.1f} | {importing:.2f} | {program.nbytes / MB:.0f} |"
        )


class TimedParts:
    """CPU seconds of this thread by what a worker calls: its data (`batch`) and its program (`run`)."""

    def __init__(self, worker: NetWorker) -> None:
        self.seconds: dict[str, float] = {}
        [loaded] = worker._loaded.values()
        for owner, name in [*((source, "batch") for source in worker._sources.values()), (loaded.program, "run")]:
            setattr(owner, name, self._timed(name, getattr(owner, name)))

    def clear(self) -> None:
        """Begin again."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def _timed(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def timed(*given: object) -> object:
            began = time.thread_time()
            try:
                return call(*given)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.thread_time() - began

        return timed


PARTS_HEAD = (
    "| net | inference, ms | reading | boxes and mAP | inference of all | images/s | compile, s | import, s | "
    "program, MB |\n|" + " --- |" * 9
)


def memory(prepared: Prepared) -> Iterator[str]:
    """A line for each kind and 1, 2 and 4 actors, two batches run by each."""
    for kind, net in prepared.nets.items():
        for n_actors in (1, 2, 4):
            with Session(
                net, prepared.weights, Silent(), SessionOptions(n_actors=n_actors, cores_per_actor=1)
            ) as session:
                idle = max(map(own_bytes, actor_processes()))
                with watched() as peaks:
                    session.measure("memory", [(net.spec(), 2 * n_actors)])
                # The one that compiled has the highest peak; the others import what it made.
                *others, first = sorted(peaks.values())
                said = f"{min(others) / MB:.0f} to {max(others) / MB:.0f}" if others else ""
                yield f"| {prepared.name} {kind} | {n_actors} | {idle / MB:.0f} | {first / MB:.0f} | {said} |"


MEMORY_HEAD = "| net | actors | before, MB | peak of who compiles | peak of the others |\n|" + " --- |" * 5


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the nets are, or are made")
    parser.add_argument("--net", choices=NETS, action="append", help="default: the four detectors")
    parser.add_argument("--batch", type=int, default=4, help="images an iteration, of nets that are made (4)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (3)")
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each, of which medians are shown (1)")
    parser.add_argument("--memory", action="store_true", help="show the memory of actors, not their speed")
    parser.add_argument("--parts", action="store_true", help="show what an image takes where, in CPU time")
    parser.add_argument("--prepare", action="store_true", help="make and quantize the nets, and no more")
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.bare is not None:
        run_bare(args.folder, args.bare)
        return
    nets = [prepare(args.folder, name, args.batch) for name in args.net or DETECTORS]
    if args.prepare:
        return
    print(MEMORY_HEAD if args.memory else PARTS_HEAD if args.parts else SPEED_HEAD)
    for prepared in nets:
        lines = memory(prepared) if args.memory else speed(prepared, args.seconds, args.rounds)
        for line in parts(prepared, args.seconds) if args.parts else lines:
            print(line, flush=True)


if __name__ == "__main__":
    main()
