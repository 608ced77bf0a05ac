"""Nets of which only the times and the scores exist.

An image is right while its margin, by which its class leads, is above 0.  Each INT8 layer moves the margin of each
image by a normal amount of its own; hard layers push down on average, the others push either way.  So what layers cost
together, how noisy a few iterations are and how far the output is from FP32's are of one piece, as in a real net, and
values of two candidates are paired: what they agree in moves an image by the same amount.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from distcalib.caffe.graph import Blob
from distcalib.engine.ranking import Plan, RankSpec
from distcalib.engine.ranking_parts import FEWEST
from distcalib.engine.ranking_split import OWN_PARTS
from distcalib.engine.spec import Kept, NetSpec, Outputs, Row
from distcalib.metrics import ByImage, Partial
from distcalib.quantize.candidate import Candidate, Space
from distcalib.quantize.scales import Calibration

METRIC = "accuracy"
LOGITS = (Blob("logits", 0),)
ALL_FP32 = b"\n"  # what no list of names is
OWN_LAYERS = 2.5
"""Layers that a candidate adds to the one net of a ranking, by the time that it takes to compile: on resnet20 21
candidates in two nets take 4.2 times as long as FP32 alone."""


@dataclass(frozen=True)
class Times:
    """Of one core."""

    fp32_images_per_second: float
    int8_images_per_second: float
    compile_seconds: float
    import_seconds: float


@dataclass(frozen=True)
class SimulatedNet:
    """`work`: multiply-adds by layer in net order; `needs`: as in Space; `hard`: by layer the accuracy that
    it costs by pushing down; by spreading, a point more.

    It is the Engine that runs it, and makes the programs that a search asks for.
    """

    name: str
    work: Mapping[str, int]
    times: Times
    n_images: int
    batch: int
    hard: Mapping[str, float]
    needs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    fp32_accuracy: float = 0.75
    easy_spread: float = 0.022
    """Of 53 layers together 0.16: 4 % of the images go from right to wrong, and nearly as many back."""
    hard_spread: float = 0.3
    seed: int = 0
    _right: dict[bytes, NDArray[np.bool_]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def n_iterations(self) -> int:
        """Batches, all of them whole."""
        return self.n_images // self.batch

    @cached_property
    def _margins(self) -> NDArray[np.float64]:
        """By image, in FP32."""
        center = NormalDist().inv_cdf(self.fp32_accuracy)
        return np.random.default_rng([self.seed, 0]).normal(center, 1.0, self.n_images)

    @cached_property
    def _shifts(self) -> dict[str, NDArray[np.float64]]:
        """What each layer in INT8 does to the margin of each image."""
        density = NormalDist().pdf(NormalDist().inv_cdf(self.fp32_accuracy))  # of margins at 0
        random = np.random.default_rng([self.seed, 1])
        return {
            layer: random.normal(-self.hard[layer] / density, self.hard_spread, self.n_images)
            if layer in self.hard
            else random.normal(0.0, self.easy_spread, self.n_images)
            for layer in self.work
        }

    @cached_property
    def _all_shifts(self) -> NDArray[np.float64]:
        return np.asarray(np.sum(list(self._shifts.values()), axis=0), np.float64)

    def _shift(self, net: bytes) -> NDArray[np.float64]:
        """Of a candidate, by image."""
        if net == ALL_FP32:
            return np.zeros(self.n_images)
        shift: NDArray[np.float64] = self._all_shifts.copy()
        for name in _fp32_layers(net):
            shift -= self._shifts[name]
        return shift

    def right(self, net: bytes) -> NDArray[np.bool_]:
        """Whether a candidate has each image right, of all batches."""
        if net not in self._right:
            right: NDArray[np.bool_] = self._margins + self._shift(net) > 0
            self._right[net] = right[: self.n_iterations * self.batch]
        return self._right[net]

    def by_image(self, net: bytes, numbers: NDArray[np.int_]) -> ByImage:
        """What a candidate says of each of these images; the margins are those of FP32."""
        margins = self._margins[numbers].astype(np.float32)
        return ByImage(np.arange(len(numbers), dtype=np.int32), self.right(net)[numbers], margins)

    def distance(self, net: bytes, numbers: NDArray[np.int_]) -> float:
        """Of the output from FP32's: the mean square of the shifts of these images."""
        return float(np.mean(self._shift(net)[numbers] ** 2))

    def _numbers(self, iteration: int, images: NDArray[np.int32] | None) -> NDArray[np.int_]:
        """Of the images in an iteration, of the data or of batches of `images`."""
        if images is None:
            return np.arange(iteration * self.batch, (iteration + 1) * self.batch)
        return np.asarray(images[iteration][images[iteration] >= 0], np.int_)

    # What a search asks of a net: Programs.

    @cached_property
    def start(self) -> Candidate:
        """Every layer INT8."""
        return Space(tuple(self.work), self.needs).all_int8

    @property
    def outputs(self) -> tuple[Blob, ...]:
        """The margins stand for them."""
        return LOGITS

    def spec(self, candidate: Candidate) -> NetSpec:
        """A candidate by its FP32 layers."""
        return NetSpec(",".join(candidate.fp32_layers).encode(), self.name)

    def plain(self, candidate: Candidate) -> NetSpec:
        """The same."""
        return self.spec(candidate)

    def of(self, calibration: Calibration) -> "SimulatedNet":
        """The same: it has no scales."""
        return self

    def fp32(self, ranked: tuple[int, ...] = ()) -> NetSpec:
        """The net that is not quantized, which hands out its output of the iterations `ranked`."""
        return NetSpec(ALL_FP32, self.name, kept=Kept(LOGITS, ranked), by_image=METRIC)

    def fp32_outputs(self) -> NetSpec:
        """The same, handing out its output."""
        return NetSpec(ALL_FP32, self.name, outputs=Outputs(LOGITS))

    def ranking(self, layers: Sequence[str], share: bool) -> Plan:
        """By layer the smallest candidate in which it is INT8; as many cuts as a residual net has."""
        made = {layer: self.spec(self.start.space.smallest(layer)) for layer in layers}
        begins = {layer: self._begin(spec.net) / len(self.work) for layer, spec in made.items()}
        n_cuts = len(self.work) // FEWEST if share else 0
        return Plan.ordered(NetSpec(ALL_FP32, self.name), (LOGITS,) * n_cuts, made, begins)

    def can_be_of(self, n: int) -> bool:
        """A smaller batch does."""
        return True

    def _begin(self, net: bytes) -> int:
        """The place of the first layer in INT8."""
        fp32 = _fp32_layers(net)
        return next(place for place, layer in enumerate(self.work) if layer not in fp32)

    def without_kernel(self, spec: NetSpec, found: Sequence[Row]) -> tuple[str, ...]:
        """None."""
        return ()

    # What an actor does with it: Engine.

    def compile_seconds(self, spec: object) -> float:
        """A ranking is compiled where it is loaded."""
        return 0.0 if isinstance(spec, RankSpec) else self.times.compile_seconds

    def load_seconds(self, spec: object) -> float:
        """A ranking compiles the FP32 net and, of each candidate, parts of it or a few layers."""
        if not isinstance(spec, RankSpec):
            return self.times.import_seconds
        if spec.stacked:
            return self.times.compile_seconds * (1.0 + OWN_LAYERS * len(spec.candidates) / len(self.work))
        own = OWN_PARTS * len(spec.candidates) / (len(spec.cuts) + 1)
        return self.times.compile_seconds * (1.0 + own)

    def run(self, spec: object, iterations: Sequence[int]) -> tuple[Sequence[object], float]:
        """Rows as a NetWorker gives them, and how long it would take for them."""
        if isinstance(spec, RankSpec):
            nets = {name: one.net for name, one in spec.candidates.items()}
            begins = [self._begin(net) if spec.cuts or spec.stacked else 0 for net in nets.values()]
            seconds = self.iteration_seconds(spec.base.net, end=max(begins))
            seconds += sum(map(self.iteration_seconds, nets.values(), begins))
            rows = [self._numbers(i, spec.images) for i in iterations]
            ranked = [{name: self.distance(net, numbers) for name, net in nets.items()} for numbers in rows]
            share = sum(map(len, rows)) / self.batch
            return [Row({}, (), None, distances=distances) for distances in ranked], share * seconds
        assert isinstance(spec, NetSpec), "a net has no other programs"
        seconds = len(iterations) * self.iteration_seconds(spec.net)
        given = dict.fromkeys(LOGITS, np.zeros((self.batch, 1), np.float32))
        if spec.outputs is not None:
            return [Row({}, (), None, given) for _ in iterations], seconds
        right, kept = self.right(spec.net), () if spec.kept is None else spec.kept.iterations
        found = []
        for i in iterations:
            numbers = self._numbers(i, spec.images)
            score = Partial(int(np.count_nonzero(right[numbers])), len(numbers), len(numbers))
            said = self.by_image(spec.net, numbers) if spec.by_image else None
            found.append(Row({METRIC: score}, (), None, given if i in kept else {}, by_image=said))
        return found, seconds

    def iteration_seconds(self, net: bytes, begin: int = 0, end: int | None = None) -> float:
        """One batch through the layers from place `begin` to before `end`; a layer takes its share of the work."""
        fp32 = self.work.keys() if net == ALL_FP32 else _fp32_layers(net)
        total, times = sum(self.work.values()), self.times
        part = list(self.work)[begin:end]
        return sum(
            self.work[name]
            / total
            * self.batch
            / (times.fp32_images_per_second if name in fp32 else times.int8_images_per_second)
            for name in part
        )


