"""The simulation finds what was planted, on any number of actors, in as much time as the work takes."""

import xml.etree.ElementTree
from dataclasses import replace
from typing import Any

import pytest

from distcalib.calibration.options import CalibrationOptions
from distcalib.calibration.search_driver import Switches
from distcalib.calibration.search_path import SearchPath
from distcalib.calibration.search_price import estimates
from distcalib.engine.ranking import RankSpec
from distcalib.errors import EngineError
from distcalib.session.progress import Silent
from scripts.simulate.scaling_plot import plot
from scripts.simulate.simulate import ACTORS, Simulated, SimulatedSession, begun, resnet50, simulate, ssd_vgg16
from scripts.simulate.simulated_net import METRIC, OWN_LAYERS, SimulatedNet, Times, resnet50_work, ssd_vgg16_work
from tests.every import every

WORK = {f"conv{i}": 1000 * (i + 1) for i in range(8)}
NET = SimulatedNet(
    name="small",
    work=WORK,
    times=Times(fp32_images_per_second=20.0, int8_images_per_second=80.0, compile_seconds=1.0, import_seconds=0.25),
    n_images=1000,
    batch=50,
    hard={"conv2": 0.06, "conv5": 0.08},
)
TOLERANCE = 0.03


def small(n_actors: int, confidence: float | None = None, switches: Switches | None = None) -> Simulated:
    return simulate(NET, n_actors, confidence, switches, TOLERANCE)


@pytest.mark.parametrize("confidence", [None, 0.99], ids=["exact", "confidence"])
@pytest.mark.parametrize("n_actors", [1, 64])
def test_simulate_finds_the_planted_layers(n_actors: int, confidence: float | None) -> None:
    found = small(n_actors, confidence)
    assert found.winner.fp32_layers == tuple(NET.hard)
    assert found.minimal


@pytest.mark.parametrize("confidence", [None, 0.99], ids=["exact", "confidence"])
@pytest.mark.parametrize(
    ("n_actors", "switches"),
    [
        (64, Switches()),
        (3, Switches()),
        (2, Switches(share_parts=False)),
        (2, Switches(stop_early=False)),
        (64, Switches(look_ahead=False)),
    ],
    ids=["64", "3", "no_shared_parts", "no_early_stop", "no_look_ahead"],
)
def test_simulate_goes_one_path_whatever_helps(n_actors: int, switches: Switches, confidence: float | None) -> None:
    expected, found = small(1, confidence), small(n_actors, confidence, switches)
    assert list(found.answered.items()) == list(expected.answered.items())


def test_simulate_measures_no_further_what_is_not_asked_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    hard = {name: 0.75 * cost for name, cost in resnet50().hard.items()}
    net = replace(resnet50(), n_images=5000, hard=hard, hard_spread=0.08, seed=3)  # its first guesses are far off
    found = simulate(net, 128)
    monkeypatch.setattr(SearchPath, "may_ask", lambda *_: True)
    to_the_end = simulate(net, 128)
    assert found.seconds < 0.95 * to_the_end.seconds
    assert list(found.answered.items()) == list(to_the_end.answered.items())


def test_a_candidate_that_a_round_has_completed_is_whole_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    options = CalibrationOptions(iterations=NET.n_iterations, accuracy_loss=TOLERANCE, strategy="greedy")
    searching = begun(NET, SimulatedSession(NET, 2, 0.0), options)
    go_on, board = SearchPath.go_on, searching.board

    def interrupt(self: SearchPath, *known: Any) -> None:
        go_on(self, *known)
        if sum(board.n_measured(one) == board.n_iterations for one in board._values) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(SearchPath, "go_on", interrupt)
    monkeypatch.setattr(SimulatedNet, "without_kernel", lambda *_: ("conv7",))
    with pytest.raises(KeyboardInterrupt):
        searching.run()
    result = searching.interrupted(None, "SIGINT")
    assert result is not None
    assert (result.without_int8_kernel, result.shares[result.winner]) == (("conv7",), 1.0)


class WithoutConv3(SimulatedNet):
    """A net that cannot be compiled in parts with conv3 in INT8."""

    def load_seconds(self, spec: object) -> float:
        if isinstance(spec, RankSpec) and "conv3" in spec.candidates:
            raise EngineError("conv3: has no kernel")
        return super().load_seconds(spec)


