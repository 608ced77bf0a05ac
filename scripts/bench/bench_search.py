"""What the search costs and what it keeps: planted layers, every strategy, and the best living peer, in one run.

    python -m scripts.bench.bench_search [-m net.prototxt -w net.caffemodel] [-i 100] [-l 0.005] [--nncf PYTHON]
        [--greedy]

Plants 1, 3 and 5 layers that INT8 ruins (plant.py) and calibrates each net with `-c multiple -1st`; prints a Markdown
table.  `cost` is the report's cost_passes: actor-seconds of all evaluation and compilation over those of one
FP32 and one all-INT8 pass.  `seconds` is the wall time of the whole command, start-up included.  `--nncf` names the
Python of an environment with nncf (it is no dependency of distcalib), for scripts/bench/peer_nncf.py on the same files;
its seconds end with NNCF's answer, and in brackets stand the layers that Intel Caffe would run in FP32 of its choice.
`refused at` is the median share of the data after which a candidate that loses too much was refused, all INT8 included.
`--ablation` adds rows with one help of `ranked` switched off each.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from distcalib.calibration.calibrate import run_calibration
from distcalib.calibration.search_driver import Switches
from distcalib.cli import calibrate
from distcalib.cli import main as distcalib
from scripts.bench.bench_evaluate import default_model

ROW = "| {:>7} | {:<25} | {:>8} | {:>6} | {:>11} | {:>11} | {:>7} | {:>9} |"
HELPS = ("share_parts", "stop_early", "look_ahead", "hard_first")
SHARE = re.compile(r"loses too much.* \(after (\d+)% of the data\)")
KEEP = "--keep-weights"  # or planted layers would not fall back: scaled channels are what new weights mend


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-m", "--model", type=Path, default=default_model())
    add("-w", "--weights", type=Path)
    add("-i", "--iterations", type=int, default=100)
    add("-l", "--accuracy_loss", type=float, default=0.005)
    add("-n", type=int, nargs="+", default=[1, 3, 5], help="how many layers are planted")
    add("--seed", type=int, default=0)
    add("--actors", type=int, help="default: one a physical core")
    add("--greedy", type=int, default=3, metavar="N", help="run greedy with up to N planted layers: it takes minutes")
    add("--only", nargs="+", metavar="STRATEGY", help="names of rows, in place of all")
    add("--nncf", metavar="PYTHON")
    add("--ablation", action="store_true")
    add("--ablated", nargs="+", choices=HELPS, default=HELPS, help="what --ablation switches off (default: each)")
    args = parser.parse_args()
    print(ROW.format("planted", "strategy", "top-1", "FP32", "candidates", "refused at", "cost", "seconds"))
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for n in args.n:
            for row in _rows(n, args, Path(folder, str(n))):
                print(ROW.format(*row), flush=True)


def _rows(n: int, args: argparse.Namespace, folder: Path) -> Iterator[Sequence[object]]:
    weights = args.weights or args.model.with_suffix(".caffemodel")
    planting = ["-m", args.model, "-w", weights, "--layers", n, "--seed", args.seed, "-1st", "--out", folder]
    _run([sys.executable, "-m", "scripts.bench.plant", *planting])
    files = ["-m", folder / args.model.name, "-w", folder / weights.name]
    files += ["-i", args.iterations, "-l", args.accuracy_loss]
    actors = ["--actors", args.actors] if args.actors else []
    runs: dict[str, list[object]] = {
        "ranked": [KEEP],
        "ranked, --confidence": ["--confidence", "0.999", KEEP],
        "ranked, --bias-correction": ["--bias-correction"],
        "ranked, --equalize": ["--equalize"],
        "ranked, --recover": ["--recover"],
        "ranked, --recover auto": [],
        "topological": ["--strategy", "topological", KEEP],
    }
    if n <= args.greedy:
        runs["greedy"] = ["--strategy", "greedy", KEEP]
    chosen = {name: flags for name, flags in runs.items() if args.only is None or name in args.only}
    for i, (name, flags) in enumerate(chosen.items()):  # each has a folder of its own: nothing is measured already
        yield _calibrated(n, name, [*files, *actors, *flags], folder / f"out{i}", [])
    if args.ablation:
        for off in args.ablated:
            yield _calibrated(n, f"ranked, no {off}", [*files, *actors, KEEP], folder / off, [off])
    if args.nncf:
        _, text = _run([args.nncf, "-m", "scripts.bench.peer_nncf", *files])
        answer = next(line for line in text.splitlines() if line.startswith("{"))
        found: dict[str, Any] = json.loads(answer)
        told = f"{len(found['fp32_layers'])} ({len(found['fp32_layers_in_caffe'])})"
        yield n, "NNCF", f"{found['score']:.4f}", told, "", "", "", f"{found['seconds']:.1f}"


def _calibrated(n: int, name: str, flags: list[object], out: Path, off: Sequence[str]) -> Sequence[object]:
    program = ["scripts.bench.bench_search", "--without", *off] if off else ["distcalib"]
    seconds, said = _run([sys.executable, "-m", *program, "calibrate", *flags, "-c", "multiple", "-1st", "--out", out])
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    n_fp32, n_candidates = len(report["layers"]["fp32_layers"]), len(report["search"]["candidates"])
    met = "" if report["score"]["met"] else " (not met)"
    shares = [int(share) for share in SHARE.findall(said)]
    return (
        n,
        name + met,
        f"{report['score']['score']:.4f}",
        n_fp32,
        n_candidates,
        f"{median(shares):.0f} %" if shares else "",
        f"{report['run']['cost_passes']:.2f}",
        f"{seconds:.1f}",
    )


def _run(command: Sequence[object]) -> tuple[float, str]:
    """Wall seconds, and what it printed; exit code 2, a tolerance that is not met, is an answer too."""
    begin = time.perf_counter()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode not in (0, 2):
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip().splitlines()[-1]}")
    return seconds, done.stdout + done.stderr


def _without(help_: str, arguments: list[str]) -> int:
    """`distcalib` with a help of the search switched off; in a process of its own."""
    switches = replace(Switches(), **{help_: False})
    vars(calibrate)["calibrate"] = partial(run_calibration, switches=switches)
    return distcalib(arguments)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--without"]:
        sys.exit(_without(sys.argv[2], sys.argv[3:]))
    main()
