"""The model to be taken away: what engine/builder.py builds, its outputs named as the blobs, any batch size.

Converters work with static shapes, so a batch is opened by comparison: the net is built for two batch sizes, and what
differs between the two must be one number of a Reshape, which becomes "what remains". Where anything else differs, such
as a constant that a layer made for its batch, the batch stays that of the prototxt.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from openvino import Output

from distcalib.caffe.caffe_pb2 import LayerParameter
from distcalib.caffe.graph import Blob, Graph, Node
from distcalib.data import DATA_TYPES
from distcalib.engine.builder import BuiltModel, build_model
from distcalib.errors import DistcalibError, OptionError, UnsupportedError
from distcalib.exporters.detection import detection_node, refuse_detection
from distcalib.exporters.yolo import SUFFIX, yolo_boxes
from distcalib.layers import Blobs
from distcalib.metrics import SCORE_TYPES, YOLO_DETECTION

Shapes = Mapping[str, tuple[int, ...]]
DYNAMIC = "dynamic"
"""The --batch that leaves the size open."""
_OF_FIXED_SHAPE = frozenset({"PSROIPooling"})
"""Operators that OpenVINO's CPU plugin (2026.4) refuses to compile with shapes that are open."""


@dataclass(frozen=True)
class Exported:
    """A model with named inputs and outputs; `batch` is None where it is open, `reason` says why it is not.

    `names` are those of `outputs`, then of outputs that are no blobs: the boxes of YOLO v2.
    """

    model: ov.Model
    inputs: tuple[str, ...]
    outputs: tuple[Blob, ...]
    names: tuple[str, ...]
    batch: int | None
    reason: str = ""


def build_export(
    graph: Graph,
    blobs: Blobs,
    shapes: Shapes,
    where: str,
    *,
    outputs: Sequence[str] | None = None,
    batch: int | str | None = None,
) -> Exported:
    """The net without data layers, labels and scores.

    `shapes` are those of the data layers' tops; `batch` a size, "dynamic", or None: dynamic where the net allows it.
    `outputs`: names of blobs; by default what the net ends in and what its scores read.
    Raises UnsupportedError, WeightsError and OptionError.
    """
    wanted = chosen(graph, outputs, where)
    refuse_detection(graph, wanted, where)
    n_given = _given_batch(shapes)
    size = batch if isinstance(batch, int) else n_given
    here = _resized(shapes, size)
    exported = _build(graph, blobs, here, where, wanted)
    if isinstance(batch, int):
        return _named(graph, exported, wanted, size, "")
    reason = _open(exported, lambda n: _build(graph, blobs, _resized(shapes, n), where, wanted), size)
    if reason and batch == DYNAMIC:
        raise OptionError(f"{where}: --batch dynamic: {reason}; give --batch N")
    return _named(graph, exported, wanted, size if reason else None, reason)


def chosen(graph: Graph, names: Sequence[str] | None, where: str) -> tuple[Blob, ...]:
    """The values that are handed out: the last of each of `names`, or the default.  Raises OptionError."""
    last = {blob.name: blob for node in graph for blob in node.tops}
    if names is None:
        blobs: dict[Blob, None] = {}
        for node in graph:
            if node.type in SCORE_TYPES:
                blobs.update((blob, None) for blob in node.bottoms if _is_made(graph, blob))
        blobs.update((blob, None) for blob in graph.outputs if _is_made(graph, blob))
        if not blobs:
            raise UnsupportedError(f"{where}: makes no blob from its input; there is nothing to export")
        return tuple(sorted(blobs))
    wrong = [name for name in names if name not in last or not _is_made(graph, last[name])]
    if wrong:
        made = ", ".join(blob.name for blob in last.values() if _is_made(graph, blob))
        listed = ", ".join(f"'{name}'" for name in wrong)
        raise OptionError(f"{where}: --outputs: no layer that is exported makes {listed}; choose among {made}")
    return tuple(dict.fromkeys(last[name] for name in names))


def _is_made(graph: Graph, blob: Blob) -> bool:
    return graph.producer[blob].type not in DATA_TYPES | SCORE_TYPES