def _fp32_layers(net: bytes) -> list[str]:
    return net.decode().split(",") if net else []


def resnet50_work() -> tuple[dict[str, int], dict[str, frozenset[str]]]:
    """Multiply-adds of the 53 convolutions, as Caffe's names go, and which sum needs which residual to be INT8."""
    work, needs = {"conv1": 112 * 112 * 7 * 7 * 3 * 64}, dict[str, frozenset[str]]()
    channels, residual = 64, ""
    for stage, (n_blocks, width, size) in enumerate([(3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)], 2):
        for block in range(n_blocks):
            name = f"res{stage}{chr(ord('a') + block)}_branch"
            if block == 0:
                work[f"{name}1"] = size * size * channels * 4 * width
                residual = f"{name}1"
            work[f"{name}2a"] = size * size * channels * width
            work[f"{name}2b"] = size * size * width * width * 9
            work[f"{name}2c"] = size * size * width * 4 * width
            needs[f"{name}2c"] = frozenset({residual})
            residual, channels = f"{name}2c", 4 * width
    return work, needs


def ssd_vgg16_work() -> dict[str, int]:
    """Multiply-adds of the 35 convolutions of SSD300 with 21 classes."""
    convs: list[tuple[str, int, int, int, int]] = []  # name, size of the output, kernel, channels in and out
    channels = 3
    for stage, (n_convs, width, size) in enumerate([(2, 64, 300), (2, 128, 150), (3, 256, 75), (3, 512, 38)], 1):
        for i in range(n_convs):
            convs.append((f"conv{stage}_{i + 1}", size, 3, channels, width))
            channels = width
    convs += [(f"conv5_{i}", 19, 3, 512, 512) for i in (1, 2, 3)]
    convs += [("fc6", 19, 3, 512, 1024), ("fc7", 19, 1, 1024, 1024)]
    extras = [(6, 19, 10, 1024, 256, 512), (7, 10, 5, 512, 128, 256), (8, 5, 3, 256, 128, 256)]
    extras.append((9, 3, 1, 256, 128, 256))
    for stage, before, after, n_in, middle, n_out in extras:
        convs += [(f"conv{stage}_1", before, 1, n_in, middle), (f"conv{stage}_2", after, 3, middle, n_out)]
    heads = [("conv4_3", 38, 512, 4), ("fc7", 19, 1024, 6), ("conv6_2", 10, 512, 6), ("conv7_2", 5, 256, 6)]
    for source, size, n_in, n_boxes in [*heads, ("conv8_2", 3, 256, 4), ("conv9_2", 1, 256, 4)]:
        convs += [(f"{source}_loc", size, 3, n_in, 4 * n_boxes), (f"{source}_conf", size, 3, n_in, 21 * n_boxes)]
    return {name: size * size * kernel * kernel * n_in * n_out for name, size, kernel, n_in, n_out in convs}
