"""A ranking is of the candidates' own outputs, whatever they share; it needs no actors."""

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from distcalib.caffe import caffe_pb2
from distcalib.caffe.graph import Blob, build_graph
from distcalib.calibration.candidate_net import deliver
from distcalib.engine.checking import checked_shapes
from distcalib.engine.net import Net, open_net
from distcalib.engine.ranking import Plan, RankSpec, can_be_of, distance, planned
from distcalib.engine.ranking_split import Most, Pace, divided
from distcalib.engine.spec import NetSpec, Outputs
from distcalib.engine.worker import NetWorker, Setting
from distcalib.quantize.fusion import find_fused, in_run_order
from distcalib.quantize.options import Options
from distcalib.quantize.quantizer import Quantizer
from distcalib.quantize.ranges import Range
from distcalib.quantize.scales import Calibration
from tests.session.tiny import make_tiny

LOGITS = (Blob("fc", 0),)
ITERATIONS = (0, 3, 4)
SLOW_TO_COMPILE, SLOW_TO_RUN = Pace(1.0, 0.1), Pace(0.1, 1.0)
Reference = dict[int, tuple[NDArray[np.float32], ...]]


pytestmark = pytest.mark.usefixtures("small_parts")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[Net, NetWorker, dict[str, NetSpec]]:
    """The tiny net, a worker, and by name its all-INT8 candidate "" and each with one layer in FP32."""
    made = make_tiny(tmp_path_factory.mktemp("tiny"))
    net = open_net(made.prototxt)
    weights = net.weights(made.weights)
    quantizer = Quantizer(net.graph, Options())
    ranges = {blob: Range(-2.0, 2.0 + i) for i, blob in enumerate(quantizer.observed)}
    calibration = Calibration(quantizer, ranges, weights)
    start = quantizer.space.all_int8
    specs = {layer: deliver(net, calibration, start.without(layer)).spec() for layer in start.int8_layers}
    specs[""] = deliver(net, calibration, start).spec()
    worker = NetWorker(Setting(made.prototxt, weights, "net.caffemodel", {}), 1)
    return net, worker, specs


def outputs(worker: NetWorker, net: Net, spec: NetSpec) -> Reference:
    """The logits by the way that values are handed out."""
    whole = NetSpec(spec.net, spec.where, changed=spec.changed, outputs=Outputs(LOGITS))
    worker.load("whole", worker.compile(whole))
    return {i: (row.values[LOGITS[0]],) for i, row in zip(ITERATIONS, worker.run("whole", ITERATIONS), strict=True)}


def ranked(
    worker: NetWorker,
    plan: Plan,
    reference: Reference,
    n_actors: int,
    pace: Pace = SLOW_TO_COMPILE,
) -> dict[str, dict[int, float]]:
    """The distances by name and iteration, from the pieces for so many actors."""
    found: dict[str, dict[int, float]] = {}
    for piece in divided(plan, ITERATIONS, n_actors, Most(100, 100), pace):
        some = {i: reference[i] for i in piece.iterations}
        spec = RankSpec(piece.candidates, LOGITS, some, (1.0,), plan.base, plan.cuts)
        worker.load("rank", worker.compile(spec))
        for i, row in zip(piece.iterations, worker.run("rank", piece.iterations), strict=True):
            assert row.distances.keys() == piece.candidates.keys()
            for name, one in row.distances.items():
                assert i not in found.setdefault(name, {})
                found[name][i] = one
        worker.drop("rank")
    return found


@pytest.mark.parametrize("share", [True, False])
def test_ranking_is_the_distance_of_each_candidates_outputs(
    net: tuple[Net, NetWorker, dict[str, NetSpec]], share: bool
) -> None:
    base, worker, specs = net
    reference = outputs(worker, base, base.spec())
    by_iteration = ranked(worker, planned(base.spec(), specs, LOGITS, share), reference, 1)
    found = {name: float(np.mean([values[i] for i in ITERATIONS])) for name, values in by_iteration.items()}
    assert found.keys() == specs.keys()
    for name, spec in specs.items():
        whole = outputs(worker, base, spec)
        expected = np.mean([distance(whole[i], reference[i]) for i in ITERATIONS])
        assert found[name] == pytest.approx(expected, rel=1e-3)
    assert found["conv3"] < found[""] / 2