def _build(graph: Graph, blobs: Blobs, shapes: Shapes, where: str, wanted: Sequence[Blob]) -> BuiltModel:
    """The model with one result for each of `wanted`, detections included."""
    reads = list(dict.fromkeys(blob for want in wanted for blob in _reads(graph, want)))
    try:
        built = build_model(graph, blobs, shapes, where, keep=reads)
    except KeyError as missing:
        if graph.producer[missing.args[0]].type in DATA_TYPES:
            raise UnsupportedError(
                f"{where}: '{missing.args[0].name}' comes from a data layer and goes out as it is; there is nothing to"
                " export of it"
            ) from None
        raise OptionError(
            f"{where}: --outputs: '{missing.args[0].name}' is folded into the layer that follows it; choose that"
            " layer's blob"
        ) from None
    values = {blob: result.input_value(0) for blob, result in zip(reads, built.model.get_results(), strict=True)}
    results = _apart([_value(graph, want, values) for want in wanted])
    results += [ops.result(yolo_boxes(layer, values[blob])) for blob, layer in _yolo(graph, wanted)]
    # What leads to a label alone is no input of the model.
    used = _used(results)
    pairs = zip(built.inputs, built.model.get_parameters(), strict=True)
    inputs = {name: parameter for name, parameter in pairs if parameter.get_name() in used}
    model = ov.Model(results, list(inputs.values()), where)
    return BuiltModel(
        model,
        tuple(inputs),
        tuple(wanted),
        (),
        built.multipliers,
        built.emulated,
        built.values,
        built.stored,
    )


def _yolo(graph: Graph, wanted: Sequence[Blob]) -> list[tuple[Blob, LayerParameter]]:
    """The maps among `wanted` that hold the boxes of YOLO v2, and the layers that read these."""
    return [
        (blob, reader.layer)
        for blob in wanted
        for reader in graph.consumers.get(blob, ())
        if reader.type == YOLO_DETECTION and reader.bottoms[0] == blob
    ]


def _reads(graph: Graph, blob: Blob) -> Sequence[Blob]:
    node = graph.producer[blob]
    return node.bottoms[:3] if node.type == "DetectionOutput" else (blob,)


def _value(graph: Graph, blob: Blob, values: Mapping[Blob, Output]) -> Output:
    node = graph.producer[blob]
    if node.type != "DetectionOutput":
        return values[blob]
    return detection_node(node.layer, [values[bottom] for bottom in node.bottoms[:3]])


def _apart(values: Sequence[Output]) -> list[ov.op.Result]:
    """A result for each value; a value that is an input, or that two blobs are, is multiplied by 1: a tensor of
    OpenVINO has one name only that all runtimes go by.
    """
    seen: set[tuple[str, int]] = set()
    results = []
    for value in values:
        key = value.get_node().get_name(), value.get_index()
        if key in seen or value.get_node().get_type_name() == "Parameter":
            value = ops.multiply(value, np.float32(1.0)).output(0)
        seen.add(key)
        results.append(ops.result(value))
    return results


def _used(results: Sequence[ov.op.Result]) -> set[str]:
    """The names of all nodes that lead to `results`."""
    seen: set[str] = set()
    stack: list[ov.Node] = list(results)
    while stack:
        node = stack.pop()
        if node.get_name() in seen:
            continue
        seen.add(node.get_name())
        stack += [value.get_node() for value in node.input_values()]
    return seen


def _given_batch(shapes: Shapes) -> int:
    sizes = [shape[0] for shape in shapes.values() if shape]
    return sizes[0] if sizes else 1


def _resized(shapes: Shapes, size: int) -> Shapes:
    """The shapes for another batch: of the tops that have that of the first one."""
    given = _given_batch(shapes)
    return {top: (size, *shape[1:]) if shape and shape[0] == given else shape for top, shape in shapes.items()}


