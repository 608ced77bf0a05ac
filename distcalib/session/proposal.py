"""`distcalib init`: what a calibration of a prototxt would be called with, why, and what is still missing for it.

Nothing is run.  What the prototxt leaves open is looked for where a user would look: a caffemodel beside it whose blobs
fit, and the number of records in the data.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distcalib.caffe.phase import State
from distcalib.data import load_arrays
from distcalib.engine.batch import records_an_iteration
from distcalib.engine.net import Net, open_net
from distcalib.engine.worker import data_nodes
from distcalib.errors import DistcalibError, OptionError
from distcalib.metrics import LOSS_TYPES, MAP_TYPES, choose_score, score_layers
from distcalib.plugins import load_plugins
from distcalib.quantize.options import QUANTIZED_BY
from distcalib.session.checks import said_by, unfed, unopened
from distcalib.session.flag_words import flag_words
from distcalib.session.in_place import refuse_in_place
from distcalib.session.inputs import open_sources
from distcalib.session.inspect import Inspection, inspect
from distcalib.session.lengths import lengths_of, refuse_unequal, whole_iterations

MOST_TRIED = 5
"""Caffemodels that are read to see whether they fit: a folder may have a hundred snapshots of half a gigabyte."""
NO_WEIGHTS = "WEIGHTS.caffemodel"
NO_ARRAYS = "DATA.npz"
_ITERATION = re.compile(r"_iter_(\d+)$")


@dataclass(frozen=True)
class Part:
    """One flag of the command, with its value, and why it is there."""

    flag: str
    value: str
    why: str


@dataclass(frozen=True)
class Proposal:
    """A command of `distcalib calibrate`, flag by flag, and a sentence for all that keeps it from being run."""

    model: str
    parts: tuple[Part, ...]
    missing: tuple[str, ...]

    @property
    def command(self) -> str:
        """To be pasted into a shell; words in capitals are to be replaced, which `missing` says."""
        flags = (word for part in self.parts for word in flag_words(part.flag, part.value))
        return shlex.join(["distcalib", "calibrate", *flags])

    def to_dict(self) -> dict[str, object]:
        """For machines."""
        return {"command": self.command, "can_run": not self.missing, **asdict(self)}


def propose(
    model: Path,
    weights: Path | None = None,
    data: Path | None = None,
    *,
    stages: Sequence[str] = (),
    level: int = 0,
    plugins: Sequence[str] = (),
    largest_mb: int | None = None,
    at_least: int = 1,
) -> Proposal:
    """Look at `model`, its data and the caffemodels beside it.

    Raises FormatError for what is not a prototxt, and UnsupportedError for a TEST phase that is none.
    """
    load_plugins(plugins)
    net = open_net(model, data, State(tuple(stages), level))
    missing = _quantized(net)

    def look(chosen: Path | None) -> Inspection:
        return inspect(model, chosen, data, stages=stages, level=level, plugins=plugins)

    given = None if weights is None else (weights, "as given", look(weights))
    chosen, why, inspection = given or _weights_beside(net, look)
    waiting = unfed(net, fed=data is not None)
    missing += [said for said in inspection.problems if said not in waiting]
    missing += said_by(lambda: refuse_in_place(net)) if not inspection.problems else []
    parts = [Part("-m", str(model), f"{len(inspection.layers)} layers, {_quantizable(inspection)}")]
    parts.append(Part("-w", NO_WEIGHTS if chosen is None else str(chosen), why))
    if chosen is None:
        missing.append(f"{net.name}: {why}; give the FP32 caffemodel with -w")
    parts += _of_data(net, data, waiting, missing, at_least)
    parts += _of_score(net, missing)
    parts += _as_given(data, stages, level, plugins, largest_mb)
    parts.append(Part("--out", f"{model.stem}_int8", "a folder for the INT8 prototxt, its report and the journal"))
    return Proposal(str(model), tuple(parts), tuple(dict.fromkeys(missing)))


def _quantizable(inspection: Inspection) -> str:
    n = len(inspection.quantizable)
    told = f"{n or 'none'} of them can be INT8"
    reasons = [one.int8 for one in inspection.layers]
    flags = [flag for flag in ("-1st", "-fc") if any(QUANTIZED_BY.format(flag) in reason for reason in reasons)]
    return told + (f", and more with {' and '.join(flags)}" if flags else "") + "; `distcalib inspect` lists them"


def _quantized(net: Net) -> list[str]:
    if not any(layer.HasField("quantization_param") for layer in net.full.layer):
        return []
    return [
        f"{net.name}: is quantized already: `distcalib evaluate` measures it and `distcalib export` deploys it; to "
        "calibrate, give the FP32 prototxt that it was made from"
    ]


def _weights_beside(net: Net, look: Callable[[Path | None], Inspection]) -> tuple[Path | None, str, Inspection]:
    """The caffemodel in the prototxt's folder whose blobs fit, why it was taken, and what `look` says of the net with
    it; None, what was tried, and what is said without one.
    """
    folder = net.path.parent
    there = sorted(folder.glob("*.caffemodel"), key=lambda path: _preference(path, net.path.stem))
    bare = look(None)
    tried: list[str] = []
    for path in there[:MOST_TRIED]:
        filled = look(path) if _is_of(net, path) else None
        if filled is not None and set(filled.problems) <= set(bare.problems):
            others = len(there) - 1
            more = f"; of {len(there)} there, the first that fits" if others else ""
            return path, f"is beside the prototxt, and its blobs fit{more}", filled
        tried.append(path.name)
    if not tried:
        return None, "no .caffemodel is beside it", bare
    left = f" (and {len(there) - len(tried)} more)" if len(there) > len(tried) else ""
    return None, f"the blobs of {', '.join(tried)}{left} beside it do not fit", bare


def _preference(path: Path, stem: str) -> tuple[bool, int, str]:
    """The one with the prototxt's name first, then the latest snapshot of a training."""
    iteration = _ITERATION.search(path.stem)
    return path.stem != stem, -int(iteration[1]) if iteration else 0, path.name


