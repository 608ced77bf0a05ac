import math
import random
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from distcalib.metrics import AP_VERSIONS, Decider, Detections, Partial, absent_classes, average_precisions, merged
from distcalib.metrics.partial import detections_of

Row = tuple[int, float, bool]


def part(rows: list[Row], positives: Mapping[int, int]) -> Detections:
    """An iteration's detections (label, score, hit)."""
    return Detections(
        np.array([row[0] for row in rows], np.int32),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.bool_),
        positives,
    )


def random_parts(n: int, seed: int, per_part: int = 6, levels: int = 8) -> list[Detections]:
    """Iterations with two classes and many equal scores; no more hits than objects."""
    rng = random.Random(seed)
    parts = []
    for _ in range(n):
        positives = {1: rng.randrange(4), 2: rng.randrange(3)}
        left = dict(positives)
        rows: list[Row] = []
        for _ in range(rng.randrange(per_part)):
            label = rng.choice((1, 2))
            hit = left[label] > 0 and rng.random() < 0.6
            left[label] -= hit
            rows.append((label, rng.randrange(levels) / levels, hit))
        parts.append(part(rows, positives))
    return parts


def stated_ap(parts: list[Detections], label: int, version: str) -> float:
    """ComputeAP of one class, in the order of its loops."""
    rows = [
        (float(score), bool(hit))
        for one in parts
        for name, score, hit in zip(one.labels, one.scores, one.hits, strict=True)
        if name == label
    ]
    n_positives = sum(one.positives[label] for one in parts)
    rows.sort(key=lambda row: -row[0])
    if not rows or not n_positives:
        return 0.0
    n_hits, precision, recall = 0, [], []
    for i, (_, hit) in enumerate(rows, 1):
        n_hits += hit
        precision.append(float(np.float32(n_hits) / np.float32(i)))
        recall.append(float(np.float32(n_hits) / np.float32(n_positives)))
    if version == "11point":
        tops = [max([p for p, r in zip(precision, recall, strict=True) if r >= j / 10.0], default=0) for j in range(11)]
        return sum(tops) / 11
    if version == "MaxIntegral":
        area, best, at = 0.0, precision[-1], recall[-1]
        for p, r in reversed(list(zip(precision, recall, strict=True))[:-1]):
            best = max(p, best)
            area += best * (at - r)
            at = r
        return area + at * best
    steps = pairwise([0.0, *recall])
    return sum(p * (b - a) for p, (a, b) in zip(precision, steps, strict=True))


@pytest.mark.parametrize("version", AP_VERSIONS)
@pytest.mark.parametrize("seed", range(6))
def test_average_precisions_are_what_caffe_states(version: str, seed: int) -> None:
    parts = random_parts(12, seed)
    found = average_precisions(parts, version)
    assert found == pytest.approx({label: stated_ap(parts, label, version) for label in (1, 2)}, abs=1e-6)
    assert merged(parts, version) == pytest.approx(sum(found.values()) / 2)
    assert any(found.values())


def test_recall_is_float32_as_in_caffe() -> None:
    parts = [part([(1, 0.9, True)] * 7, {1: 10})]
    assert float(np.float32(7) / np.float32(10)) < 0.7
    assert average_precisions(parts) == {1: 7 / 11}  # recalls of 0, 0.1 ... 0.6


def test_merged_orders_equal_scores_by_iteration_then_row() -> None:
    first, second = part([(1, 0.5, True)], {1: 1}), part([(1, 0.5, False)], {1: 0})
    assert merged([first, second]) == 1.0
    assert merged([second, first]) == 0.5


@pytest.mark.parametrize(
    ("rows", "positives", "expected"),
    [
        ([], {1: 0}, 0.0),
        ([], {1: 3}, 0.0),
        ([(1, 0.5, False)], {1: 0}, 0.0),
        ([(1, 0.5, True)], {1: 1}, 1.0),
        ([(1, 0.5, True)], {1: 1, 2: 0}, 0.5),  # a class without an object counts 0, whatever is found of it
        ([(1, 0.5, True), (2, 0.9, False)], {1: 1, 2: 0}, 0.5),
        ([], {}, 0.0),
    ],
)
def test_merged_of_little(rows: list[Row], positives: dict[int, int], expected: float) -> None:
    assert merged([part(rows, positives)]) == expected


