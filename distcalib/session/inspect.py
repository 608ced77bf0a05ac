"""`distcalib inspect`: what a net is made of, what of it can run INT8 or does, and all that cannot be run, at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distcalib.actors.memory import refuse_large_blobs
from distcalib.caffe import caffe_pb2, shared_params
from distcalib.caffe.aliases import SHARED
from distcalib.caffe.caffe_pb2 import ResizeParameter
from distcalib.caffe.forks import FOREIGN
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.caffe.phase import State
from distcalib.caffe.steps import runs_on_caffe
from distcalib.data import DATA_TYPES, VARIES, load_arrays, open_source
from distcalib.data.limits import too_many
from distcalib.engine.builder import layer_shapes
from distcalib.engine.net import Net, open_net
from distcalib.engine.worker import data_nodes
from distcalib.errors import AbsentError, DataError, DistcalibError, FormatError, UnsupportedError, WeightsError
from distcalib.layers import Blobs, FileBlobs, ZeroBlobs
from distcalib.plugins import load_plugins
from distcalib.quantize.faults import intel_faults
from distcalib.quantize.grids import Grid
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.storage import params_of, runs_int8, storage
from distcalib.session.checks import (
    data_warnings,
    net_notes,
    net_problems,
    refuse_no_numbers,
    refuse_other_images,
    said_by,
    size_faults,
    unfed,
    unopened,
)
from distcalib.session.in_place import in_place_warnings, shared_notes


@dataclass(frozen=True)
class LayerInfo:
    """One layer of the TEST net; `shapes` are those of its tops, None where they are not known."""

    name: str
    type: str
    tops: tuple[str, ...]
    shapes: tuple[tuple[int, ...] | None, ...]
    int8: str
    stored: str


@dataclass(frozen=True)
class Inspection:
    """The net's layers, which of them calibrate would quantize, and every problem that is in the way of running it.

    `warnings` tell where Intel Caffe itself would compute something else.
    """

    model: str
    layers: tuple[LayerInfo, ...]
    quantizable: tuple[str, ...]
    int8_layers: tuple[str, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """For machines."""
        return asdict(self)


def inspect(
    model: str | Path,
    weights: str | Path | None = None,
    data: str | Path | None = None,
    *,
    stages: Iterable[str] = (),
    level: int = 0,
    plugins: Sequence[str] = (),
) -> Inspection:
    """Look at `model` without running it; with `weights` the blobs' shapes are checked too, with `data` the arrays.

    A net that only waits for arrays is sound: that is among the notes.  `stages` and `level` are those of `caffe test`.
    `plugins`: modules that add layers.

        distcalib.inspect("net.prototxt", "net.caffemodel").quantizable

    Raises FormatError if the prototxt cannot be read; anything else that is wrong is in `problems`.
    """
    load_plugins(plugins)
    net = open_net(Path(model), None if data is None else Path(data), State(tuple(stages), level))
    waiting = unfed(net, fed=data is not None)
    waiting += [said for said in size_faults(net) if "No such file" in said]
    problems = [said for said in net_problems(net, fed=data is not None) if said not in waiting]
    notes = list(waiting)
    problems += _array_faults(net, data)
    if data is not None:  # nothing else is coming
        late = unfed(net, fed=True)
        problems, notes = [*problems, *late], [said for said in notes if said not in late]
    try:
        quantizer = Quantizer(net.graph, Options())
    except UnsupportedError:  # among the problems; without fused groups there is no more than the list of layers
        bare = tuple(_layer_info(node, {}, {}, "") for node in net.graph if node.type != SHARED)
        return Inspection(str(model), bare, (), (), tuple(problems), (), (*notes, *net_notes(net)))
    blobs = _blobs(net, weights, problems)
    shapes = _shapes(net, blobs, problems, notes)
    notes += net_notes(net)
    try:
        params = params_of(net.graph)
    except FormatError:  # among the problems already
        params = {}
    stored = storage(net.graph, quantizer.groups, params)
    int8 = tuple(name for name, group in quantizer.groups.items() if runs_int8(group, params, stored))
    read = blobs.weights if isinstance(blobs, FileBlobs) and shapes and not problems else None
    notes += shared_notes(net)
    overwritten = in_place_warnings(net)
    warnings = (*overwritten, *data_warnings(net), *intel_faults(net.graph, quantizer.groups, stored, params, read))
    layers = tuple(
        _layer_info(node, shapes, stored, _int8_text(node, quantizer, params, int8))
        for node in net.graph
        if node.type != SHARED
    )
    return Inspection(str(model), layers, quantizer.space.order, int8, tuple(problems), warnings, tuple(notes))


def _layer_info(
    node: Node, shapes: Mapping[Blob, tuple[int, ...]], stored: Mapping[Blob, Grid], int8: str
) -> LayerInfo:
    """What is listed of a layer, as far as its shapes and how its tops are stored are known."""
    tops = tuple(str(top) for top in node.tops)
    grids = [str(stored[top]) for top in node.tops if top in stored]
    return LayerInfo(node.name, node.type, tops, tuple(map(shapes.get, node.tops)), int8, ", ".join(grids))


def _array_faults(net: Net, data: str | Path | None) -> list[str]:
    """What is wrong with the arrays in the file `data`."""
    if data is None:
        return []
    try:
        load_arrays(Path(data), [node.layer for node in data_nodes(net.graph)], net.path)
    except DataError as error:
        return [str(error)]
    return []


def _int8_text(
    node: Node, quantizer: Quantizer, params: Mapping[str, caffe_pb2.QuantizationParameter], int8: tuple[str, ...]
) -> str:
    """What the listing says of a layer: its scales if it is INT8, else whether it could be."""
    if node.name not in quantizer.groups:
        return ""
    if node.name in int8:
        param = params[node.name]
        kind = "s8" if param.is_negative_input else "u8"
        scales = param.scale_params
        spread = f"{len(scales)} from {min(scales):.6g} to {max(scales):.6g}"
        weights = f"{scales[0]:.6g}" if len(scales) == 1 else spread
        out = "FP32" if param.bw_layer_out != 8 else f"{param.scale_out[0]:.6g}"
        return f"INT8: in {kind} {param.scale_in[0]:.6g}, weights {weights}, out {out}"
    if node.name in params:
        own = runs_on_caffe(node.layer)
        return f"has scales, runs FP32: {'in an engine without INT8' if own else 'its residual is FP32'}"
    reason = quantizer.refused.get(node.name)
    return "quantizable" if reason is None else f"FP32: {reason}"


def _shapes(net: Net, blobs: Blobs, problems: list[str], notes: list[str]) -> Mapping[Blob, tuple[int, ...]]:
    """The shape of every value, as far as the data and the layers allow."""
    tops = data_shapes(net, blobs, notes, problems=problems)
    if not tops:
        return {}
    known = {blob: tops[blob.name] for n in net.graph if n.type in DATA_TYPES for blob in n.tops}
    try:
        value_shapes, errors = layer_shapes(net.graph, blobs, tops, net.name)
    except FormatError:  # scales that are none; among the problems already
        return known
    if isinstance(blobs, FileBlobs) and any(isinstance(error, WeightsError) for error in errors):
        made, weights = {**known, **value_shapes}, blobs.weights
        if of_images := said_by(
            lambda: refuse_other_images(net, tops, made, weights)
        ):  # what is behind it, as evaluate
            errors = [error for error in errors if not isinstance(error, WeightsError)]
            problems.extend(of_images)
    problems.extend(str(error) for error in errors if str(error) not in problems)
    try:
        refuse_large_blobs(net.name, tops, value_shapes)
    except UnsupportedError as error:
        problems.append(str(error))
    return {**known, **value_shapes}


def data_shapes(
    net: Net,
    blobs: Blobs,
    notes: list[str],
    otherwise: tuple[int, int, int] | None = None,
    problems: list[str] | None = None,
    skip_bad: bool = False,
) -> dict[str, tuple[int, ...]]:
    """The shapes of what data layers make; guessed, with a note, where the data are absent.

    `otherwise`: channels, height and width where the prototxt tells nothing; None: then no shape is known.
    `problems` takes what is wrong with data that are there; None: it is among the notes.
    `skip_bad`: as open_source has it.
    """
    tops: dict[str, tuple[int, ...]] = {}
    sources = [*data_nodes(net.graph), *unopened(net)]
    for node in sorted(sources, key=lambda one: one.index):
        try:
            source = open_source(node.layer, net.path, skip_bad=skip_bad)
        except (DataError, UnsupportedError) as error:
            guess = _guess(node.layer, _channels_read(net.graph, node, blobs), otherwise)
            if guess is not None and problems is not None and too_many(guess) and not isinstance(error, AbsentError):
                guess = None  # told already: no layer is to say it again
            said = f"shapes below assume {guess}" if guess else "shapes are not known"
            if isinstance(error, AbsentError) or (problems is None and isinstance(error, DataError)):
                notes.append(f"{error}; {said}")
            elif problems is not None and isinstance(error, DataError):
                problems.append(str(error))
                notes.append(f"{net.name}: {said}")
            if guess is None:
                return {}
            labels = (1, 1, VARIES, 8) if node.type == "AnnotatedData" else (guess[0],)
            kind = node.type.removesuffix(FOREIGN)
            if kind in ("DenseImageData", "ImageSegData"):
                labels = (guess[0], 1, *guess[2:])
            shapes = [guess, *[labels] * (len(node.layer.top) - 1)]
            if kind == "ImageSegData":
                shapes[2:] = [(guess[0], 1, 1, 2)] * len(shapes[2:])
            tops.update(zip(node.layer.top, shapes, strict=True))
        else:
            tops.update(source.shapes)
            source.close()
    return tops


def _blobs(net: Net, weights: str | Path | None, problems: list[str]) -> Blobs:
    """The caffemodel's blobs; zeros of the right shape where there is none or it cannot be read."""
    if weights is None:
        return ZeroBlobs()
    try:
        read = net.weights(Path(weights))
        refuse_no_numbers(read, Path(weights), net)
        return FileBlobs(read, Path(weights).name, shared_params(net.test.layer))
    except DistcalibError as error:
        problems.append(str(error))
        return ZeroBlobs()


