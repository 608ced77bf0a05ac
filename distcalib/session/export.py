"""`distcalib export`: the net in files that run without distcalib, each measured in its own runtime.

A file is written beside the target, measured by the actors that measure the prototxt, and moved to its name only if it
scores the same: a file under its own name has been verified, or could not be measured, which is reported. So an earlier
one stays where a later one is refused."""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from distcalib.caffe import caffe_pb2, shared_params
from distcalib.caffe.belonging import belonging_warnings, file_sha256
from distcalib.data import Pixels
from distcalib.engine.net import Net, open_net
from distcalib.errors import OutputError, UnsupportedError
from distcalib.exporters import Exported, build_export, save_ir
from distcalib.exporters.preprocess import Steps, preprocessed, steps_of
from distcalib.exporters.runtimes import images_per_second
from distcalib.layers import FileBlobs
from distcalib.quantize.storage import params_of
from distcalib.report import ExportedFile
from distcalib.session.checks import check_folder, net_problems
from distcalib.session.evaluate import running_int8
from distcalib.session.export_options import ExportOptions, given
from distcalib.session.inspect import data_shapes
from distcalib.session.progress import Reporter, Silent
from distcalib.session.verify import cannot_be_measured, first_image, lacking_data, measured, unmeasured
from distcalib.version import __version__

FILES: Mapping[str, str] = {"openvino": "model.xml", "onnx": "model.onnx"}
UNVERIFIED = ".unverified"


def export(
    model: str | Path,
    weights: str | Path,
    options: ExportOptions | None = None,
    *,
    reporter: Reporter | None = None,
) -> tuple[ExportedFile, ...]:
    """Write the net `model` with `weights` as files, one for each of `options.to`, and measure each.

    A file that scores worse than accepted keeps the suffix `.unverified`.  Raises the errors of distcalib.errors, and
    then has written nothing.

        distcalib.export("net.prototxt", "net.caffemodel", distcalib.ExportOptions(to=["onnx"], out="DIR"))
    """
    options = given(options)
    reporter = reporter or Silent()
    net, weights = open_net(Path(model), options.data, options.state), Path(weights)
    problems = net_problems(net, fed=True)
    if problems:
        raise UnsupportedError("; ".join(problems))
    check_folder(options.out, [options.out / FILES[target] for target in options.to])
    lacking_data(net, options)  # raises
    for warning in belonging_warnings(net.path, weights):
        reporter.note(warning)
    steps = None if options.preprocess is None else steps_of(net.graph, net.path, net.name)
    made = _build(net, weights, options, steps, reporter)
    if made.reason and options.batch is None:
        reporter.note(f"{net.name}: the batch stays {made.batch}: {made.reason}")
    info = _info(net, weights, made, options)
    with TemporaryDirectory(prefix="distcalib-") as folder:
        paths = {target: _save(target, made, Path(folder, target), info, net.name) for target in options.to}
        files = _measure(net, weights, made, paths, options, steps, reporter)
    return tuple(_deliver(one, made, info, options, net.name) for one in files)


def _build(net: Net, weights: Path, options: ExportOptions, steps: Steps | None, reporter: Reporter) -> Exported:
    blobs = FileBlobs(net.weights(weights), weights.name, shared_params(net.test.layer))
    notes: list[str] = []
    shapes = data_shapes(net, blobs, notes, skip_bad=options.skip_bad_records)
    for note in notes:
        reporter.note(note.replace("shapes below assume", "the input is taken to be"))
    if not shapes:
        raise UnsupportedError(
            f"{net.name}: the size of its input is not known; give a prototxt whose data can be opened, or one with an"
            " Input layer"
        )
    made = build_export(net.graph, blobs, shapes, net.name, outputs=options.outputs, batch=options.batch)
    if steps is None or options.preprocess is None:
        return made
    return preprocessed(made, steps, options.preprocess, net.name)


def _info(net: Net, weights: Path, made: Exported, options: ExportOptions) -> dict[str, object]:
    """What a file tells of itself."""
    params = params_of(net.graph)
    return {
        "version": __version__,
        "prototxt": net.name,
        "prototxt_sha256": file_sha256(net.path),
        "weights": weights.name,
        "weights_sha256": file_sha256(weights),
        "int8_layers": list(running_int8(net.graph)),
        "scales": {
            name: {"in": list(param.scale_in), "out": list(param.scale_out), "weights": list(param.scale_params)}
            for name, param in params.items()
        },
        "batch": "dynamic" if made.batch is None else made.batch,
        **_front(options),
    }


