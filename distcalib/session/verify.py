"""Exported files beside their prototxt: both scored over the same iterations, by the same actors.

`verify` does it later or elsewhere: what a file answers depends on the CPU and on the version of its runtime.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from distcalib.actors import Job
from distcalib.caffe.belonging import belonging_warnings, file_sha256
from distcalib.caffe.graph import Blob
from distcalib.data import DATA_TYPES, KeepingSource, Pixels, advising, open_source
from distcalib.engine.net import Net, open_net
from distcalib.engine.spec import ElsewhereSpec
from distcalib.engine.worker import data_nodes
from distcalib.errors import AbsentError, FormatError, OptionError
from distcalib.exporters.measured import blobs_of, read_file
from distcalib.exporters.preprocess import FORMS, steps_of
from distcalib.exporters.runtimes import beside, open_model
from distcalib.metrics import LOSS_TYPES, SCORE_TYPES
from distcalib.report import ExportedFile
from distcalib.session.backend import rows
from distcalib.session.evaluate import scores
from distcalib.session.export_options import ExportOptions, given
from distcalib.session.progress import Reporter, Silent
from distcalib.session.session import Session


def verify(
    file: str | Path,
    model: str | Path,
    weights: str | Path,
    options: ExportOptions | None = None,
    *,
    reporter: Reporter | None = None,
) -> ExportedFile:
    """Measure the exported `file` beside the prototxt `model`, here.  Raises the errors of distcalib.errors.

    distcalib.verify("DIR/model.onnx", "net.prototxt", "net.caffemodel")
    """
    options = given(options)
    reporter, path, weights = reporter or Silent(), Path(file), Path(weights)
    net = open_net(Path(model), options.data, options.state)
    for warning in belonging_warnings(net.path, weights):
        reporter.note(warning)
    runtime = open_model(path)
    form = runtime.info.get("preprocess")
    if form is not None:
        if form not in FORMS:
            raise FormatError(f"{path}: takes images as '{form}', which this version does not know; export it again")
        steps_of(net.graph, net.path, net.name)
    blobs = blobs_of(runtime.outputs, net.graph, path, net.name)
    for key, source in (("prototxt_sha256", net.path), ("weights_sha256", weights)):
        if runtime.info.get(key, "") not in ("", _hash_of(source)):
            reporter.note(f"{path}: was exported from another {source.name} than the one given, by its hash")
    target = "openvino" if path.suffix == ".xml" else "onnx"
    reason = cannot_be_measured(net, blobs, options)
    if reason is not None:
        raise OptionError(f"{path}: cannot be measured with {net.name}: {reason}")
    exported = unmeasured(target, path)
    [result], _ = measured(net, weights, [exported], blobs, replace(options, preprocess=form), reporter)
    return result


def _hash_of(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return ""  # reading it for the run tells why


def unmeasured(target: str, path: Path) -> ExportedFile:
    """What is known of a file without running it."""
    n_int8, n_layers = open_model(path).kernels()
    size = sum(one.stat().st_size for one in (path, beside(path)) if one.exists())
    return ExportedFile(target, str(path), n_int8, n_layers, size)


def cannot_be_measured(net: Net, blobs: Mapping[str, Blob], options: ExportOptions) -> str | None:
    """Why files with the outputs `blobs` have no score; None if they can have one.  Raises what `lacking_data` does."""
    if (said := lacking_data(net, options)) is not None:
        return said
    there = set(blobs.values())
    read = {blob for node in net.graph if node.type in SCORE_TYPES for blob in node.bottoms} | set(net.graph.outputs)
    lacking = [b for b in sorted(read) if net.graph.producer[b].type not in DATA_TYPES | SCORE_TYPES and b not in there]
    if lacking:
        return f"--outputs lacks '{lacking[0].name}', which scores are made from"
    return None


def lacking_data(net: Net, options: ExportOptions) -> str | None:
    """What data are not there; None if all are.  Raises DataError for data that are there and cannot be used."""
    inputs = [node.name for node in net.graph if node.type == "Input"]
    if inputs and options.data is None:
        return f"layer '{inputs[0]}' (Input) has no data; give it with --data, or measure later with distcalib verify"
    for node in data_nodes(net.graph):
        try:
            if node.type != "Input":
                with advising(not options.skip_bad_records):
                    open_source(node.layer, net.path, skip_bad=options.skip_bad_records).close()
        except AbsentError as error:
            return str(error)
    return None


def first_image(net: Net, options: ExportOptions) -> Pixels:
    """The first image (C, H, W) of the data, as it is before the data layer resizes it.  Raises DataError."""
    for node in data_nodes(net.graph):
        source = open_source(node.layer, net.path, skip_bad=options.skip_bad_records)
        try:
            if isinstance(source, KeepingSource):
                return source.images(0, {} if options.skip_bad_records else None)[0]
        finally:
            source.close()
    raise AssertionError("steps_of has found a layer of images")


def measured(
    net: Net,
    weights: Path,
    files: Sequence[ExportedFile],
    blobs: Mapping[str, Blob],
    options: ExportOptions,
    reporter: Reporter,
) -> tuple[list[ExportedFile], int]:
    """Each of `files` beside the prototxt, over all iterations on the same actors; and the batch of its data."""
    if options.isa != "native" and any(file.target == "onnx" for file in files):
        reporter.note(f"--isa {options.isa}: holds the engine and OpenVINO to that CPU; ONNX Runtime has no such limit")
    with Session(net, weights, reporter, options) as session:
        n = session.n_iterations
        [result] = session.measure("prototxt", [(net.spec(), n)])
        expected = scores(rows(result), options.ap_version)
        scored = [node.tops[0].name for node in net.graph if node.type in SCORE_TYPES and node.tops]
        if scored and not any(expected[name] for name in scored):
            reporter.note(f"{net.name}: its scores are 0, and so that a file has the same says nothing; train the net")
        done = []
        for file in files:
            own_scores = _scores_of(file, session, blobs, options)
            lost = drops(net, expected, own_scores)
            fits = all(drop <= options.drop_of(file.target) for drop in lost.values())
            reason = "" if fits else f"loses more than {options.drop_of(file.target):g}"
            done.append(replace(file, scores=own_scores, drops=lost, verified=fits, reason=reason))
        session.check_files()
        bad, target, batch = session.bad_records(range(n)), session.isa.target, session.batch
    return [replace(file, expected=expected, n_iterations=n, isa=target, bad_records=bad) for file in done], batch


def _scores_of(
    one: ExportedFile, session: Session, blobs: Mapping[str, Blob], options: ExportOptions
) -> Mapping[str, float]:
    file = read_file(Path(one.path), blobs, session.net.graph, options.preprocess)
    takes_images = options.preprocess is not None
    spec = ElsewhereSpec(session.net.spec(), tuple(blobs.values()), file, takes_images)
    [result] = session.run(one.target, [Job(f"{one.target}/0", spec, session.n_iterations, one.target)])
    return scores(rows(result), options.ap_version)


def drops(net: Net, expected: Mapping[str, float], found: Mapping[str, float]) -> dict[str, float]:
    """How much worse each score is; of a net without scores how far the mean of each output is off."""
    kinds = {node.tops[0].name: node.type for node in net.graph if node.type in SCORE_TYPES and node.tops}
    lost = {}
    for name, value in found.items():
        difference = expected[name] - value
        if name not in kinds:
            if not kinds:
                lost[name] = abs(difference)
            continue
        lost[name] = -difference if kinds[name] in LOSS_TYPES else difference
        if math.isnan(difference):
            lost[name] = math.inf
    return lost