def _open(built: BuiltModel, build: Callable[[int], BuiltModel], size: int) -> str:
    """Open the batch of `built`, which is of `size`; why it stays, "" where it does not."""
    try:
        other = build(size + 1)
    except DistcalibError:
        return f"a layer fits its batch of {size} alone"
    ours, theirs = built.model.get_ordered_ops(), other.model.get_ordered_ops()
    if fixed := [kind for kind in (op.get_type_name() for op in ours) if kind in _OF_FIXED_SHAPE]:
        return f"OpenVINO runs {fixed[0]} with a fixed batch only"
    if [op.get_type_name() for op in ours] != [op.get_type_name() for op in theirs]:
        return "its layers are others with another batch"
    remaining: list[tuple[ov.Node, int]] = []
    for a, b in zip(ours, theirs, strict=True):
        if a.get_type_name() == "Constant":
            if a.get_output_shape(0) != b.get_output_shape(0):
                return f"the values of '{_reader(a)}' are made for its batch"
            x, y = _data(a), _data(b)
            places = np.flatnonzero(x != y)
            if not len(places):
                continue
            if len(places) > 1 or not _shapes_a_reshape(a):
                return f"the values of '{_reader(a)}' are made for its batch"
            remaining.append((a, int(places[0])))
        elif a.get_attributes() != b.get_attributes() and a.get_type_name() != "Parameter":
            return f"'{a.get_friendly_name()}' is made for its batch"
    for node, place in remaining:
        values = _data(node).astype(np.int64).copy()
        values[place] = -1
        fresh = ops.constant(values)
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(fresh.output(0))
    for mine, its in zip(built.model.get_parameters(), other.model.get_parameters(), strict=True):
        if mine.get_output_shape(0) != its.get_output_shape(0):
            mine.set_partial_shape(ov.PartialShape([-1, *list(mine.get_output_shape(0))[1:]]))
    built.model.validate_nodes_and_infer_types()
    return ""


def _data(node: ov.Node) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    values: np.ndarray[tuple[int, ...], np.dtype[np.generic]] = node.get_data()
    return values.reshape(-1)


def _reader(node: ov.Node) -> str:
    readers = [target.get_node().get_friendly_name() for target in node.output(0).get_target_inputs()]
    return readers[0] if readers else str(node.get_friendly_name())


def _shapes_a_reshape(node: ov.Node) -> bool:
    targets = node.output(0).get_target_inputs()
    return all(t.get_node().get_type_name() == "Reshape" and t.get_index() == 1 for t in targets)


def _named(graph: Graph, built: BuiltModel, wanted: Sequence[Blob], batch: int | None, reason: str) -> Exported:
    """Inputs and outputs under the names of the blobs, operators under those of the layers."""
    taken = set[str]()
    for name, parameter in zip(built.inputs, built.model.get_parameters(), strict=True):
        parameter.set_friendly_name(name)
        parameter.output(0).get_tensor().set_names({name})
        taken.add(name)
    names = []
    results = built.model.get_results()
    for blob, result in zip(wanted, results, strict=False):  # behind them boxes, which are no blobs
        name = next(name for name in (blob.name, str(blob), f"{blob}/out") if name not in taken)
        taken.add(name)
        names.append(name)
        result.output(0).get_tensor().set_names({name})
        result.set_friendly_name(f"{name}/result")
    for (blob, _), result in zip(_yolo(graph, wanted), results[len(wanted) :], strict=True):
        result.output(0).get_tensor().set_names({f"{blob.name}{SUFFIX}"})
        names.append(f"{blob.name}{SUFFIX}")
    _name_nodes(graph, built)
    return Exported(built.model, built.inputs, tuple(wanted), tuple(names), batch, reason)


def _name_nodes(graph: Graph, built: BuiltModel) -> None:
    """Name what makes each blob after its layer, and its grid where it is stored as integers: "conv1: u8/12.5"."""
    used = set(built.multipliers) | set(built.inputs)
    for blob, value in built.values.items():
        node = value.get_node()
        producer: Node = graph.producer[blob]
        if node.get_type_name() in ("Parameter", "Constant") or node.get_friendly_name() in used:
            continue
        grid = built.stored.get(blob)
        name = producer.name if grid is None else f"{producer.name}: {grid}"
        name = f"{name}/out" if name in used else name
        used.add(name)
        node.set_friendly_name(name)