def _is_of(net: Net, path: Path) -> bool:
    """Whether the file can be read and has blobs for layers of the net."""
    try:
        return not net.weights(path).keys().isdisjoint(node.name for node in net.graph)
    except DistcalibError:
        return False


def _of_data(net: Net, data: Path | None, waiting: Sequence[str], missing: list[str], at_least: int) -> list[Part]:
    """-i, or --data of a net that waits for arrays."""
    if waiting and data is None:
        tops = [top.name for node in (*data_nodes(net.graph), *unopened(net)) for top in node.tops]
        arrays = ", ".join(f"{top}=..." if top.isidentifier() else f"**{{'{top}': ...}}" for top in tops)
        missing.append(
            f"{net.name}: its data layers wait for arrays; write them with numpy.savez('{NO_ARRAYS}', {arrays}), one "
            "image or label per row, preprocessed as in training, and give that file with --data"
        )
        return [
            Part("--data", NO_ARRAYS, f"arrays of {', '.join(tops)}: nothing in the prototxt reads them from files")
        ]
    try:
        arrays_read = None if data is None else load_arrays(data, [n.layer for n in data_nodes(net.graph)], net.path)
        sources, _ = open_sources(net, arrays_read, skips=False)
        batch = records_an_iteration([source for _, source in sources])
        lengths = lengths_of(sources, arrays_read)
        n = whole_iterations(lengths, sources, arrays_read, net.name)
        refuse_unequal(lengths, max(n, at_least), net.name)
    except OptionError as error:
        missing.append(str(error))
        return [Part("-i", "N", "how many iterations make a score: images / batch")]
    except DistcalibError as error:
        missing.append(str(error))
        return []
    if not lengths:
        return [Part("-i", str(n), f"the arrays are one batch of {batch}")]
    one = min(lengths, key=lambda length: length.n_iterations)
    left = one.n_records - n * one.n_taken
    rest = f"; the last {left} do not fill a batch" if left > 0 else ""
    told = (
        f"the whole test set, which is the default: {one.n_records:,} records of {one.what} in batches of {one.n_taken}"
    )
    return [Part("-i", str(n), told + rest)]


def _of_score(net: Net, missing: list[str]) -> list[Part]:
    """-n and -d, and -l in the unit of that score."""
    layers = score_layers(net.test)
    maps = [name for name, layer in layers.items() if layer.type in MAP_TYPES]
    losses = [name for name, layer in layers.items() if layer.type in LOSS_TYPES]
    is_detection = bool(maps)
    try:
        blob = choose_score(net.test, detection=is_detection)
        why = f"the score: the top of layer '{layers[blob].name}' ({layers[blob].type}), the higher the better"
    except OptionError as error:
        if not losses:
            missing.append(f"{net.name}: {_accuracy_to_add(net) or error}")
            return [Part("-l", "0.01", "what may be lost: one percentage point")]
        blob = losses[-1]
        why = f"the only kind of score here: layer '{layers[blob].name}' ({layers[blob].type}), the lower the better"
    except DistcalibError as error:
        missing.append(f"{net.name}: {error}")
        return []
    others = [name for name in layers if name != blob and name not in losses]
    if others:
        why += f"; there is also {', '.join(others)}"
    parts = [Part("-n", blob, why)]
    if is_detection:
        parts.append(Part("-d", "1", "detection: the score is mAP"))
    unit = "in units of the loss" if blob in losses else "one percentage point"
    parts.append(Part("-l", "0.01", f"what may be lost of {blob}: {unit}"))
    return parts


def _accuracy_to_add(net: Net) -> str:
    """The layer that makes a net with one output one that can be scored; "" where that is not clear."""
    ends = [blob.name for blob in net.graph.outputs]
    if len(ends) != 1:
        return ""
    return (
        "has no layer to be scored by; add one to the end of the file, and the labels to the data: "
        f'layer {{ name: "accuracy" type: "Accuracy" bottom: "{ends[0]}" bottom: "label" top: "accuracy" }}'
    )


def _as_given(
    data: Path | None, stages: Sequence[str], level: int, plugins: Sequence[str], largest_mb: int | None
) -> list[Part]:
    """What the user said, which the command needs, too."""
    given: Mapping[str, Sequence[str]] = {
        "--data": [] if data is None else [str(data)],
        "--stage": stages,
        "--level": [str(level)] if level else [],
        "--plugin": plugins,
        "--largest-mb": [] if largest_mb is None else [str(largest_mb)],
    }
    return [Part(flag, value, "as given") for flag, values in given.items() for value in values]
