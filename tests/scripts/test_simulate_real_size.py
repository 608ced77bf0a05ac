"""The nets of real size are simulated with their own layers, and what was planted in them is found."""

import pytest

from scripts.bench.real_nets import NETS
from scripts.simulate.simulate import simulate
from scripts.simulate.simulate_real_size import BATCH, MEASURED, N_IMAGES, simulated, work_of
from scripts.simulate.simulated_net import ssd_vgg16_work


def test_work_of_is_that_of_the_net_that_was_counted_by_hand() -> None:
    assert sorted(work_of("ssd300-vgg16").values()) == sorted(ssd_vgg16_work().values())


@pytest.mark.parametrize(
    ("name", "billions"), [("ssd300-vgg16", 31.4), ("ssd300-mobilenet", 1.15), ("yolo-v2-416", 14.7)]
)
def test_work_of_has_the_multiply_adds_that_are_published(name: str, billions: float) -> None:
    assert sum(work_of(name).values()) / 1e9 == pytest.approx(billions, rel=0.03)


def test_measured_are_the_detectors() -> None:
    assert set(MEASURED) == {name for name, make in NETS.items() if make().detects}


@pytest.mark.slow
@pytest.mark.parametrize("n_actors", [16, 256])
def test_simulated_finds_the_three_layers(n_actors: int) -> None:
    net = simulated("ssd300-mobilenet")
    assert net.n_iterations == N_IMAGES // BATCH
    found = simulate(net, n_actors)
    assert found.winner == net.start.without(*net.hard)
    assert found.minimal