def _guess(
    layer: caffe_pb2.LayerParameter, channels: int | None, otherwise: tuple[int, int, int] | None = None
) -> tuple[int, int, int, int] | None:
    """The shape that a data layer without its data most likely has, from crop or size and mean; None without.

    One mean_value may stand for all channels, so that the weights, where they tell of `channels`, know better.
    """
    transform = layer.transform_param
    height = transform.crop_h or transform.crop_size or transform.crop_height
    width = transform.crop_w or transform.crop_size or transform.crop_width
    if not height and not width and transform.resize_param.resize_mode != ResizeParameter.FIT_SMALL_SIZE:
        height, width = transform.resize_param.height, transform.resize_param.width
    kind, memory = layer.type.removesuffix(FOREIGN), layer.memory_data_param
    image = layer.dense_image_data_param if kind == "DenseImageData" else layer.image_data_param
    of_images = kind in ("DenseImageData", "ImageData", "ImageSegData")
    if of_images and not (height and width):
        height, width = image.new_height, image.new_width
    if layer.type == "MemoryData" and memory.batch_size:
        return memory.batch_size, memory.channels, memory.height, memory.width
    batch = image.batch_size if of_images else layer.data_param.batch_size
    if not (height and width and batch):
        return None if otherwise is None else (batch or 1, channels or otherwise[0], *otherwise[1:])
    if transform.force_gray:
        channels = 1
    elif len(transform.mean_value) > 1:
        channels = len(transform.mean_value)
    channels = channels or (1 if transform.mean_value else 3)
    return batch, channels, height + 2 * transform.pad, width + 2 * transform.pad


def _channels_read(graph: Graph, data: Node, blobs: Blobs) -> int | None:
    """How many channels the weights of a convolution that reads `data` are for; None if no caffemodel tells."""
    weights = blobs.weights if isinstance(blobs, FileBlobs) else {}
    for reader in (reader for top in data.tops[:1] for reader in graph.consumers.get(top, ())):
        kernels = weights.get(reader.name, ())[:1] if reader.type == "Convolution" else ()
        if kernels and kernels[0].ndim == 4:
            return int(kernels[0].shape[1]) * reader.layer.convolution_param.group
    return None
