"""`distcalib export`: the net in files that run without distcalib, each measured in its own runtime.

A file is written beside the target, measured by the actors that measure the prototxt, and moved to its name only if it
scores the same: a file under its own name has been verified. `verify` measures a file again, later or elsewhere.
"""

import math
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from distcalib.actors import Job
from distcalib.caffe import caffe_pb2, shared_params
from distcalib.caffe.graph import Blob
from distcalib.caffe.phase import State
from distcalib.data import DATA_TYPES, open_source
from distcalib.engine.net import Net, open_net
from distcalib.engine.spec import ElsewhereSpec, Row
from distcalib.engine.worker import data_nodes
from distcalib.errors import DataError, OptionError, OutputError, UnsupportedError
from distcalib.export import Exported, build_export, save_ir
from distcalib.export.measured import blobs_of, read_file
from distcalib.export.preprocess import FORMS, preprocessed, steps_of
from distcalib.export.runtimes import images_per_second, need_onnx, open_model
from distcalib.layers import FileBlobs
from distcalib.metrics import LOSS_TYPES, SCORE_TYPES
from distcalib.quantize.storage import params_of
from distcalib.report import ExportedFile
from distcalib.session.backend import rows
from distcalib.session.checks import check_iterations, net_problems
from distcalib.session.evaluate import running_int8, scores
from distcalib.session.inspect import data_shapes
from distcalib.session.options import SessionOptions
from distcalib.session.progress import Reporter, Silent
from distcalib.session.session import Session
from distcalib.version import __version__

