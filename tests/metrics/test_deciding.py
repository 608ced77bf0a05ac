"""Early answers are right: always where they are exact, as often as promised where they are statistical."""

import numpy as np
import pytest

from distcalib.metrics import Decider, Partial
from distcalib.metrics.deciding import _student, looks, spread

BATCH = 100


def counts(*right: int) -> list[Partial]:
    return [Partial(n, BATCH) for n in right]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("drop", [-0.01, 0.0, 0.004, 0.005, 0.006, 0.05, 0.5])
def test_decide_says_early_what_all_iterations_say(seed: int, drop: float) -> None:
    """In any order of the iterations, and never again something else."""
    random = np.random.RandomState(seed)
    n = int(random.randint(1, 40))
    fp32 = random.binomial(BATCH, 0.8, n)
    int8 = np.clip(fp32 - random.poisson(BATCH * abs(drop), n) * np.sign(drop), 0, BATCH).astype(int)
    decider = Decider(counts(*map(int, fp32)), 0.005)
    final = decider.drop(counts(*map(int, int8))) <= 0.005
    values: dict[int, Partial] = {}
    answers = []
    for i in random.permutation(n):
        values[int(i)] = Partial(int(int8[i]), BATCH)
        answers.append(decider.decide(values))
    known = [answer for answer in answers if answer is not None]
    assert known
    assert set(known) == {final}
    assert answers[-1] is final


def test_decide_stops_where_the_rest_cannot_help() -> None:
    decider = Decider(counts(80, 80, 80, 80), 0.04)
    assert decider.decide({0: Partial(4, BATCH)}) is None  # 4 + 300 would do
    assert decider.decide({0: Partial(0, BATCH)}) is False
    full = {0: Partial(100, BATCH), 1: Partial(100, BATCH), 2: Partial(100, BATCH)}
    assert decider.decide(full) is None  # 304 are needed
    assert decider.decide({**full, 3: Partial(4, BATCH)}) is True


@pytest.mark.parametrize(
    ("lost", "answer"),
    [
        pytest.param(0, True, id="nothing"),
        pytest.param(1, True, id="at_the_tolerance"),
        pytest.param(2, False, id="more"),
    ],
)
def test_decide_at_the_tolerance_is_exact(lost: int, answer: bool) -> None:
    decider = Decider(counts(90, 90), 0.005)
    assert decider.decide({0: Partial(90 - lost, BATCH), 1: Partial(90, BATCH)}) is answer


def test_decide_of_a_loss_stops_only_where_it_is_too_high() -> None:
    decider = Decider([Partial(0.5, 1)] * 4, 0.1, upper=None)
    assert decider.decide({0: Partial(2.3, 1)}) is None
    assert decider.decide({0: Partial(2.5, 1)}) is False
    assert decider.decide({0: Partial(0.0, 1), 1: Partial(0.0, 1), 2: Partial(0.0, 1)}) is None
    assert decider.decide({i: Partial(0.6, 1) for i in range(4)}) is True


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_decide_of_no_number_is_no(value: float) -> None:
    decider = Decider([Partial(0.5, 1)] * 4, 10.0, upper=None)
    assert decider.decide({0: Partial(value, 1)}) is False
    assert decider.decide({i: Partial(value, 1) for i in range(4)}) is False


@pytest.mark.parametrize("true_drop", [0.0, 0.012])
def test_decide_with_confidence_errs_seldom_and_ends_early(true_drop: float) -> None:
    """200 nets that lose or gain images at random; the tolerance lies between them."""
    n, confidence, wrong, used = 200, 0.99, 0, 0
    random = np.random.RandomState(7)
    fp32 = counts(*map(int, random.binomial(BATCH, 0.75, n)))
    for _ in range(200):
        lost = random.binomial(BATCH, 0.02 + true_drop, n) - random.binomial(BATCH, 0.02, n)
        int8 = [Partial(int(p.numerator) - int(d), BATCH) for p, d in zip(fp32, lost, strict=True)]
        decider = Decider(fp32, 0.006, confidence=confidence)
        truth = decider.drop(int8) <= 0.006
        assert decider.order is not None
        for stage in (*looks(n), n):
            answer = decider.decide({i: int8[i] for i in decider.order[:stage]})
            if answer is not None:
                break
        wrong += answer is not truth
        used += stage
    assert wrong <= 4
    assert used / 200 < 0.7 * n


def test_decide_with_confidence_does_not_depend_on_what_else_came_in() -> None:
    """A later iteration that is there already changes nothing: looks are at fixed beginnings of the order."""
    fp32 = counts(*[80] * 40)
    decider = Decider(fp32, 0.01, confidence=0.999)
    assert decider.order is not None
    beginning = {i: Partial(60 + i % 3, BATCH) for i in decider.order[:7]}
    assert decider.decide(beginning) is None
    assert decider.decide({**beginning, decider.order[39]: Partial(0, BATCH)}) is None
    eight = {**beginning, decider.order[7]: Partial(61, BATCH)}
    assert decider.decide(eight) is False


