"""Positions are handed out once each, home first; and the heap finds what a search would."""

import random

import pytest

from distcalib.actors.shards import Stretches


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize(("n_positions", "n_actors"), [(1, 1), (10, 3), (3, 10), (1000, 7)])
def test_stretches_hand_out_each_position_once(n_positions: int, n_actors: int, in_order: bool) -> None:
    rng = random.Random(n_positions)
    stretches = Stretches(n_positions, n_actors, in_order)
    found: list[int] = []
    while stretches.n_waiting:
        found += stretches.take(rng.randrange(n_actors), target=rng.randint(1, 9), least=1, parts=2)
        assert stretches.n_waiting == n_positions - len(found)
    assert sorted(found) == list(range(n_positions))


def test_stretches_go_home_first_then_to_the_back_of_the_longest() -> None:
    stretches = Stretches(20, 2)
    taken = [stretches.take(0, target=6, least=6, parts=2) for _ in range(4)]
    assert taken == [range(0, 6), range(6, 10), range(14, 20), range(10, 14)]


def test_stretches_in_order_are_taken_from_the_front_by_all() -> None:
    stretches = Stretches(20, 3, in_order=True)
    taken = [stretches.take(actor, target=4, least=1, parts=2) for actor in (2, 0, 1, 2, 2, 0)]
    assert taken == [range(0, 4), range(4, 7), range(7, 10), range(10, 12), range(12, 14), range(14, 15)]


def test_stretches_help_the_first_of_the_longest() -> None:
    rng = random.Random(1)
    stretches, waiting = Stretches(900, 30), [set(range(30 * home, 30 * home + 30)) for home in range(30)]
    for _ in range(200):
        actor = rng.randrange(10)
        home = actor if waiting[actor] else max(range(30), key=lambda home: (len(waiting[home]), -home))
        shard = set(stretches.take(actor, target=rng.randint(1, 5), least=1, parts=1))
        assert shard <= waiting[home]
        waiting[home] -= shard


def test_stretches_hand_out_again_what_was_given_back_as_it_was() -> None:
    stretches = Stretches(20, 2)
    shard = stretches.take(0, target=7, least=7, parts=1)
    stretches.give_back(shard)
    assert stretches.n_waiting == 20
    assert stretches.take(1, target=1, least=1, parts=1) == shard


def test_stretches_hand_out_nothing_after_clear() -> None:
    stretches = Stretches(20, 2)
    stretches.clear()
    assert stretches.n_waiting == 0
