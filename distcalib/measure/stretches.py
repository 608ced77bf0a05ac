"""The positions of one job that no actor was given yet.

They are cut into one stretch an actor, its home: an actor takes shards from the front of its own stretch and, when that
is used up, from the back of the longest other one. So in every job the same actor meets mostly the same batches (which
its worker may keep decoded), and each shard is a forward run through the database.

The longest stretch is found in a heap whose entries may be out of date: stretches only shrink, so an entry promises too
much at the worst, and is put right when it comes to the top. A search through all of them took minutes a pass with
4,096 actors."""

import heapq
import itertools
import math
from collections import deque


class Stretches:
    """`n_positions` positions, 0 first, in one stretch for each of `n_actors`; `take` until `n_waiting` is 0."""

    def __init__(self, n_positions: int, n_actors: int) -> None:
        bounds = [n_positions * actor // n_actors for actor in range(n_actors + 1)]
        self._stretches = [range(first, end) for first, end in itertools.pairwise(bounds)]
        self._longest = [(-len(stretch), home) for home, stretch in enumerate(self._stretches) if stretch]
        heapq.heapify(self._longest)
        self._redo: deque[range] = deque()
        self.n_waiting = n_positions

    def take(self, actor: int, target: int, least: int, parts: int) -> range:
        """The next shard: a `parts`-th of a stretch, but at least `least` and at most `target` positions of it."""
        if self._redo:
            shard = self._redo.popleft()
        else:
            home = actor if self._stretches[actor] else self._longest_home()
            stretch = self._stretches[home]
            n = min(len(stretch), max(least, min(target, math.ceil(len(stretch) / parts))))
            cut = n if home == actor else len(stretch) - n
            front, back = stretch[:cut], stretch[cut:]
            shard, self._stretches[home] = (front, back) if home == actor else (back, front)
        self.n_waiting -= len(shard)
        return shard

    def give_back(self, shard: range) -> None:
        """Hand `shard` out again as it was: whether it kills actors shows only if it stays the same."""
        self._redo.append(shard)
        self.n_waiting += len(shard)

    def clear(self) -> None:
        """Hand out no more."""
        self._stretches.clear()
        self._longest.clear()
        self._redo.clear()
        self.n_waiting = 0

    def _longest_home(self) -> int:
        """The first of the longest stretches."""
        while True:
            promised, home = self._longest[0]
            length = len(self._stretches[home])
            if length == -promised:
                return home
            if length:
                heapq.heapreplace(self._longest, (-length, home))
            else:
                heapq.heappop(self._longest)