@pytest.mark.parametrize("n_actors", [4, 7, 1000])
@pytest.mark.parametrize("pace", [SLOW_TO_COMPILE, SLOW_TO_RUN])
def test_ranking_is_the_same_to_the_bit_in_any_pieces(
    net: tuple[Net, NetWorker, dict[str, NetSpec]], n_actors: int, pace: Pace
) -> None:
    base, worker, specs = net
    reference = outputs(worker, base, base.spec())
    plan = planned(base.spec(), specs, LOGITS)
    assert ranked(worker, plan, reference, n_actors, pace) == ranked(worker, plan, reference, 1)


@pytest.mark.parametrize("n_images", [8, 3, 1])
def test_ranking_takes_images_out_of_their_batches(
    net: tuple[Net, NetWorker, dict[str, NetSpec]], n_images: int
) -> None:
    base, worker, specs = net
    first, last = ITERATIONS[0], ITERATIONS[-1]
    whole = {name: outputs(worker, base, spec) for name, spec in {**specs, "fp32": base.spec()}.items()}
    batch = len(whole["fp32"][first][0])
    numbers = np.array([[last * batch + 1, first * batch] * batch], np.int32)[:, :n_images]
    mixed = {name: np.array([made[n // batch][0][n % batch] for n in numbers[0]]) for name, made in whole.items()}
    plan = planned(base.spec(), specs, LOGITS)
    spec = RankSpec(plan.candidates, LOGITS, {0: (mixed["fp32"],)}, (1.0,), plan.base, plan.cuts, numbers)
    worker.load("rank", worker.compile(spec))
    [row] = worker.run("rank", [0])
    worker.drop("rank")
    for name, one in row.distances.items():
        assert one == pytest.approx(distance([mixed[name]], [mixed["fp32"]]), rel=1e-3)


RESHAPED = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 8 dim: 6 } } }
layer { name: "shape" type: "Reshape" bottom: "x" top: "y" reshape_param { shape { dim: FIRST dim: 2 dim: 3 } } }
layer { name: "fc" type: "InnerProduct" bottom: "y" top: "fc" inner_product_param { num_output: 2 } }
"""


@pytest.mark.parametrize(("first", "can_be"), [("0", True), ("-1", True), ("8", False), ("4 dim: 2", False)])
def test_a_net_that_tells_its_batch_can_be_of_no_other(first: str, can_be: bool) -> None:
    made = text_format.Parse(RESHAPED.replace("FIRST", first), caffe_pb2.NetParameter())
    graph = build_graph(made.layer, "net")
    shapes = {Blob("x", 0): (8, 6), **checked_shapes(graph, {"x": (8, 6)}, "net")}
    assert can_be_of(graph, shapes, 3, "net") is can_be


def test_candidates_stand_in_the_order_of_where_they_begin_to_differ(
    net: tuple[Net, NetWorker, dict[str, NetSpec]],
) -> None:
    base, _, specs = net
    plan = planned(base.spec(), specs, LOGITS)
    assert plan.candidates == specs
    assert list(plan.begins) == list(plan.candidates)
    assert list(plan.begins.values()) == sorted(plan.begins.values())
    order = [node.name for node, _ in in_run_order(base.graph, find_fused(base.graph))]
    assert plan.begins[""] == plan.begins["conv4"] == order.index("conv2_relu") / len(order)


def test_without_sharing_a_candidate_is_computed_from_the_data_on(
    net: tuple[Net, NetWorker, dict[str, NetSpec]],
) -> None:
    base, _, specs = net
    assert planned(base.spec(), specs, LOGITS, share=False).cuts == ()
    assert len(planned(base.spec(), specs, LOGITS).cuts) > 0


def test_distance_of_what_is_not_finite_is_infinite() -> None:
    good, bad = np.zeros(3, np.float32), np.array([0, np.inf, np.nan], np.float32)
    assert distance([bad], [good]) == float("inf")
    assert distance([good + 2], [good]) == 4.0
    assert distance([good + 2, good], [good, good + 1]) == 5.0