@pytest.mark.parametrize("version", AP_VERSIONS)
def test_bounds_hold_whatever_is_detected_in_what_is_left_and_are_reached(version: str) -> None:
    for seed in range(40):
        measured, left = random_parts(4, seed), random_parts(3, 1000 + seed)
        low, high = Detections.bounds(measured, left, version)
        best = [
            part([(c, 2.0, True) for c, n in one.positives.items() for _ in range(n)], one.positives) for one in left
        ]
        assert merged([*measured, *best], version) == pytest.approx(high, abs=1e-12)
        rng = random.Random(seed)
        for _ in range(25):
            others = []
            for one in left:
                hits = [(c, rng.random(), True) for c, n in one.positives.items() for _ in range(rng.randint(0, n))]
                others.append(
                    part([*hits, *[(rng.choice((1, 2)), rng.random(), False)] * rng.randrange(4)], one.positives)
                )
            order = [*measured, *others]
            assert low <= merged(order, version) <= high + 1e-12


def test_classes_without_objects_count_as_0_in_the_bound_too() -> None:
    plain = random_parts(4, 1), random_parts(4, 2)
    measured, left = ([replace(p, positives={**p.positives, 3: 0, 4: 0, 5: 0}) for p in parts] for parts in plain)
    for mine, theirs in (((measured, left), plain), ((measured, []), (plain[0], []))):
        assert Detections.bounds(*mine)[1] == pytest.approx(Detections.bounds(*theirs)[1] * 2 / 5)
    assert merged(measured) == pytest.approx(merged(plain[0]) * 2 / 5)
    assert 0 < merged(measured) == Detections.bounds(measured, [])[1]
    assert (absent_classes(measured), absent_classes(plain[0])) == ((3, 4, 5), ())


def test_the_bound_counts_a_class_whose_objects_are_all_left() -> None:
    measured = [part([(1, 0.9, True)], {1: 1, 2: 0, 3: 0})]
    left = [part([], {1: 0, 2: 2, 3: 0})]
    assert Detections.bounds(measured, left)[1] == pytest.approx(2 / 3)
    assert merged([*measured, *left]) == pytest.approx(1 / 3)


def test_bounds_of_everything_are_the_score_at_the_upper_end() -> None:
    parts = random_parts(9, 5)
    assert Detections.bounds(parts, []) == (0.0, merged(parts))


@pytest.mark.parametrize("seed", range(20))
def test_decider_of_detections_is_never_wrong_and_stops_early(seed: int) -> None:
    reference, candidate = random_parts(20, seed, 12), random_parts(20, 500 + seed, 12)
    candidate = [Detections(c.labels, c.scores, c.hits, r.positives) for c, r in zip(candidate, reference, strict=True)]
    for tolerance in (0.0, 0.02, 0.1, 0.3):
        decider = Decider(reference, tolerance)
        final = decider.decide(dict(enumerate(candidate)))
        assert final is (decider.drop(candidate) <= tolerance)
        for n in range(1, 20):
            assert decider.decide({i: candidate[i] for i in range(n)}) in (None, final)


def test_decider_of_detections_stops_a_candidate_that_finds_nothing() -> None:
    reference = [part([(1, 0.9, True), (1, 0.8, False)], {1: 1})] * 16
    nothing = part([(1, 0.9, False)] * 5, {1: 1})
    decider = Decider(reference, 0.2)
    verdicts = [decider.decide(dict.fromkeys(range(n), nothing)) for n in range(1, 16)]
    assert verdicts[0] is None
    assert False in verdicts[:8]
    assert decider.patience == 1
    assert Decider([reference[0]] * 64, 0.05).patience == 4
    assert Decider([Partial(1, 2)] * 64, 0.05).patience == 1


def test_detections_of_takes_one_kind() -> None:
    one = part([], {1: 1})
    assert detections_of([one, Partial(1, 2)]) == [one]
    assert math.isclose(merged([Partial(1, 2), Partial(1, 4)]), 0.375)
