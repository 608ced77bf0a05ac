"""PSROIPooling in ONNX, which has no operator like it: sums over rectangles by the four corners of running sums.

Running sums are f64, so that differences of large ones are as good as sums of the few values in a bin.
"""

import numpy as np
from onnx import TensorProto
from openvino import Node

from distcalib.exporters.onnx_writer import Writer


def psroi_pooling(writer: Writer, node: Node) -> None:
    """The mean of each bin, of a channel of its own:  x (N, D·G·G, H, W), rois (R, 5) -> (R, D, G, G)."""
    a, name = node.get_attributes(), node.get_friendly_name()
    assert a["mode"] == "average", "the engine asks for it"
    n_groups, shape = int(a["group_size"]), node.input_value(0).get_partial_shape()
    channels, height, width = (int(shape[axis].get_length()) for axis in (1, 2, 3))
    rois = writer.value(node.input_value(1))
    starts, ends = _bins(writer, rois, float(a["spatial_scale"]), n_groups, (width, height), name)
    upper, lower = (_along(writer, one, 1, [-1, 1, n_groups, 1], name) for one in (starts, ends))
    left, right = (_along(writer, one, 0, [-1, 1, 1, n_groups], name) for one in (starts, ends))
    sums = _running_sums(writer, writer.value(node.input_value(0)), name)
    item = writer.one("Slice", [rois, *(writer.integers([n]) for n in (0, 1, 1))], f"{name}/item")
    item = writer.one("Cast", [item], f"{name}/item", to=TensorProto.INT64)
    item = writer.one("Reshape", [item, writer.integers([-1, 1, 1, 1])], f"{name}/item")
    own = np.arange(channels, dtype=np.int64).reshape(1, -1, n_groups, n_groups)
    plane = writer.one("Mul", [item, writer.integers([channels])], f"{name}/plane")
    plane = writer.one("Add", [plane, writer.constant(own, f"{name}/channels")], f"{name}/plane")

    def at(row: str, column: str) -> str:
        """The running sum up to there, of each bin's channel."""
        place = writer.one("Mul", [plane, writer.integers([height + 1])], f"{name}/place")
        place = writer.one("Add", [place, row], f"{name}/place")
        place = writer.one("Mul", [place, writer.integers([width + 1])], f"{name}/place")
        place = writer.one("Add", [place, column], f"{name}/place")
        return writer.one("Gather", [sums, place], f"{name}/corner", axis=0)

    below = writer.one("Sub", [at(lower, right), at(lower, left)], f"{name}/below")
    above = writer.one("Sub", [at(upper, right), at(upper, left)], f"{name}/above")
    total = writer.one("Sub", [below, above], f"{name}/total")
    extents = [writer.one("Sub", pair, f"{name}/extent") for pair in ([lower, upper], [right, left])]
    count = writer.one("Max", [writer.one("Mul", extents, f"{name}/area"), writer.integers([1])], f"{name}/count")
    count = writer.one("Cast", [count], f"{name}/count", to=TensorProto.DOUBLE)
    mean = writer.one("Div", [total, count], f"{name}/mean")
    writer.put(node.output(0), writer.one("Cast", [mean], name, to=TensorProto.FLOAT))


def _bins(
    writer: Writer, rois: str, scale: float, n_groups: int, extents: tuple[int, int], name: str
) -> tuple[str, str]:
    """Where bins begin and end, (R, G, 2) of columns and rows, within a map of `extents`.

    Corners are rounded half away from zero and then scaled; the last one counts as a pixel.
    """
    corners = writer.one("Slice", [rois, *(writer.integers([n]) for n in (1, 5, 1))], f"{name}/corners")
    half = writer.one("Add", [writer.one("Abs", [corners], f"{name}/abs"), _number(writer, 0.5)], f"{name}/half")
    sign, whole = writer.one("Sign", [corners], f"{name}/sign"), writer.one("Floor", [half], f"{name}/floor")
    pixel = writer.constant(np.array([0, 0, 1, 1], np.float32))
    rounded = writer.one("Add", [writer.one("Mul", [sign, whole], f"{name}/rounded"), pixel], f"{name}/rounded")
    scaled = writer.one("Mul", [rounded, _number(writer, scale)], f"{name}/scaled")
    parted = writer.one("Reshape", [scaled, writer.integers([-1, 2, 2])], f"{name}/parted")
    low, high = writer.emit("Split", [parted, writer.integers([1, 1])], f"{name}/ends", 2, axis=1)
    size = writer.one("Max", [writer.one("Sub", [high, low], f"{name}/size"), _number(writer, 0.1)], f"{name}/size")
    step = writer.one("Div", [size, _number(writer, float(n_groups))], f"{name}/step")
    limit = writer.constant(np.array(extents, np.float32))
    edges = []
    for first, kind in ((0, "Floor"), (1, "Ceil")):
        number = writer.constant(np.arange(first, first + n_groups, dtype=np.float32).reshape(1, -1, 1))
        edge = writer.one("Add", [writer.one("Mul", [number, step], f"{name}/edge"), low], f"{name}/edge")
        edge = writer.one("Max", [writer.one(kind, [edge], f"{name}/edge"), _number(writer, 0.0)], f"{name}/edge")
        edge = writer.one("Min", [edge, limit], f"{name}/edge")
        edges.append(writer.one("Cast", [edge], f"{name}/edge", to=TensorProto.INT64))
    return edges[0], edges[1]


def _along(writer: Writer, edges: str, axis: int, shape: list[int], name: str) -> str:
    """Those of columns (0) or rows (1)."""
    one = writer.one("Gather", [edges, writer.constant(np.int64(axis))], f"{name}/axis", axis=2)
    return writer.one("Reshape", [one, writer.integers(shape)], f"{name}/axis")


def _running_sums(writer: Writer, x: str, name: str) -> str:
    """(N·C·(H + 1)·(W + 1),): of all above and to the left of each place."""
    sums = writer.one("Cast", [x], f"{name}/sums", to=TensorProto.DOUBLE)
    sums = writer.one("Pad", [sums, writer.integers([0, 0, 1, 1, 0, 0, 0, 0])], f"{name}/sums")
    for axis in (2, 3):
        sums = writer.one("CumSum", [sums, writer.constant(np.int64(axis))], f"{name}/sums")
    return writer.one("Reshape", [sums, writer.integers([-1])], f"{name}/sums")


def _number(writer: Writer, value: float) -> str:
    return writer.constant(np.float32(value))