TARGETS = ("openvino", "onnx")
"""What a net can be exported to."""
ACCEPTED_DROP: Mapping[str, float] = {"openvino": 0.0005, "onnx": 0.001}
"""What a file may lose by default against the prototxt."""
FILES: Mapping[str, str] = {"openvino": "model.xml", "onnx": "model.onnx"}
UNVERIFIED = ".unverified"


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, where to, and how it is measured; see the flags of the same names."""

    to: tuple[str, ...] = ("openvino",)
    out: Path = Path(".")
    iterations: int = 10
    outputs: tuple[str, ...] | None = None
    batch: int | str | None = None
    accept_drop: float | None = None
    preprocess: str | None = None
    data: Path | None = None
    n_actors: int | None = None
    cores_per_actor: int | None = None
    address: str | None = None
    stages: tuple[str, ...] = ()
    level: int = 0

    def __post_init__(self) -> None:
        """Raise OptionError for what cannot be."""
        check_iterations(self.iterations)
        unknown = [name for name in self.to if name not in TARGETS]
        if unknown or not self.to:
            raise OptionError(f"--to {', '.join(unknown)}: unknown; choose {' or '.join(TARGETS)}")
        if isinstance(self.batch, int) and self.batch < 1:
            raise OptionError(f"--batch {self.batch}: must be at least 1, or dynamic")
        if self.accept_drop is not None and not 0.0 <= self.accept_drop < math.inf:
            raise OptionError(f"--accept-drop {self.accept_drop:g}: must be 0 or more; 0.001 is a tenth of a point")
        if self.preprocess is not None and self.preprocess not in FORMS:
            raise OptionError(f"--preprocess {self.preprocess}: unknown; choose {', '.join(FORMS[:-1])} or {FORMS[-1]}")
        if "onnx" in self.to:
            need_onnx()

    def drop_of(self, target: str) -> float:
        """What a file of `target` may lose."""
        return ACCEPTED_DROP[target] if self.accept_drop is None else self.accept_drop


def export(
    model: str | Path, weights: str | Path, options: ExportOptions, *, reporter: Reporter | None = None
) -> tuple[ExportedFile, ...]:
    """Write the net `model` with `weights` as files, one for each of `options.to`, and measure each.

    A file that scores worse than accepted keeps the suffix `.unverified`.  Raises the errors of distcalib.errors, and
    then has written nothing.
    """
    said = reporter or Silent()
    net, weights = open_net(Path(model), options.data, State(options.stages, options.level)), Path(weights)
    problems = net_problems(net, fed=True)
    if problems:
        raise UnsupportedError("; ".join(problems))
    made = _build(net, weights, options, said)
    front = None if options.preprocess is None else steps_of(net.graph, net.path, net.name)
    if options.preprocess is not None and front is not None:  # before hours: what cannot be is said now
        preprocessed(_build(net, weights, options, Silent()), front, options.preprocess, net.name)
    if made.reason and options.batch is None:
        said.note(f"{net.name}: the batch stays {made.batch}: {made.reason}")
    info = _info(net, weights, made)
    with TemporaryDirectory(prefix="distcalib-") as folder:
        paths = {target: _save(target, made, Path(folder, target), info, net.name) for target in options.to}
        found = _measure(net, weights, made, paths, options, said)
    if options.preprocess is not None and front is not None:
        made = preprocessed(made, front, options.preprocess, net.name)
        info |= {"preprocess": options.preprocess}
        said.note(f"{net.name}: --preprocess: measured without it, on what the data layer gives; the files have it")
    return tuple(_deliver(one, made, info, options, net.name) for one in found)


def _build(net: Net, weights: Path, options: ExportOptions, reporter: Reporter) -> Exported:
    blobs = FileBlobs(net.weights(weights), weights.name, shared_params(net.test.layer))
    notes: list[str] = []
    shapes = data_shapes(net, blobs, notes)
    for note in notes:
        reporter.note(note.replace("shapes below assume", "the input is taken to be"))
    if not shapes:
        raise UnsupportedError(
            f"{net.name}: the size of its input is not known; give a prototxt whose data can be opened, or one with an"
            " Input layer"
        )
    return build_export(net.graph, blobs, shapes, net.name, outputs=options.outputs, batch=options.batch)


def _info(net: Net, weights: Path, made: Exported) -> dict[str, object]:
    """What a file tells of itself."""
    params = params_of(net.graph)
    return {
        "version": __version__,
        "prototxt": net.name,
        "prototxt_sha256": sha256(net.path.read_bytes()).hexdigest(),
        "weights": weights.name,
        "weights_sha256": sha256(weights.read_bytes()).hexdigest(),
        "int8_layers": list(running_int8(net.graph)),
        "scales": {
            name: {"in": list(param.scale_in), "out": list(param.scale_out), "weights": list(param.scale_params)}
            for name, param in params.items()
        },
        "batch": "dynamic" if made.batch is None else made.batch,
    }


def _save(target: str, made: Exported, folder: Path, info: Mapping[str, object], where: str) -> Path:
    path = folder / FILES[target]
    if target == "openvino":
        save_ir(made, path, info)
    else:
        from distcalib.export.onnx_file import save_onnx  # onnx is an extra

        save_onnx(made, path, info, where)
    return path


def _measure(
    net: Net, weights: Path, made: Exported, paths: Mapping[str, Path], options: ExportOptions, reporter: Reporter
) -> list[ExportedFile]:
    """Each file beside the prototxt, over all iterations on the same actors."""
    blobs = dict(zip(made.names, made.outputs, strict=False))
    found = [_unmeasured(target, path) for target, path in paths.items()]
    reason = _cannot_be_measured(net, blobs, options)
    if reason is not None:
        reporter.note(f"{net.name}: the files are not measured: {reason}")
        return [replace(one, reason=reason) for one in found]
    with _session(net, weights, options, reporter) as session:
        expected = _scores_of_net(session, options.iterations)
        scored = [node.tops[0].name for node in net.graph if node.type in SCORE_TYPES and node.tops]
        if scored and not any(expected[name] for name in scored):
            reporter.note(f"{net.name}: its scores are 0, and so that a file has the same says nothing; train the net")
        done = []
        for one in found:
            measured = _scores_of_file(session, Path(one.path), blobs, one.target, options.iterations)
            lost = drops(net, expected, measured)
            fits = all(drop <= options.drop_of(one.target) for drop in lost.values())
            done.append(
                replace(
                    one,
                    scores=measured,
                    expected=expected,
                    drops=lost,
                    verified=fits,
                    reason="" if fits else f"loses more than {options.drop_of(one.target):g}",
                    n_iterations=options.iterations,
                    isa=session.isa.target,
                )
            )
        session.check_files()
        batch = session.batch
    return [_timed(one, net, weights, options, batch) for one in done]


def _timed(one: ExportedFile, net: Net, weights: Path, options: ExportOptions, batch: int) -> ExportedFile:
    """How fast the file is on one core, once no actor needs it; of a net with INT8 layers the FP32 net, too."""
    found = replace(one, images_per_second=images_per_second(Path(one.path), batch))
    if not running_int8(net.graph):
        return found
    full = caffe_pb2.NetParameter()
    full.CopyFrom(net.full)
    for layer in full.layer:
        layer.ClearField("quantization_param")
    fp32 = net.remade(full)
    with TemporaryDirectory(prefix="distcalib-") as folder:
        path = _save(one.target, _build(fp32, weights, options, Silent()), Path(folder), {}, net.name)
        return replace(found, images_per_second_fp32=images_per_second(path, batch))


def _unmeasured(target: str, path: Path) -> ExportedFile:
    n_int8, n_layers = open_model(path).kernels()
    size = sum(one.stat().st_size for one in path.parent.iterdir())
    return ExportedFile(target, str(path), n_int8, n_layers, size)


def _cannot_be_measured(net: Net, blobs: Mapping[str, Blob], options: ExportOptions) -> str | None:
    inputs = [node.name for node in net.graph if node.type == "Input"]
    if inputs and options.data is None:
        return f"layer '{inputs[0]}' (Input) has no data; give it with --data, or measure later with distcalib verify"
    for node in data_nodes(net.graph):
        try:
            if node.type != "Input":
                open_source(node.layer, net.path).close()
        except DataError as error:
            return str(error)
    there = set(blobs.values())
    read = {blob for node in net.graph if node.type in SCORE_TYPES for blob in node.bottoms} | set(net.graph.outputs)
    lacking = [b for b in sorted(read) if net.graph.producer[b].type not in DATA_TYPES | SCORE_TYPES and b not in there]
    if lacking:
        return f"--outputs lacks '{lacking[0].name}', which scores are made from"
    return None


def _session(net: Net, weights: Path, options: ExportOptions, reporter: Reporter) -> Session:
    asked = SessionOptions(
        iterations=options.iterations,
        data=options.data,
        n_actors=options.n_actors,
        cores_per_actor=options.cores_per_actor,
        address=options.address,
    )
    return Session(net, weights, reporter, asked)


def _scores_of_net(session: Session, iterations: int) -> Mapping[str, float]:
    [result] = session.measure("prototxt", [(session.net.spec(), iterations)])
    return scores(rows(result))


def _scores_of_file(
    session: Session, path: Path, blobs: Mapping[str, Blob], label: str, iterations: int
) -> Mapping[str, float]:
    """The scores of a file."""
    net = session.net
    file = read_file(path, blobs, net.graph)
    spec = ElsewhereSpec(net.spec(), tuple(blobs.values()), file)
    [result] = session.run(label, [Job(f"{label}/0", spec, iterations, label)])
    found: list[Row] = rows(result)
    return scores(found)


def drops(net: Net, expected: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float]:
    """How much worse each score is; of a net without scores how far the mean of each output is off."""
    kinds = {node.tops[0].name: node.type for node in net.graph if node.type in SCORE_TYPES and node.tops}
    found = {}
    for name, value in measured.items():
        difference = expected[name] - value
        if name not in kinds:
            if not kinds:
                found[name] = abs(difference)
            continue
        found[name] = -difference if kinds[name] in LOSS_TYPES else difference
        if math.isnan(difference):
            found[name] = math.inf
    return found


def _deliver(
    one: ExportedFile, made: Exported, info: Mapping[str, object], options: ExportOptions, where: str
) -> ExportedFile:
    """Write the file with its score under its name, or with the suffix of one that was refused."""
    measured = {
        "scores": dict(one.scores),
        "accept_drop": options.drop_of(one.target),
        "iterations": one.n_iterations,
        "target": one.isa,
        "verified": "yes" if one.verified else f"no: {one.reason}",
    }
    with TemporaryDirectory(prefix="distcalib-") as folder:
        path = _save(one.target, made, Path(folder), {**info, **measured}, where)
        refused = one.reason != "" and not one.verified and bool(one.scores)
        # The main file last: where it is, what it reads is there.
        for written in sorted(path.parent.iterdir(), key=lambda other: other == path):
            _place(written, options.out, written.name + (UNVERIFIED if refused else ""))
    return replace(one, path=str(options.out / (path.name + (UNVERIFIED if refused else ""))))


def _place(written: Path, folder: Path, name: str) -> None:
    """Put a file into `folder`, whole or not at all.  Raises OutputError."""
    partly = folder / f".{name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(written, partly)
        os.replace(partly, folder / name)
    except OSError as error:
        with suppress(OSError):
            partly.unlink(missing_ok=True)
        raise OutputError(f"{folder / name}: cannot be written ({error.strerror}); choose another --out") from error


def verify(
    file: str | Path,
    model: str | Path,
    weights: str | Path,
    options: ExportOptions,
    *,
    reporter: Reporter | None = None,
) -> ExportedFile:
    """Measure the exported `file` beside the prototxt `model`, here.  Raises the errors of distcalib.errors."""
    said, path, net = (
        reporter or Silent(),
        Path(file),
        open_net(Path(model), options.data, State(options.stages, options.level)),
    )
    runtime = open_model(path)
    if runtime.info.get("preprocess"):
        raise OptionError(
            f"{path}: takes images (--preprocess {runtime.info['preprocess']}), and the data layer gives what comes "
            "after that; verify the file that is exported without --preprocess"
        )
    blobs = blobs_of(runtime.outputs, net.graph, path, net.name)
    n_int8, n_layers = runtime.kernels()
    target = "openvino" if path.suffix == ".xml" else "onnx"
    beside = path.with_suffix(".bin") if target == "openvino" else path.with_name(f"{path.name}.data")
    size = sum(one.stat().st_size for one in (path, beside) if one.exists())
    reason = _cannot_be_measured(net, blobs, options)
    if reason is not None:
        raise OptionError(f"{path}: cannot be measured with {net.name}: {reason}")
    with _session(net, Path(weights), options, said) as session:
        expected = _scores_of_net(session, options.iterations)
        measured = _scores_of_file(session, path, blobs, target, options.iterations)
        session.check_files()
        lost = drops(net, expected, measured)
        fits = all(drop <= options.drop_of(target) for drop in lost.values())
        return ExportedFile(
            target,
            str(path),
            n_int8,
            n_layers,
            size,
            scores=measured,
            expected=expected,
            drops=lost,
            verified=fits,
            reason="" if fits else f"loses more than {options.drop_of(target):g}",
            n_iterations=options.iterations,
            isa=session.isa.target,
        )
