"""DetectionOutput and NonMaxSuppression in ONNX.

ONNX's NonMaxSuppression keeps as many boxes of a class as it is asked for, but has neither the `top_k` best candidates
before nor the `keep_top_k` best of an image after: both are a TopK here. Boxes that are left come by falling score of
their image, not by class first; no score depends on that.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from openvino import Node

from distcalib.exporters.folding import folded
from distcalib.exporters.onnx_writer import Writer

_NONE = np.float32(-3e38)  # a score that none has
_SOME = np.float32(-1e37)  # less than any


def non_max_suppression(writer: Writer, node: Node) -> None:
    """Of one image and one class, as a Proposal has it: by falling score in both.

    OpenVINO drops what overlaps by the threshold, ONNX what overlaps by more.
    """
    inputs = [writer.value(node.input_value(i)) for i in range(2)]
    most, threshold, least = (np.asarray(folded(node.input_value(i))).reshape(1) for i in (2, 3, 4))
    below = np.nextafter(threshold.astype(np.float32), np.float32(-np.inf))
    inputs += [writer.constant(array) for array in (most.astype(np.int64), below, least.astype(np.float32))]
    center = int(node.get_attributes()["box_encoding"] != "corner")
    name = node.get_friendly_name()
    chosen = writer.one("NonMaxSuppression", inputs, name, center_point_box=center)
    writer.put(node.output(0), chosen)
    count = writer.one("Shape", [chosen], f"{name}/shape", end=1)
    writer.put(node.output(2), count)


def detection_output(writer: Writer, node: Node) -> None:
    """Rows (1, 1, R, 7) of (item, label, score, xmin, ymin, xmax, ymax); R is 0 where nothing is found."""
    _Detection(writer, node).write()


class _Detection:
    def __init__(self, writer: Writer, node: Node) -> None:
        self.writer, self.node = writer, node
        self.a = node.get_attributes()
        priors = folded(node.input_value(2))
        assert priors is not None, "priors depend on shapes alone"
        self.corners, self.variances = priors[0, 0].reshape(-1, 4), priors[0, -1].reshape(-1, 4)
        self.n_priors = len(self.corners)
        self.n_classes = int(node.get_input_partial_shape(1)[1].get_length()) // self.n_priors
        self.shared = bool(self.a["share_location"])

    def write(self) -> None:
        """All of it."""
        scores = self._scores()  # (N, C, P), or (N·C, 1, P) where each class has its own boxes
        boxes = self._boxes()  # (N, P, 4), or (N·C, P, 4)
        chosen = self._chosen(boxes, scores)
        dense = self._dense(chosen, scores)
        size = self.n_classes * self.n_priors
        flat = self._op("Reshape", dense, self._ints(-1, size))
        keep = min(int(np.ravel(self.a["keep_top_k"])[0]), size)
        best, place = self.writer.emit("TopK", [flat, self._ints(keep)], self._name("best"), 2, axis=1)
        label = self._op("Div", place, self._ints(self.n_priors))
        if self.shared:
            at = self._op("Sub", place, self._op("Mul", label, self._ints(self.n_priors)))
            every = boxes
        else:
            at, every = place, self._op("Reshape", boxes, self._ints(-1, size, 4))
        best_boxes = self._op("GatherND", every, self._op("Unsqueeze", at, self._ints(-1)), batch_dims=1)
        columns = [self._column(self._items(place)), self._column(label), self._op("Unsqueeze", best, self._ints(-1))]
        rows = self._op("Reshape", self._op("Concat", *columns, best_boxes, axis=2), self._ints(-1, 7))
        real = self._op("Greater", self._op("Reshape", best, self._ints(-1)), self._number(_SOME))
        kept = self._op("Compress", rows, real, axis=0)
        name = self.node.get_friendly_name()
        self.writer.put(self.node.output(0), self.writer.one("Unsqueeze", [kept, self._ints(0, 1)], name))

    def _scores(self) -> str:
        """The scores by class; of the background, and of candidates behind the top_k best, none."""
        conf = self._op(
            "Reshape", self.writer.value(self.node.input_value(1)), self._ints(-1, self.n_priors, self.n_classes)
        )
        by_class = self._op("Transpose", conf, perm=[0, 2, 1])
        background = np.zeros((1, self.n_classes, 1), np.bool_)
        background[0, int(self.a["background_label_id"])] = True
        scores = self._op("Where", self._constant(background), self._number(_NONE), by_class)
        top_k = int(self.a["top_k"])
        if 0 < top_k < self.n_priors:
            best, _ = self.writer.emit("TopK", [scores, self._ints(top_k)], self._name("top_k"), 2, axis=2)
            least = self._op("Slice", best, self._ints(top_k - 1), self._ints(top_k), self._ints(2))
            scores = self._op("Where", self._op("GreaterOrEqual", scores, least), scores, self._number(_NONE))
        return scores if self.shared else self._op("Reshape", scores, self._ints(-1, 1, self.n_priors))

    def _boxes(self) -> str:
        """What the predictions stand for (DecodeBBox)."""
        loc = self.writer.value(self.node.input_value(0))
        corners, variances = self.corners, self.variances
        if self.shared:
            loc = self._op("Reshape", loc, self._ints(-1, self.n_priors, 4))
        else:
            own = self._op("Reshape", loc, self._ints(-1, self.n_priors, self.n_classes, 4))
            moved = self._op("Transpose", own, perm=[0, 2, 1, 3])
            loc = self._op("Reshape", moved, self._ints(-1, self.n_priors, 4))
        if not self.a["variance_encoded_in_target"]:
            loc = self._op("Mul", loc, self._constant(variances))
        if self.a["code_type"].endswith("CORNER"):
            return self._op("Add", loc, self._constant(corners))
        extent = corners[:, 2:] - corners[:, :2]
        middle = (corners[:, :2] + corners[:, 2:]) / np.float32(2.0)
        moves, grows = self.writer.emit("Split", [loc, self._ints(2, 2)], self._name("parts"), 2, axis=2)
        center = self._op("Add", self._op("Mul", moves, self._constant(extent)), self._constant(middle))
        half = self._op("Mul", self._op("Exp", grows), self._constant(extent / np.float32(2.0)))
        return self._op("Concat", self._op("Sub", center, half), self._op("Add", center, half), axis=2)

    def _chosen(self, boxes: str, scores: str) -> str:
        """(K, 3): image, class and prior of the boxes that suppression leaves."""
        threshold = np.float32(max(float(self.a["confidence_threshold"]), float(_SOME)))
        limits = [
            np.array([self.n_priors], np.int64),
            np.array([self.a["nms_threshold"]], np.float32),
            threshold.reshape(1),
        ]
        return self._op("NonMaxSuppression", boxes, scores, *map(self._constant, limits))

    def _dense(self, chosen: str, scores: str) -> str:
        """The scores of those that are left, none for the others, in the shape of `scores`."""
        nothing = helper.make_tensor("nothing", TensorProto.FLOAT, [1], [float(_NONE)])
        empty = self._op("ConstantOfShape", self._op("Shape", scores), value=nothing)
        return self._op("ScatterND", empty, chosen, self._op("GatherND", scores, chosen))

    def _items(self, place: str) -> str:
        """The number of the image, in the shape (N, K) of `place`."""
        count = self._op("Gather", self._op("Shape", place), self._constant(np.int64(0)))
        numbers = self._op("Range", self._constant(np.int64(0)), count, self._constant(np.int64(1)))
        return self._op("Add", self._op("Unsqueeze", numbers, self._ints(1)), self._op("Mul", place, self._ints(0)))

    def _column(self, whole: str) -> str:
        return self._op("Unsqueeze", self._op("Cast", whole, to=TensorProto.FLOAT), self._ints(-1))

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.writer.one(kind, inputs, self._name(kind), **attributes)

    def _name(self, part: str) -> str:
        return f"{self.node.get_friendly_name()}/{part}"

    def _ints(self, *values: int) -> str:
        return self.writer.integers(values)

    def _number(self, value: np.float32) -> str:
        return self.writer.constant(np.float32(value))

    def _constant(self, array: NDArray[Any] | np.generic) -> str:
        return self.writer.constant(np.asarray(array))
