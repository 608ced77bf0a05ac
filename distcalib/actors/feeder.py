"""When which actor is asked for its next task, so that none idles and none hoards.

An actor has at most IN_FLIGHT tasks: one that runs and one that waits beside it, so that it never idles for the driver,
and no more, so that work stays where it can still be balanced. Where an iteration takes seconds, one is right: a task
that waits there is one that an idle actor could have. So it is where jobs will be stopped: what waits then is lost.
Actors without any are asked first.

An actor that was asked in vain is asked again only when the dispatcher has something that anybody could take: asking
all 4,096 whenever one is done would take minutes a pass."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Protocol

from distcalib.actors.dispatcher import Task

IN_FLIGHT = 2  # tasks an actor


class Tasks(Protocol):
    """Where tasks come from: a Dispatcher."""

    def next_task(self, actor: int, idle: bool) -> Task | None:
        """What `actor` should do after all it was given; None: nothing now."""
        ...

    def has_offer(self) -> bool:
        """True when next_task would give something to any actor."""
        ...


class Feeder:
    """Asks `dispatcher` on behalf of the actors; `n_flying`: tasks that each has already, of an earlier call;
    `in_flight`: how many it may have."""

    def __init__(self, dispatcher: Tasks, n_flying: Sequence[int], in_flight: int = IN_FLIGHT) -> None:
        self._dispatcher = dispatcher
        self._n_flying = list(n_flying)
        # Both by tasks in flight; actors are the keys, as sets have no order.
        self._fresh: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(in_flight)]
        self._refused: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(in_flight)]
        for actor in range(len(n_flying)):
            self._enter(actor)

    def feed(self) -> Iterator[tuple[int, Task]]:
        """Actors and their next tasks, until nobody can take any more; another call goes on where one was left."""
        for depth, (fresh, refused) in enumerate(zip(self._fresh, self._refused, strict=True)):
            while fresh or (refused and self._dispatcher.has_offer()):
                actor, _ = (fresh or refused).popitem(last=False)
                task = self._dispatcher.next_task(actor, idle=depth == 0)
                if task is None:
                    refused[actor] = None
                    continue
                self._n_flying[actor] += 1
                self._enter(actor)
                yield actor, task

    @property
    def n_idle(self) -> int:
        """Actors without a task; retired ones are none."""
        return len(self._fresh[0]) + len(self._refused[0])

    def freed(self, actor: int) -> None:
        """A task of `actor` is done."""
        self._leave(actor)
        self._n_flying[actor] -= 1
        self._enter(actor)

    def lost(self, actor: int, retired: bool = False) -> None:
        """`actor` died and was replaced, or `retired`, and is asked no more. What it leaves may suit an
        actor that was refused before: ask all again."""
        self._leave(actor)
        self._n_flying[actor] = len(self._fresh) if retired else 0
        self._enter(actor)
        self.ask_again()

    def grow(self, n_actors: int) -> None:
        """There are `n_actors` from now on, the new ones without a task."""
        for actor in range(len(self._n_flying), n_actors):
            self._n_flying.append(0)
            self._enter(actor)

    def ask_again(self) -> None:
        """There is something new for actors that were refused."""
        for fresh, refused in zip(self._fresh, self._refused, strict=True):
            fresh.update(refused)
            refused.clear()

    def _enter(self, actor: int) -> None:
        if self._n_flying[actor] < len(self._fresh):
            self._fresh[self._n_flying[actor]][actor] = None

    def _leave(self, actor: int) -> None:
        if self._n_flying[actor] < len(self._fresh):
            self._fresh[self._n_flying[actor]].pop(actor, None)
            self._refused[self._n_flying[actor]].pop(actor, None)
