"""A drawn sample tells what all images lose, as often as promised, whatever the data is sorted by."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from distcalib.metrics import ByImage, Decider, Drawing, Hits, Partial, drawn
from tests.every import every

BATCH, N = 50, 60
N_IMAGES = BATCH * N


def margins_of(seed: int, is_sorted: bool = False) -> NDArray[np.float32]:
    """Sorted ones begin elsewhere with each seed, for all nets of so many images are drawn by the same numbers."""
    margins = np.random.default_rng([seed, 1]).normal(0.8, 1.0, N_IMAGES)
    return (np.roll(np.sort(margins), 37 * seed) if is_sorted else margins).astype(np.float32)


def said(margins: NDArray[np.float32]) -> list[ByImage]:
    rows = np.arange(BATCH, dtype=np.int32)
    return [ByImage(rows, part > 0, part) for part in margins.reshape(-1, BATCH)]


def scored(drawing: Drawing, right: NDArray[np.bool_]) -> dict[int, Hits]:
    """What a candidate says of each batch, by image."""
    batches = [right[batch[batch >= 0]] for batch in drawing.images]
    return {i: Hits(int(hits.sum()), len(hits), len(hits), hits.tobytes()) for i, hits in enumerate(batches)}


def test_drawn_has_each_image_once_and_doubtful_ones_sooner() -> None:
    margins = margins_of(0)
    short = [*said(margins)[:-1], ByImage(np.arange(7, dtype=np.int32), np.ones(7, bool), np.ones(7, np.float32))]
    drawing = drawn(short, BATCH)
    numbers = [int(number) for number in drawing.images.ravel() if number >= 0]
    assert sorted(numbers) == list(range(N_IMAGES - BATCH + 7))
    assert len(numbers) == drawing.n_images
    assert drawing.reference[-1] == Partial(drawing.reference[-1].numerator, 7, 7)
    assert every(0.2 <= rate <= 1.0 for rate in drawing.rates)
    assert np.median(np.abs(margins[numbers[:300]])) < 0.75 * np.median(np.abs(margins))
    assert drawn(short, BATCH).images.tobytes() == drawing.images.tobytes()


def test_drawn_does_not_mind_margins_that_tell_nothing() -> None:
    for value in (0.0, np.inf, -np.inf):
        drawing = drawn(said(np.full(N_IMAGES, value, np.float32)), BATCH)
        assert np.isfinite(list(drawing.times.values())).all()
        values = scored(drawing, np.full(N_IMAGES, value > 0))
        assert drawing.loss(values, drawing.looks[0])[0] == 0.0


def test_drawn_is_the_same_sample_at_each_look_as_one_by_one() -> None:
    """What is behind a look was drawn later than what is before it, and between two all lies as in the data."""
    margins = margins_of(1)
    drawing = drawn(said(margins), BATCH)
    uniform = np.random.default_rng(0).random(N_IMAGES)
    times = uniform[drawing.images.ravel()] / drawing.rates
    assert len(drawing.looks) > 4
    for look in drawing.looks:
        assert times[: look * BATCH].max() < drawing.times[look] == times[look * BATCH :].min()
    for begin, end in pairwise((0, *drawing.looks, N)):
        numbers = drawing.images[begin:end].ravel()
        assert (np.diff(numbers) > 0).all()


@pytest.mark.parametrize("n_actors", [1, 2, 5, 90])
def test_homes_give_a_batch_to_an_actor_that_has_met_its_images(n_actors: int) -> None:
    drawing = drawn(said(margins_of(2)), BATCH)
    homes = drawing.homes(range(N), n_actors)
    assert sorted(batch for home in homes for batch in home) == list(range(N))
    assert every(home == sorted(home) for home in homes)
    if n_actors == 1:
        return
    met = np.repeat([(i + 1) * n_actors - 1 for i in range(N)], BATCH) // N  # the actor of each image
    at_home = sum(
        int(np.count_nonzero(met[drawing.images[batch]] == actor)) for actor, home in enumerate(homes) for batch in home
    )
    assert at_home >= {2: 0.9, 5: 0.7, 90: 0.1}[n_actors] * N_IMAGES
    assert max(map(len, homes)) <= 1.25 * N / n_actors + 3  # what is one too many, others take


@pytest.mark.parametrize("is_sorted", [False, True])
def test_loss_is_unbiased_and_its_error_is_right(is_sorted: bool) -> None:
    """Over many candidates and nets: in units of its error the estimate is off by a standard normal number."""
    off = []
    for seed in range(300):
        random = np.random.default_rng([seed, 2])
        margins = margins_of(seed, is_sorted)
        drawing = drawn(said(margins), BATCH)
        right = margins + random.normal(-0.05, 0.3, N_IMAGES) > 0
        loss, error, n_flips = drawing.loss(scored(drawing, right), drawing.looks[3])
        assert n_flips > 20
        off.append((loss - float(np.mean(margins > 0) - np.mean(right))) / error)
    assert abs(np.mean(off)) < 3 / np.sqrt(300)
    assert 0.8 < np.std(off) < 1.1


def test_loss_of_all_images_is_exact() -> None:
    margins = margins_of(3)
    drawing = drawn(said(margins), BATCH)
    right = np.random.default_rng(4).random(N_IMAGES) < 0.7
    loss, error, _ = drawing.loss(scored(drawing, right), len(drawing))
    assert loss == pytest.approx(float(np.mean(margins > 0) - np.mean(right)), abs=1e-12)
    assert error == 0.0


@cache
def measured(seed: int, is_sorted: bool) -> tuple[Drawing, dict[int, Hits], float]:
    """A drawing, a candidate on all batches, and its drop."""
    margins = margins_of(seed, is_sorted)
    drawing = drawn(said(margins), BATCH)
    right = margins + np.random.default_rng([seed, 3]).normal(-0.08, 0.3, N_IMAGES) > 0
    values = scored(drawing, right)
    return drawing, values, Decider(drawing.reference, 0.0).drop([values[i] for i in range(N)])


@pytest.mark.parametrize("is_sorted", [False, True])
@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_verdicts_at_the_tolerance_err_no_more_often_than_asked(
    confidence: float, above: bool, is_sorted: bool
) -> None:
    """The tolerance is the very drop, or a hair less: nothing is harder to tell."""
    n_wrong, n_runs = 0, 300
    for seed in range(n_runs):
        drawing, values, drop = measured(seed, is_sorted)
        decider = Decider(drawing.reference, drop - 1e-6 if above else drop, confidence=confidence, drawing=drawing)
        found = decider.decide(values)
        n_wrong += found is above  # above the tolerance it should not meet it
    assert n_wrong <= (1 - confidence) * n_runs


def test_verdicts_come_early_and_do_not_depend_on_what_else_was_measured() -> None:
    margins = margins_of(5)
    drawing = drawn(said(margins), BATCH)
    right = margins + np.random.default_rng(5).normal(-0.5, 0.4, N_IMAGES) > 0
    values = scored(drawing, right)
    decider = Decider(drawing.reference, 0.005, confidence=0.999, drawing=drawing)
    assert decider.order == tuple(range(N))
    length = next(k for k in range(N + 1) if decider.decide({i: values[i] for i in range(k)}) is not None)
    assert length in drawing.looks
    assert length <= 0.2 * N
    assert decider.decide(values) is False
    beginning = {i: values[i] for i in range(length)}
    assert decider.likely_drop(values) == decider.likely_drop(beginning)
    assert decider.likely_drop(values) == pytest.approx(float(np.mean(margins > 0) - np.mean(right)), rel=0.5)


def test_a_sample_in_which_nothing_flips_proves_little() -> None:
    margins = margins_of(6)
    drawing = drawn(said(margins), BATCH)
    decider = Decider(drawing.reference, 0.0001, confidence=0.9, drawing=drawing)
    same = scored(drawing, margins > 0)
    assert decider.decide({i: same[i] for i in range(N // 2)}) is None


def test_what_is_certain_before_the_first_look_is_told_as_what_was_seen() -> None:
    drawing = drawn(said((np.abs(margins_of(7)) + 0.01).astype(np.float32)), BATCH)  # FP32 has all right
    decider = Decider(drawing.reference, 0.005, confidence=0.999, drawing=drawing)
    first = {0: scored(drawing, np.zeros(N_IMAGES, bool))[0]}
    assert decider.decide(first) is False
    assert drawing.looks[0] > 1
    assert decider.likely_drop(first) == 1.0