@pytest.mark.parametrize("n_actors", [3, 16, 64])
@pytest.mark.parametrize("compile_seconds", [0.01, 3.0])
def test_simulate_goes_one_path_where_a_part_of_a_ranking_fails(n_actors: int, compile_seconds: float) -> None:
    times = replace(NET.times, compile_seconds=compile_seconds)
    net = WithoutConv3("small", WORK, times, NET.n_images, NET.batch, NET.hard)
    expected, found = (simulate(net, n, tolerance=TOLERANCE) for n in (1, n_actors))
    assert list(found.answered.items()) == list(expected.answered.items())
    assert found.distances == expected.distances
    infinite = [name for name, one in found.distances.items() if one == float("inf")]
    assert infinite == ["conv3"], "not those that stood beside it"


def test_the_user_is_told_which_layer_cannot_be_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda self, text: notes.append(text))
    simulate(WithoutConv3("small", WORK, NET.times, NET.n_images, NET.batch, NET.hard), 3, tolerance=TOLERANCE)
    told = [note for note in notes if "alone in INT8" in note]
    assert told[0] == "'conv3' alone in INT8 cannot be run: conv3: has no kernel"
    assert len(told) == 1, "of the others none does most"


def test_simulate_takes_the_sum_of_the_work_on_one_actor() -> None:
    """All that the driver does beside it takes no time then."""
    found = simulate(NET, 1, tolerance=TOLERANCE, task_seconds=0.0)
    assert found.seconds == pytest.approx(found.busy_seconds)
    assert found.cost_passes * 1000 * (1 / 20 + 1 / 80) == pytest.approx(found.busy_seconds)


def test_simulate_pays_the_driver_for_every_task() -> None:
    costly = simulate(NET, 1, tolerance=TOLERANCE, task_seconds=1.0)
    assert costly.seconds > costly.busy_seconds + 10


def test_simulate_is_the_faster_the_more_actors() -> None:
    seconds = [small(n).seconds for n in (1, 2, 4, 8)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] / 8 < seconds[-1] < seconds[0] / 4


def test_confidence_stops_on_many_actors_nearly_as_early_as_on_one() -> None:
    """A verdict looks at the first so many of a fixed order, so these must come back first whoever measures them."""
    net = replace(resnet50(), n_images=10_000)
    alone, many = (simulate(net, n, 0.999, Switches(look_ahead=False)) for n in (1, 8))
    assert many.cost_passes < 1.15 * alone.cost_passes


@pytest.mark.slow
def test_simulated_resnet50_costs_what_is_promised() -> None:
    """At most 1.9 passes exact for 5 of 53 layers, 2.6 in natural order, and 1.5 with a confidence."""
    net = resnet50()
    exact, sure = simulate(net, 1), simulate(net, 1, 0.999)
    assert exact.winner.fp32_layers == sure.winner.fp32_layers == tuple(net.hard)
    assert exact.cost_passes <= 1.9
    natural = simulate(net, 1, switches=Switches(hard_first=False))
    assert natural.path() == exact.path()
    assert 2.0 <= natural.cost_passes <= 2.6
    assert sure.cost_passes <= 1.5
    others = [simulate(net, 1, strategy=name) for name in ("topological", "greedy")]
    assert every(exact.cost_passes <= other.cost_passes / 5 for other in others)
    assert every(len(exact.winner.fp32_layers) <= len(other.winner.fp32_layers) for other in others)


def test_works_are_those_of_the_nets() -> None:
    work, needs = resnet50_work()
    assert len(work) == 53
    assert sum(work.values()) == pytest.approx(3.86e9, rel=0.01)
    assert needs["res2c_branch2c"] == {"res2b_branch2c"}
    assert needs["res3a_branch2c"] == {"res3a_branch1"}
    assert len(ssd_vgg16_work()) == 35
    assert sum(ssd_vgg16_work().values()) == pytest.approx(31.4e9, rel=0.01)