def _front(options: ExportOptions) -> dict[str, object]:
    """What a file tells of the images that it takes."""
    return {} if options.preprocess is None else {"preprocess": options.preprocess}


def _save(target: str, made: Exported, folder: Path, info: Mapping[str, object], where: str) -> Path:
    path = folder / FILES[target]
    if target == "openvino":
        save_ir(made, path, info)
    else:
        from distcalib.exporters.onnx_file import save_onnx  # onnx is an extra

        save_onnx(made, path, info, where)
    return path


def _measure(
    net: Net,
    weights: Path,
    made: Exported,
    paths: Mapping[str, Path],
    options: ExportOptions,
    steps: Steps | None,
    reporter: Reporter,
) -> list[ExportedFile]:
    """Each file beside the prototxt, and how fast it is; as it is where nothing can be measured."""
    blobs = dict(zip(made.names, made.outputs, strict=False))
    files = [unmeasured(target, path) for target, path in paths.items()]
    reason = cannot_be_measured(net, blobs, options)
    if reason is not None:
        reporter.note(f"{net.name}: the files are not measured: {reason}")
        return [replace(one, reason=reason) for one in files]
    image = None if steps is None else first_image(net, options)
    results, batch = measured(net, weights, files, blobs, options, reporter)
    return [_timed(one, net, weights, options, steps, batch, image) for one in results]


def _timed(
    one: ExportedFile,
    net: Net,
    weights: Path,
    options: ExportOptions,
    steps: Steps | None,
    batch: int,
    image: Pixels | None,
) -> ExportedFile:
    """How fast the file is on one core, once no actor needs it; of a net with INT8 layers the FP32 net, too."""
    timed = replace(one, images_per_second=images_per_second(Path(one.path), batch, image))
    if not running_int8(net.graph):
        return timed
    full = caffe_pb2.NetParameter()
    full.CopyFrom(net.full)
    for layer in full.layer:
        layer.ClearField("quantization_param")
    fp32 = net.remade(full)
    with TemporaryDirectory(prefix="distcalib-") as folder:
        made = _build(fp32, weights, options, steps, Silent())
        path = _save(one.target, made, Path(folder), _front(options), net.name)
        return replace(timed, images_per_second_fp32=images_per_second(path, batch, image))


def _deliver(
    one: ExportedFile, made: Exported, info: Mapping[str, object], options: ExportOptions, where: str
) -> ExportedFile:
    """Write the file with its score under its name, or with the suffix of one that was refused."""
    noted = {
        "scores": dict(one.scores),
        "accept_drop": options.drop_of(one.target),
        "iterations": one.n_iterations,
        "target": one.isa,
        "verified": "yes" if one.verified else f"no: {one.reason}",
    }
    suffix = UNVERIFIED if one.refused else ""
    with TemporaryDirectory(prefix="distcalib-") as folder:
        path = _save(one.target, made, Path(folder), {**info, **noted}, where)
        written = sorted(path.parent.iterdir(), key=lambda other: other == path)  # the main one last
        _place(written, options.out, suffix)
    placed = options.out / path.name
    if suffix:
        earlier = str(placed) if placed.exists() else ""
        return replace(one, path=f"{placed}{suffix}", earlier=earlier)
    for file in written:
        (options.out / f"{file.name}{UNVERIFIED}").unlink(missing_ok=True)
    return replace(one, path=str(placed))


def _place(written: Sequence[Path], folder: Path, suffix: str) -> None:
    """Put files into `folder`, whole or not at all; the last one is never there with what another one reads.

    Raises OutputError.
    """
    parts = {file: folder / f".{file.name}{suffix}.part" for file in written}
    main = folder / f"{written[-1].name}{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, part in parts.items():
            shutil.copyfile(file, part)
        main.unlink(missing_ok=True)
        for file, part in parts.items():
            os.replace(part, folder / f"{file.name}{suffix}")
    except OSError as error:
        raise OutputError(f"{main}: cannot be written ({error.strerror}); choose another --out") from error
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)
