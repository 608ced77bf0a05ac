"""Read every prototxt below a folder and print a table of what is in the way of running them.

    python -m scripts.tools.read_nets FOLDER              # inspect each net
    python -m scripts.tools.read_nets FOLDER --run        # and run one iteration of it, on random weights and inputs
    python -m scripts.tools.read_nets FOLDER --json FILE  # what came of each file, too

A file is a net if it has layers; solvers are passed over.  What only lacks data (a database that is not there, an
Input layer without arrays, a --stage that its message names) counts as runnable: its shapes are taken from the
prototxt, or assumed.  Each file is
counted once, under the first kind of KINDS that its sentences show, so that the table adds up."""

from __future__ import annotations

import argparse
import json
import re
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distcalib.caffe.phase import State
from distcalib.engine.net import open_net
from distcalib.errors import DistcalibError, UnsupportedError, flags_named
from distcalib.session.inspect import inspect

RUNS = "runs"
KINDS = (
    ("a traceback", r"^traceback"),
    ("a template or a broken text", r"'\$' where the name of a field"),
    ("a field that is not known", r"unknown field|stands twice in one|which \w+ does not have"),
    (
        "a template or a broken text",
        r"where the name of a field|no value after|text ends|things cannot be read|line \d+",
    ),
    ("a Python layer", r"\(Python\)"),
    ("a layer type that is not known", r"is not a layer type"),
    ("no data layer in TEST", r"no data layer in the TEST phase|which no layer before it makes"),
    ("`phase: TRAIN` outside include", r"say `phase: TRAIN`"),
    ("two layers of one name", r"is used twice"),
    ("a blob that is made twice", r"which is there already|made by two layers"),
    ("a file of sizes that is not there", r"no such file"),
    ("a pooling kernel over the input", r"is larger than the input"),
    ("a loss of training", r"is a training loss|exists for training only"),
    (
        "a known type that is not converted",
        r"is not converted yet|is a recurrent layer|is of other forks|has no fixed shape",
    ),
)
#: What is no fault of the net: it waits for data.
WAITS = re.compile(r"give (its|such) arrays|give arrays of its tops")


@dataclass(frozen=True)
class Outcome:
    """What came of one file: RUNS or a kind, and the sentences that say why."""

    file: str
    kind: str
    reasons: tuple[str, ...] = ()


def nets_below(folder: Path) -> list[Path]:
    """Every prototxt below `folder` that has layers, in the order of their names."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix in (".prototxt", ".pt"))
    return sorted(path for path in found if _is_net(path.read_bytes()))


def _is_net(content: bytes) -> bool:
    """Whether a text has layers and is no solver, which may have a net inside."""
    return bool(re.search(rb"\blayers?\s*\{", content)) and not re.search(rb"^\s*base_lr\s*:", content, re.MULTILINE)


def kind_of(reasons: Sequence[str]) -> str:
    """The first of KINDS that a sentence is of; "other" if none is."""
    for kind, pattern in KINDS:
        if any(re.search(pattern, reason) for reason in reasons):
            return kind
    return "other"


def outcome(path: Path, folder: Path, run: bool) -> Outcome:
    """Inspect one net and, if `run`, compute one iteration of it."""
    name = str(path.relative_to(folder))
    try:
        stages = _stages(path)
        found = inspect(path, stages=stages)
        reasons = tuple(said for said in found.problems if not WAITS.search(said))
        if not reasons and run:
            from scripts.tools.run_random import run_once  # OpenVINO is needed for it alone

            run_once(path, State(stages))
    except DistcalibError as error:
        reasons = (str(error),)
    except Exception:  # a traceback is what this looks for
        reasons = ("traceback " + traceback.format_exc(limit=-2).strip().replace("\n", " | "),)
    return Outcome(name, RUNS if not reasons else kind_of(reasons), reasons)


def _stages(path: Path) -> tuple[str, ...]:
    """The stage that a net needs for its test data, the first that its own message advises; none for most."""
    try:
        open_net(path)
    except UnsupportedError as error:
        with flags_named():
            return tuple(re.findall(r"--stage (\S+)", str(error))[:1])
    except DistcalibError:
        pass
    return ()


def table(outcomes: Iterable[Outcome]) -> str:
    """How many files there are of each kind, the most frequent first."""
    counts = Counter(one.kind for one in outcomes)
    total = sum(counts.values())
    lines = [f"{'files':>6}  {'':>5}  what is in the way"]
    order = sorted(counts, key=lambda kind: (kind != RUNS, -counts[kind], kind))
    lines += [f"{counts[kind]:>6}  {counts[kind] / total:>5.0%}  {kind}" for kind in order]
    return "\n".join([*lines, f"{total:>6}         in all"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", action="store_true", help="compute one iteration of each net, too")
    parser.add_argument("--json", type=Path, help="write what came of each file there")
    options = parser.parse_args()
    outcomes = []
    for path in nets_below(options.folder):
        outcomes.append(outcome(path, options.folder, options.run))
        print(f"{outcomes[-1].file}: {outcomes[-1].kind}", file=sys.stderr)
    if not outcomes:
        sys.exit(f"read_nets: {options.folder}: has no prototxt with layers; name another folder")
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1), encoding="utf-8")
    print(table(outcomes))


if __name__ == "__main__":
    main()