@pytest.mark.parametrize("net", [NET, resnet50(), ssd_vgg16()], ids=lambda net: net.name)
def test_simulated_net_is_as_right_as_it_says(net: SimulatedNet) -> None:
    def accuracy(spec_net: bytes) -> float:
        return float(net.right(spec_net).mean())

    fp32 = accuracy(net.fp32().net)
    assert fp32 == pytest.approx(net.fp32_accuracy, abs=0.02)
    easy = net.start.without(*net.hard)
    assert fp32 - accuracy(net.spec(easy).net) < 0.01
    for layer, candidate in easy.returns.items():
        lost = accuracy(net.spec(easy).net) - accuracy(net.spec(candidate).net)
        assert net.hard[layer] - 0.01 < lost < net.hard[layer] + 0.03


@pytest.mark.parametrize("n_actors", [1, 2])
def test_what_is_known_to_meet_is_measured_to_its_end_where_only_that_is_left_to_do(n_actors: int) -> None:
    """One hard layer: the set that meets is the winner at once, for all INT8 is all that it could return to."""
    net = replace(NET, n_images=10_000, hard={"conv5": 0.08})
    found = simulate(net, n_actors, 0.99, Switches(look_ahead=False), TOLERANCE)
    assert found.winner.fp32_layers == ("conv5",)
    times, n_layers = net.times, len(WORK)
    ranking = times.compile_seconds * (1.0 + OWN_LAYERS) + n_layers * 35 / times.fp32_images_per_second
    passes = net.n_images * (1.1 / times.fp32_images_per_second + 1.0 / times.int8_images_per_second)
    once = 2 * (times.compile_seconds + n_actors * times.import_seconds)  # all INT8, and the winner
    a_part = 0.2 * net.n_images / times.int8_images_per_second
    assert found.busy_seconds < passes + a_part + ranking + once


@pytest.mark.parametrize("confidence", [None, 0.999], ids=["exact", "confidence"])
def test_an_estimate_takes_few_images_and_is_about_right(confidence: float | None) -> None:
    net = replace(resnet50(), n_images=10_000)
    options = CalibrationOptions(iterations=net.n_iterations, accuracy_loss=0.005, confidence=confidence)
    session = SimulatedSession(net, 2, 0.0)
    searching = begun(net, session, options)
    first, hard = net.start, net.start.without(*net.hard)
    some = net.start.without(*list(net.hard)[:3])
    [expected] = searching.losses("the start", [first])
    unit, before = searching.meter.unavoidable, searching.meter.passes
    assert before is not None
    known, missing, meets = estimates(searching, "what they lose", [first, some, hard])
    assert known == expected, "it was measured before"
    fp32 = float(net.right(net.fp32().net).mean())
    assert missing.about
    assert missing.drop == pytest.approx(fp32 - float(net.right(net.spec(some).net).mean()), rel=0.35)
    assert not meets.about
    assert meets.drop == pytest.approx(fp32 - float(net.right(net.spec(hard).net).mean()), abs=1e-9)
    assert searching.meter.unavoidable == unit, "the unit of the cost is measured once"
    searching.meter.settle()
    spent = ((searching.meter.passes or 0.0) - before) * unit
    assert spent < 10 + 1.3 * net.n_images / net.times.int8_images_per_second + 0.1 * net.n_images / 22.0
    assert list(searching.board.answered) == [], "no strategy learns of it"


def test_simulated_net_takes_the_time_of_its_layers() -> None:
    assert NET.iteration_seconds(NET.fp32().net) == pytest.approx(50 / 20)
    assert NET.iteration_seconds(NET.spec(NET.start).net) == pytest.approx(50 / 80)
    assert NET.iteration_seconds(NET.spec(NET.start).net, begin=8) == 0.0
    [row], seconds = NET.run(NET.fp32(), [3])
    assert seconds == pytest.approx(50 / 20)
    assert row.scores[METRIC].denominator == 50  # type: ignore[attr-defined]


def test_plot_is_an_svg_with_a_line_for_each_curve() -> None:
    curve = [1000.0 / n for n in ACTORS]
    drawn = xml.etree.ElementTree.fromstring(
        plot(ACTORS, {"one": {"ideal": curve}, "two": {"ideal": curve, "b": curve}})
    )
    assert sum(element.tag.endswith("polyline") for element in drawn.iter()) == 3