@pytest.mark.parametrize("seed", range(20))
def test_decide_with_confidence_depends_on_the_data_alone(seed: int) -> None:
    """However much more is known by then, in whatever order it came in: also where an early answer is wrong."""
    random = np.random.RandomState(seed)
    n = int(random.randint(9, 80))
    fp32, int8 = (counts(*map(int, random.binomial(BATCH, 0.7, n))) for _ in range(2))
    decider = Decider(fp32, 0.01 * float(random.uniform()), confidence=0.6)
    everything = dict(enumerate(int8))
    expected, loss = decider.decide(everything), decider.likely_drop(everything)
    assert expected is not None
    values: dict[int, Partial] = {}
    answered = False
    for i in random.permutation(n):
        values[int(i)] = int8[i]
        answer = decider.decide(values)
        answered = answered or answer is not None
        assert answer is (expected if answered else None)
        if answered:
            assert decider.likely_drop(values) == loss
    assert answered


def test_likely_drop_is_of_what_decided() -> None:
    fp32 = counts(*[80] * 40)
    sure = Decider(fp32, 0.01, confidence=0.999)
    assert sure.order is not None
    values = {i: Partial(60 if place < 8 else 80, BATCH) for place, i in enumerate(sure.order)}
    assert sure.decide(values) is False
    assert sure.likely_drop(values) == pytest.approx(0.2)
    assert Decider(fp32, 0.01).likely_drop(values) == pytest.approx(0.2 * 8 / 40)
    assert Decider(fp32, 0.01).likely_drop({0: Partial(float("nan"), 1)}) == np.inf


def test_decide_does_not_take_agreement_in_a_few_batches_for_proof() -> None:
    decider = Decider([Partial(1, 1)] * 1000, 0.0, confidence=0.999)
    assert decider.order is not None
    assert decider.decide({i: Partial(1, 1) for i in decider.order[:8]}) is None


def test_looks_grow_and_end_before_the_end() -> None:
    assert looks(7) == ()
    assert looks(18) == (8, 12)
    assert looks(100) == (8, 12, 18, 27, 40, 60)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 100, 1000])
def test_spread_is_a_permutation_with_even_beginnings(n: int) -> None:
    order = spread(n)
    assert sorted(order) == list(range(n))
    for size in (n // 8, n // 4, n // 2):
        if size >= 4:
            halves = np.histogram(order[:size], bins=2, range=(0, n))[0]
            assert abs(int(halves[0]) - int(halves[1])) <= max(2, size // 8)


@pytest.mark.parametrize(
    ("p", "degrees", "quantile"),  # Abramowitz and Stegun, table 26.10
    [(0.95, 10, 1.812), (0.975, 20, 2.086), (0.995, 30, 2.750), (0.9995, 10, 4.587), (0.9995, 120, 3.373)],
)
def test_student_agrees_with_the_tables(p: float, degrees: int, quantile: float) -> None:
    assert _student(p, degrees) == pytest.approx(quantile, rel=2e-3)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("sizes", [(1, 2, 3, 4, 5), (5, 50, 100)], ids=["few_records", "many"])
@pytest.mark.parametrize(
    ("upper", "confidence"), [(1, None), (None, None), (1, 0.9)], ids=["accuracy", "loss", "confidence"]
)
def test_decide_weighs_iterations_by_their_records(
    seed: int, sizes: tuple[int, ...], upper: int | None, confidence: float | None
) -> None:
    """Certain answers are those of all records, also where half of them were left out of some iterations; one with a
    confidence, which may err, is never taken back."""
    random = np.random.RandomState(seed)
    drawn = [int(size) for size in random.choice(sizes, random.randint(1, 40))]

    def scores() -> list[Partial]:
        if upper is None:
            return [Partial(float(random.gamma(2.0, size / 2.0)), size, size) for size in drawn]
        return [Partial(int(random.binomial(size, 0.8)), size, size) for size in drawn]

    fp32, int8 = scores(), scores()
    loss = (sum(p.numerator for p in fp32) - sum(p.numerator for p in int8)) / sum(drawn)
    loss = loss if upper else -loss
    decider = Decider(fp32, 0.01, upper, confidence)
    assert decider.drop(int8) == pytest.approx(loss, abs=1e-11)
    values: dict[int, Partial] = {}
    answers = []
    for i in random.permutation(len(drawn)):
        values[int(i)] = int8[i]
        answers.append(decider.decide(values))
    assert answers[-1] is not None
    assert {answer for answer in answers if answer is not None} == {answers[-1]}
    if confidence is None:
        assert answers[-1] is (decider.drop(int8) <= 0.01)
        assert decider.likely_drop(values) == pytest.approx(loss, abs=1e-11)
