"""The positions of one job that no actor was given yet.

They are cut into one stretch an actor, its home, or into as many as there are actors of use (dispatcher.n_useful): an
actor takes shards from the front of its own stretch and, when that is used up or it has none, from the back of the
longest other one. So in every job the same actor meets mostly the same batches (which its worker keeps decoded, see
data/image_cache.py), and each shard is a forward run through the database.

Where a job says which positions are whose, it says in which order they are wanted, too. Stretches are as long as it
says, and all take from their fronts: an actor from its own, unless that is far behind another one, whose actor has
other things to do.

Where beginnings count, as for a test that looks at the first so many positions, there is one stretch that all take from
the front of: with one each, no beginning was complete before nearly all was done.

The longest stretch, or the one that begins with what is wanted first, is found in a heap whose entries may be out of
date: stretches only shrink, so an entry promises too much at the worst, and is put right when it comes to the top. A
search through all of them took minutes a pass with 4,096 actors."""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Sequence

BEHIND = 0.1
"""The part of a job by which an actor may be further on in its own stretch than in another one that waits: to decode
images that another actor has decoded costs a tenth of what it costs to run a net on them."""


class Stretches:
    """`n_positions` positions, 0 first, in one stretch for each of `n_actors`, or in one for all where they are wanted
    `in_order`; `take` until `n_waiting` is 0.  `homes`: the lengths of the stretches, and `ranks`: which positions are
    wanted first, rising in each of them.
    """

    def __init__(
        self,
        n_positions: int,
        n_actors: int,
        in_order: bool = False,
        homes: Sequence[int] | None = None,
        ranks: Sequence[int] | None = None,
    ) -> None:
        n_stretches = 1 if in_order else n_actors
        bounds = [n_positions * home // n_stretches for home in range(n_stretches + 1)]
        self._ranks: Sequence[int] = ()
        if homes is not None and not in_order:
            bounds = [0, *itertools.accumulate(homes)]
            self._ranks = range(n_positions) if ranks is None else ranks
        self._in_order = in_order
        self._slack = n_positions * BEHIND
        self._n_sharing = n_actors if in_order else 1  # that a stretch is for
        self._stretches = [range(first, end) for first, end in itertools.pairwise(bounds)]
        self._best = [(self._value(stretch), home) for home, stretch in enumerate(self._stretches) if stretch]
        heapq.heapify(self._best)
        self._redo: deque[range] = deque()
        self.n_waiting = n_positions

    def take(self, actor: int, target: int, least: int, parts: int) -> range:
        """The next shard: a `parts`-th of what of a stretch is left for each actor that it is for, but at least `least`
        and at most `target` positions.
        """
        if self._redo:
            shard = self._redo.popleft()
        else:
            home = self._home(actor)
            stretch = self._stretches[home]
            n = min(len(stretch), max(least, min(target, math.ceil(len(stretch) / parts / self._n_sharing))))
            from_front = self._in_order or bool(self._ranks) or home == actor
            cut = n if from_front else len(stretch) - n
            front, back = stretch[:cut], stretch[cut:]
            shard, self._stretches[home] = (front, back) if from_front else (back, front)
        self.n_waiting -= len(shard)
        return shard

    def give_back(self, shard: range) -> None:
        """Hand `shard` out again as it was: whether it kills actors shows only if it stays the same."""
        self._redo.append(shard)
        self.n_waiting += len(shard)

    def grow(self, n_actors: int) -> None:
        """There are `n_actors` from now on: the new ones have no home and take from the longest stretches."""
        if self._in_order:
            self._n_sharing = n_actors

    def clear(self) -> None:
        """Hand out no more."""
        self._stretches.clear()
        self._best.clear()
        self._redo.clear()
        self.n_waiting = 0

    def _home(self, actor: int) -> int:
        """The stretch that `actor` takes from."""
        if self._in_order:
            return 0
        own = self._stretches[actor] if actor < len(self._stretches) else range(0)
        if not (own and self._ranks):
            return actor if own else self._best_home()
        best = self._best_home()
        return actor if self._ranks[own[0]] <= self._ranks[self._stretches[best][0]] + self._slack else best

    def _best_home(self) -> int:
        """The first of the longest stretches, or the one that begins with what is wanted first."""
        while True:
            promised, home = self._best[0]
            stretch = self._stretches[home]
            value = self._value(stretch)
            if stretch and value == promised:
                return home
            if stretch:
                heapq.heapreplace(self._best, (value, home))
            else:
                heapq.heappop(self._best)

    def _value(self, stretch: range) -> int:
        """The less the better to help there; it only grows."""
        return self._ranks[stretch[0]] if self._ranks and stretch else -len(stretch)
