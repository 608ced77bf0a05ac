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


def test_stretches_with_homes_begin_with_what_is_wanted_first() -> None:
    """Each actor in its own stretch, and in the other one where that is far behind."""
    stretches = Stretches(20, 2, homes=[10, 10], ranks=[*range(0, 20, 2), *range(1, 20, 2)])
    assert stretches.take(0, target=2, least=2, parts=2) == range(0, 2)  # ranks 0, 2; the other stretch begins with 1
    assert stretches.take(0, target=2, least=2, parts=2) == range(10, 12)  # 1, 3, and not 4, 6
    assert stretches.take(0, target=2, least=2, parts=2) == range(2, 4)
    assert stretches.take(1, target=3, least=3, parts=2) == range(12, 15)
    assert stretches.take(7, target=2, least=2, parts=2) == range(4, 6)  # 8, 10 before 11: who has no home


@pytest.mark.parametrize("n_actors", [1, 3, 9])
def test_stretches_with_homes_hand_out_each_position_once(n_actors: int) -> None:
    rng = random.Random(n_actors)
    homes = [rng.randint(0, 30) for _ in range(5)]
    ranks = rng.sample(range(1000), sum(homes))
    begin = 0
    for length in homes:
        ranks[begin : begin + length] = sorted(ranks[begin : begin + length])
        begin += length
    stretches = Stretches(sum(homes), n_actors, homes=homes, ranks=ranks)
    found: list[int] = []
    while stretches.n_waiting:
        shard = stretches.take(rng.randrange(n_actors), target=rng.randint(1, 9), least=1, parts=2)
        if rng.random() < 0.1:
            stretches.give_back(shard)
        else:
            found += shard
    assert sorted(found) == list(range(sum(homes)))
